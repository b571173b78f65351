"""Products of activations: exact integers, gradients by fake quantisation; a vision transformer."""

import pytest
import torch
from torch import Tensor, nn

from hw.errors import InputError
from lut import (
    LUT,
    ApproxLinear,
    ApproxMatmul,
    Candidates,
    Matmul,
    Quantisation,
    approx_matmul,
    approximate,
    calibrate,
)
from lut.quantisation import quantise

from .tables import random_table, truncated

EXACT = LUT.exact(a_signed=True, b_signed=True)
SEVERAL = [EXACT, truncated(5), truncated(7, rows=2)]
LARGE = [
    LUT(5000 * 4999 * table.table[:16, :16], a_signed=True, b_signed=True, name="large")
    for table in (random_table(1, magnitude=2), random_table(2, seed=1, magnitude=1))
]
"""Of products that fp32 does not hold."""
SHAPES = [((5, 7), (7, 3)), ((2, 3, 4, 6), (2, 3, 6, 5)), ((3, 1, 4, 6), (2, 6, 2))]
QUANTISATIONS = [Quantisation(), Quantisation(symmetric=False), Quantisation(learned=True)]


def _operands(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, y + 0.5


def _module(luts: list[LUT], quantisation: Quantisation, x: Tensor, y: Tensor) -> ApproxMatmul:
    """Calibrated on the operands."""
    module = ApproxMatmul(Candidates(luts), quantisation=quantisation)
    module(x, y, None if len(luts) == 1 else torch.ones(len(luts)))
    return module.eval()


def _expected(module: ApproxMatmul, x: Tensor, y: Tensor, lut: LUT) -> Tensor:
    """The look-up of every product, in Python."""
    one, other = module.x_quantiser, module.y_quantiser
    left, right = one(x).detach().long(), other(y).detach().long()
    rows, columns = lut.table.shape
    table = torch.from_numpy(lut.table.copy()).long()
    products = table[(left % rows)[..., :, :, None], (right % columns)[..., None, :, :]]
    a, b = int(one.zero_point), int(other.zero_point)
    products = products - a * right[..., None, :, :] - b * left[..., :, :, None] + a * b
    return products.sum(-2).float() * (one.scale * other.scale).detach()


@pytest.mark.parametrize("quantisation", QUANTISATIONS, ids=str)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize(
    "lut",
    [EXACT, truncated(6), random_table(4), random_table(70), LUT.exact(b_signed=True, width=4)],
    ids=lambda lut: f"{lut.name}_{lut.a_width}",
)
def test_equals_the_sum_over_the_table(
    lut: LUT, shapes: tuple[tuple[int, ...], tuple[int, ...]], quantisation: Quantisation
) -> None:
    x, y = _operands(shapes)
    module = _module([lut], quantisation, x, y)
    assert torch.equal(module(x, y), _expected(module, x, y, lut))


@pytest.mark.parametrize("quantisation", QUANTISATIONS, ids=str)
@pytest.mark.parametrize("tables", [SEVERAL, LARGE], ids=["small", "large"])
def test_mixture_is_the_weighted_sum_of_its_multipliers(
    tables: list[LUT], quantisation: Quantisation
) -> None:
    x, y = _operands(SHAPES[1])
    module = _module(tables, quantisation, x, y)
    separate = [_expected(module, x, y, lut) for lut in tables]
    for one_hot, expected in zip(torch.eye(len(tables)), separate, strict=True):
        assert torch.allclose(module(x, y, one_hot), expected, rtol=1e-6)
    weights = torch.linspace(0.1, 0.6, len(tables))
    weights = weights / weights.sum()
    expected = torch.einsum("m,m...->...", weights, torch.stack(separate))
    limit = 1e-5 * float(expected.abs().max())
    assert torch.allclose(module(x, y, weights), expected, rtol=1e-5, atol=limit)


@pytest.mark.parametrize("tables", [SEVERAL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradient_of_the_mixture(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], tables: list[LUT]
) -> None:
    x, y = _operands(shapes)
    module = _module(tables, Quantisation(), x, y)
    mixture = torch.full((len(tables),), 1 / len(tables), requires_grad=True)
    result = module(x, y, mixture)
    projection = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    (result * projection).sum().backward()
    expected = torch.stack([(_expected(module, x, y, t) * projection).sum() for t in tables])
    assert mixture.grad is not None
    limit = 1e-5 * float(expected.abs().max())
    assert torch.allclose(mixture.grad, expected, rtol=1e-4, atol=limit)


def _fake_quantised(x: Tensor, scale: Tensor, low: int, high: int, zero: Tensor) -> Tensor:
    ratio = x / scale
    level = (torch.round(ratio) + zero).detach()
    inside = (level >= low) & (level <= high)
    value = level.clamp(low, high) - zero
    return scale * torch.where(inside, ratio + (value - ratio).detach(), value)


@pytest.mark.parametrize("quantisation", QUANTISATIONS, ids=str)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradients_are_those_of_fake_quantisation(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], quantisation: Quantisation
) -> None:
    x, y = _operands(shapes)
    module = _module([EXACT], quantisation, x, y)
    module.x_quantiser.set_range(-1.0, 1.5)
    module.y_quantiser.set_range(-1.2, 0.9)
    real = [x.requires_grad_(), y.requires_grad_()]
    twins = [operand.detach().clone().requires_grad_() for operand in real]
    quantisers = module.x_quantiser, module.y_quantiser
    scales = [q.scale.detach().clone().requires_grad_() for q in quantisers]
    fakes = [
        _fake_quantised(operand, scale, q.low, q.high, q.zero_point)
        for operand, scale, q in zip(twins, scales, quantisers, strict=True)
    ]
    expected, found = fakes[0] @ fakes[1], module(*real)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    projection = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * projection).sum().backward()
    (found * projection).sum().backward()
    for one, other in zip(real, twins, strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-4)
        assert bool((one.grad == 0).any()), "some are clamped"
    if quantisation.learned:
        for quantiser, scale, operand in zip(quantisers, scales, real, strict=True):
            factor = (operand.numel() * quantiser.high) ** -0.5
            assert scale.grad is not None and quantiser.scale.grad is not None
            grad = quantiser.scale.grad / factor
            assert torch.allclose(grad, scale.grad, rtol=1e-3, atol=1e-2)


