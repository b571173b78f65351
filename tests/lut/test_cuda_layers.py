"""Layers through the fused CUDA kernels equal the same layers through torch operations.

Sums are exact, so results in float32 are equal to the last bit; where mixtures are added in another
order, or gradients are computed in bfloat16, they are close. As in ``test_cuda_backends`` the
kernels run on a GPU, or in Triton's interpreter.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from lut import LUT, ActivationQuantiser, ApproxConv2d, Candidates, emulation
from lut.backends.cuda_emulation import fixed_unit
from lut.geometry import ConvGeometry
from lut.layers import ApproxLinear, observed_together

from .tables import random_table, truncated
from .test_cuda_backends import CUDA, DEVICE, INTERPRETED, runs_kernels

EXACT = LUT.exact(a_signed=True, b_signed=True)
SHAPES = {
    "dense": {"x": (2, 5, 6, 7), "outputs": 4, "kernel": 3, "padding": 1},
    "strided": {"x": (2, 16, 7, 7), "outputs": 17, "kernel": 1, "stride": 2},
    "grouped": {"x": (2, 6, 5, 5), "outputs": 4, "kernel": 3, "groups": 2, "padding": 1},
    "depthwise": {
        "x": (2, 5, 6, 6), "outputs": 5, "kernel": 3, "groups": 5, "padding": 2, "dilation": 2,
    },
    "multiplied": {"x": (1, 4, 6, 6), "outputs": 8, "kernel": 3, "groups": 4, "padding": 1},
}  # fmt: skip
# Dense layers: aligned channels and several tiles; bytes of a tap that are not whole tiles.
DENSE_SHAPES = {
    "dense_strided": {"x": (2, 7, 9, 8), "outputs": 6, "kernel": 3, "padding": 1, "stride": 2},
    "wide": {"x": (1, 16, 3, 3), "outputs": 34, "kernel": 2, "padding": 1},
    "deep": {"x": (1, 240, 4, 4), "outputs": 3, "kernel": 3},
}


def _large(seed: int) -> LUT:
    """Of factors that do not fit two signed bytes."""
    products = np.random.default_rng(seed).integers(-40000, 40000, 256)
    table = np.outer(np.arange(256) & 1, products)
    return LUT(table, a_signed=True, b_signed=True, name=f"large_{seed}")


def _even() -> LUT:
    """Exact products of a and the even part of b."""
    products = EXACT.table.copy()
    products[:, 1::2] = products[:, ::2]
    return LUT(products, a_signed=True, b_signed=True, name="even")


# Of 8 planes, 3, 1 that is the operand itself, 10 and 1.
MIXTURES = {
    "whole": [EXACT, truncated(5), truncated(7)],
    "few": [random_table(2), random_table(1, seed=1)],
    "plain": [EXACT, _even()],
    "many": [random_table(8), random_table(2, seed=1, magnitude=90)],
    "large": [_large(0), _large(1)],
}
MIXED_LAYERS = [
    ("dense", "whole"), ("dense", "few"), ("dense", "many"), ("grouped", "whole"),
    ("grouped", "few"), ("dense_strided", "many"), ("wide", "few"), ("deep", "whole"),
    ("dense", "large"), ("depthwise", "few"), ("depthwise", "plain"), ("multiplied", "few"),
]  # fmt: skip
AFFINE = ("dense", "multiplied")
SINGLE = [EXACT, LUT.exact(b_signed=True), truncated(6), random_table(3), random_table(200)]


def _layer(luts: list[LUT], shape: str, affine: bool) -> tuple[ApproxConv2d, Tensor]:
    settings = dict((SHAPES | DENSE_SHAPES)[shape])
    size, outputs, kernel = settings.pop("x"), settings.pop("outputs"), settings.pop("kernel")
    torch.manual_seed(0)
    layer = ApproxConv2d(size[1], outputs, kernel, Candidates(luts), **settings)  # type: ignore[index, arg-type]
    low, high = (-128, 127) if luts[0].a_signed else (0, 255)
    if affine:
        layer.quantiser = ActivationQuantiser(low, high, symmetric=False)
    layer.quantiser.set_range(-1.5, 2.0)
    x = torch.randn(size) + 0.3  # type: ignore[arg-type]
    return layer.eval().to(DEVICE), x.to(DEVICE)


def _run(layer: ApproxConv2d, x: Tensor, mixture: Tensor | None) -> list[Tensor]:
    """The result, and the gradients of x, of the weights and of the mixture."""
    operands = [x.clone().requires_grad_()]
    if mixture is not None:
        operands.append(mixture.to(DEVICE).clone().requires_grad_())
    result = layer(*operands)
    generator = torch.Generator().manual_seed(1)
    signal = torch.randn(result.shape, generator=generator).to(DEVICE, result.dtype)
    found = torch.autograd.grad(result, [*operands, layer.weight], signal)
    return [result.detach(), *found]


def _both(
    layer: ApproxConv2d, x: Tensor, mixture: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], list[Tensor]]:
    fused = _run(layer, x, mixture)
    monkeypatch.setattr(emulation, "is_fused", lambda *_: False)
    return fused, _run(layer, x, mixture)


@runs_kernels
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lut", SINGLE, ids=lambda lut: f"{lut.name}_{lut.a_signed:d}")
def test_one_multiplier(
    lut: LUT, shape: str, affine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = _layer([lut], shape, affine)
    fused, plain = _both(layer, x, None, monkeypatch)
    assert torch.equal(fused[0], plain[0])
    for one, other in zip(fused[1:], plain[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@runs_kernels
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_mixtures(shape: str, affine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = _layer([EXACT, truncated(5), truncated(7)], shape, affine)
    fused, plain = _both(layer, x, torch.tensor([0.2, 0.5, 0.3]), monkeypatch)
    # Weights in two parts of bfloat16 on a GPU: 16 bits.
    precision = 2e-5 if CUDA and not INTERPRETED else 1e-6
    for one, other in zip(fused, plain, strict=True):
        scale = float(other.abs().max())
        assert float((one - other).abs().max()) <= max(1e-4, precision) * scale
    assert float((fused[0] - plain[0]).abs().max()) <= precision * float(plain[0].abs().max()) * 4


@runs_kernels
@pytest.mark.parametrize(("shape", "luts"), MIXED_LAYERS)
def test_mixtures_in_half_precision(shape: str, luts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fixed point: close to the result's rounding, whatever the weights add up to."""
    layer, x = _layer(MIXTURES[luts], shape, affine=shape in AFFINE)
    sides = torch.tensor([0.6, 0.1, 0.3])[: len(layer.candidates)].to(DEVICE)
    found = {}
    for weight, kind in ((1.0, torch.bfloat16), (-2.7, torch.float16), (0.01, torch.bfloat16)):
        with torch.no_grad(), torch.autocast(DEVICE, kind):
            found[weight] = layer(x, sides * weight)
        assert found[weight].dtype == kind
    monkeypatch.setattr(emulation, "is_fused", lambda *_: False)
    for weight, result in found.items():
        with torch.no_grad():
            expected = layer(x, sides * weight)
        error = (result.float() - expected).abs()
        rounding = torch.finfo(result.dtype).eps * expected.abs()  # the interpreter cuts bits off
        assert bool((error <= rounding + 3e-4 * expected.abs().max()).all()), weight