def test_gradients_of_an_approximate_product_are_the_exact_ones() -> None:
    x, y = (operand.requires_grad_() for operand in _operands(SHAPES[1]))
    gradients = []
    for lut in (EXACT, truncated(7)):
        module = _module([lut], Quantisation(), x, y)
        gradients.append(torch.autograd.grad(module(x, y).sum(), (x, y)))
    for exact, approximated in zip(*gradients, strict=True):
        assert torch.equal(exact, approximated)


def test_levels_are_those_that_the_integer_function_takes() -> None:
    x, y = _operands(SHAPES[1])
    lut = truncated(6)
    module = _module([lut], Quantisation(), x, y)
    levels = [
        quantise(operand, q.scale, q.low, q.high).to(torch.int8)
        for operand, q in ((x, module.x_quantiser), (y, module.y_quantiser))
    ]
    scale = module.x_quantiser.scale * module.y_quantiser.scale
    assert torch.equal(module(x, y), approx_matmul(levels[0], levels[1], lut).float() * scale)


def test_many_operands_where_fp32_stops_being_exact() -> None:
    x = torch.ones(2, 5401)
    unsigned = LUT.exact()
    for luts in ([unsigned], [unsigned, unsigned]):
        module = _module(luts, Quantisation(), x, x.T)
        mixture = None if len(luts) == 1 else torch.tensor([1.0, 0.0])
        scale = module.x_quantiser.scale * module.y_quantiser.scale
        expected = torch.tensor(5401 * 255 * 255).float() * scale
        assert torch.equal(module(x, x.T, mixture), expected.expand(2, 2))


def test_autocast_changes_the_type_of_the_result_alone() -> None:
    x, y = _operands(SHAPES[1])
    module = _module([truncated(6)], Quantisation(), x, y)
    expected = module(x, y).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x, y), expected)


@pytest.mark.parametrize("setting", ["medium", "bf16"])
def test_precision_settings_of_the_user_change_nothing(setting: str) -> None:
    x, y = _operands(SHAPES[1])
    module = _module([truncated(6)], Quantisation(), x, y)
    expected = module(x, y)
    onednn = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = onednn.fp32_precision
    if setting == "medium":
        torch.set_float32_matmul_precision(setting)
    else:
        onednn.fp32_precision = setting
    try:
        kept = onednn.fp32_precision
        assert torch.equal(module(x, y), expected)
        assert onednn.fp32_precision == kept
    finally:
        onednn.fp32_precision = before
        torch.set_float32_matmul_precision("highest")


def test_mixtures_of_the_wrong_size() -> None:
    x, y = _operands(SHAPES[0])
    with pytest.raises(InputError, match="mixture must have 2 weights, not be left out"):
        ApproxMatmul(Candidates([EXACT, truncated(4)]))(x, y)


# Networks


class Attention(nn.Module):
    """Two heads (Vaswani et al., 2017), their products as modules."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(features, 3 * features)
        self.scores, self.values = Matmul(), Matmul()
        self.out = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, features = x.shape
        heads = self.qkv(x).view(batch, tokens, 3, 2, features // 2).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        scores = self.scores(query, key.mT) * (features // 2) ** -0.5
        mixed = self.values(scores.softmax(-1), value).transpose(1, 2)
        result: Tensor = self.out(mixed.reshape(batch, tokens, features))
        return result


class Transformer(nn.Module):
    """A vision transformer of one block (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self, features: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, features, 4, stride=4)
        self.first_norm, self.second_norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attention = Attention(features)
        self.perceptron = nn.Sequential(
            nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features)
        )
        self.classifier = nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = tokens + self.attention(self.first_norm(tokens))
        tokens = tokens + self.perceptron(self.second_norm(tokens))
        result: Tensor = self.classifier(tokens.mean(1))
        return result


def _images() -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_exact_transformer_is_close_to_fp32() -> None:
    model = Transformer().eval()
    emulated = approximate(model, EXACT)
    kinds = [type(module) for module in emulated.modules()]
    assert kinds.count(ApproxMatmul) == 2
    assert kinds.count(ApproxLinear) == 5
    assert not {Matmul, nn.Linear, nn.Conv2d} & set(kinds)
    calibrate(emulated, [_images()])
    with torch.no_grad():
        expected, found = model(_images()), emulated(_images())
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize("quantisation", QUANTISATIONS, ids=str)
def test_a_step_of_training_reduces_the_loss(quantisation: Quantisation) -> None:
    emulated = approximate(Transformer(), truncated(4), quantisation)
    calibrate(emulated, [_images()])
    emulated.eval()
    optimiser = torch.optim.SGD(emulated.parameters(), 0.05)
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(emulated(_images()), torch.arange(8) % 5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert all(parameter.grad is not None for parameter in emulated.parameters())


def test_products_are_assigned_by_path() -> None:
    unsigned = LUT.exact(b_signed=True)
    emulated = approximate(
        Transformer(), {"attention.values": unsigned, "attention.scores": None, "*": EXACT}
    )
    values = emulated.get_submodule("attention.values")
    assert isinstance(values, ApproxMatmul)
    assert (values.x_quantiser.low, values.y_quantiser.low) == (0, -127)
    assert isinstance(emulated.get_submodule("attention.scores"), Matmul)


def test_layers_that_their_parent_does_not_call() -> None:
    model = nn.Sequential(nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3))
    for assignment in (EXACT, {"*": EXACT}, lambda name, layer: EXACT):
        with pytest.raises(
            InputError,
            match="layer '0.out_proj' must be given no multiplier .* nn.Linear and lut.Matmul",
        ):
            approximate(model, assignment)
    emulated = approximate(model, {"*.out_proj": None, "*": EXACT})
    assert isinstance(emulated[1], ApproxLinear)  # type: ignore[index]
    x = torch.randn(2, 4, 8)
    assert torch.equal(emulated[0](x, x, x)[0], model[0](x, x, x)[0])  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_encoders_call_their_emulated_layers_in_evaluation_too() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    emulated = approximate(model, {"*.linear?": truncated(6)})
    x, padding = torch.randn(3, 4, 8), torch.zeros(3, 4, dtype=torch.bool)
    padding[0, 3] = True
    calibrate(emulated, [x])
    with torch.no_grad():
        for mask in (None, padding):
            found = emulated(x, src_key_padding_mask=mask)
            assert found.shape == x.shape
            assert not torch.allclose(found, model(x, src_key_padding_mask=mask), atol=1e-3)
    assert model.layers[0].activation_relu_or_gelu == 1