@pytest.mark.parametrize("luts", MIXTURES)
def test_units_of_fixed_point(luts: str) -> None:
    tables = Candidates(MIXTURES[luts]).tables
    assert tables.basis is not None
    largest, most = int(abs(tables.basis.v).max()), 32639
    unit = fixed_unit(tables, torch.bfloat16, 130_000)
    assert (unit is None) == (luts == "large") == (largest > most)
    if unit is not None:
        assert unit <= 1 and unit * most >= largest > unit / 2 * most
        assert (1 / unit).is_integer()
    assert fixed_unit(tables, torch.float32, 1) is None
    assert fixed_unit(tables, torch.bfloat16, 130_001) is None


@runs_kernels
@pytest.mark.parametrize(("shape", "luts"), [*MIXED_LAYERS, ("strided", "whole")])
def test_single_multipliers_of_a_mixture_in_half_precision(shape: str, luts: str) -> None:
    """Bit for bit the layer of that multiplier."""
    layer, x = _layer(MIXTURES[luts], shape, affine=shape in AFFINE)
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        for index, lut in enumerate(MIXTURES[luts][:2]):
            alone, _ = _layer([lut], shape, affine=shape in AFFINE)
            one_hot = torch.eye(len(layer.candidates), device=DEVICE)[index]
            result = layer(x, one_hot)
            assert result.dtype == torch.bfloat16
            assert torch.equal(result, alone(x))


@runs_kernels
def test_the_range_is_observed_as_without_kernels() -> None:
    layer, _ = _layer([EXACT], "dense", affine=False)
    twin = ActivationQuantiser(-127, 127).train()
    layer.quantiser = ActivationQuantiser(-127, 127).to(DEVICE)
    layer.train()
    for seed in range(3):
        x = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(seed)) * (seed + 1)
        layer(x.to(DEVICE))
        twin(x)
    assert torch.equal(layer.quantiser.scale.cpu(), twin.scale)
    state = {name: tensor.cpu() for name, tensor in layer.quantiser.state_dict().items()}
    for name, tensor in twin.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert not layer.scratch.any()


@runs_kernels
def test_layers_observe_together_as_each_does_alone() -> None:
    together = [_layer([EXACT], "dense", affine=False)[0].train() for _ in range(3)]
    together[1].quantiser = ActivationQuantiser(-127, 127).to(DEVICE)
    together[2].quantiser.set_range(-5.0, 5.0)
    affine = _layer([EXACT], "dense", affine=True)[0].train()
    still = _layer([EXACT], "dense", affine=False)[0].eval()
    alone = copy.deepcopy(together)
    for seed in range(3):
        x = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(seed)) * (seed + 1)
        x = x.to(DEVICE)
        scales = observed_together([*together, affine, still], x)
        assert list(scales) == together
        for one, other in zip(together, alone, strict=True):
            assert torch.equal(one(x, None, scales[one]), other(x))
            assert torch.equal(scales[one], other.quantiser.scale)
    for one, other in zip(together, alone, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
        assert not one.scratch.any()
    assert affine.quantiser.observer is not None and int(affine.quantiser.observer.batches) == 1


def test_layers_observe_alone_where_no_kernel_runs() -> None:
    layers = [ApproxConv2d(5, 4, 3, Candidates([EXACT])).train() for _ in range(2)]
    assert observed_together(layers, torch.randn(1, 5, 6, 7).double().to("meta")) == {}


@runs_kernels
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_depthwise_layers(
    affine: bool, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By kernels, which know where operands are clamped, and by torch."""
    layer, x = _layer([EXACT], "depthwise", affine)
    layer.geometry = ConvGeometry.of(stride, 2, 2, 5)
    x = x.contiguous(memory_format=torch.channels_last)
    assert ((x < -1.5) | (x > 2.0)).any()
    found = _run(layer, x, None)
    monkeypatch.setattr(emulation, "exact_kernel", lambda *_: None)
    for one, other in zip(found, _run(layer, x, None), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@runs_kernels
def test_given_weight_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = _layer([truncated(6)], "dense", affine=False)
    scales = torch.linspace(0.001, 0.02, 4, device=DEVICE)

    def result() -> Tensor:
        return torch.ops.lut.conv2d(  # type: ignore[no-any-return]
            x, layer.weight, layer.quantiser.scale, layer.quantiser.zero_point, scales, None,
            layer.candidates.key, False, (-127, 127), (-127, 127), (1, 1), (1, 1), (1, 1), 1,
            torch.float32,
        )[0]  # fmt: skip

    fused = result()
    monkeypatch.setattr(emulation, "is_fused", lambda *_: False)
    assert torch.equal(fused, result())


@runs_kernels
@pytest.mark.skipif(not CUDA or INTERPRETED, reason="the interpreter divides")
def test_levels_of_every_bfloat16_are_those_of_a_division() -> None:
    """Also values next to ties, in float32."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    every = bits.view(torch.bfloat16)
    every = every[every.isfinite()].to(DEVICE)
    layer = ApproxLinear(1, 1, Candidates([EXACT]), bias=False).to(DEVICE).eval()
    convolution = layer.convolution
    with torch.no_grad():
        convolution.weight.fill_(1.0)
    generator = torch.Generator().manual_seed(0)
    for exponent in torch.empty(200).uniform_(-20, 10, generator=generator).exp2().tolist():
        convolution.quantiser.scale.fill_(exponent)
        scale = convolution.quantiser.scale
        ties = (torch.arange(-130, 130, device=DEVICE) + 0.5) * scale
        near = torch.cat([torch.nextafter(ties, ties + s) for s in (-1.0, 0.0, 1.0)])
        for x in (every, near):
            result = layer(x[:, None])[:, 0].float()
            levels = torch.round(x.float() / scale).clamp(-127, 127)
            expected = (levels * 127 * (scale * (torch.ones_like(scale) / 127))).to(x.dtype)
            assert torch.equal(result, expected.float())
