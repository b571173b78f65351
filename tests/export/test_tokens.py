"""Integer operations of transformers: slow twins in Python's integers, and onnxruntime."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from export import ModelMetadata, integerise, onnx_model
from export.integer import IntegerNetwork, Node
from export.onnx_functions import DOMAIN, OPSET
from export.onnx_model import _WRITERS, _functions
from export.onnx_writer import Writer
from export.products import WithoutZeroPoints
from export.tokens import (
    LayerNormalise,
    Lookup,
    Softmax,
    exponential_table,
    square_root,
)
from hw.errors import InputError
from lut import LUT, ApproxConv1d, ApproxConv2d, ApproxLinear, Candidates, Matmul, approximate

STATES = torch.cat([torch.arange(1 << 15), torch.arange(-(1 << 15), 0)])
EXACT = LUT.exact(a_signed=True, b_signed=True)


def _in_onnxruntime(node: Node, *operands: Tensor, kind: int = TensorProto.FLOAT) -> Tensor:
    """The node alone as a model; integers in and out."""
    writer = Writer(IntegerNetwork("unused", (1, 1, 1), ()), ModelMetadata())
    writer.kinds = dict.fromkeys(node.inputs, kind)
    _WRITERS[type(node)](writer, node)
    inputs = [helper.make_tensor_value_info(name, kind, None) for name in node.inputs]
    output = helper.make_empty_tensor_value_info(node.name)
    graph = helper.make_graph(
        writer.nodes, "node", inputs, [output], list(writer.initialisers.values())
    )
    model = helper.make_model(
        graph,
        ir_version=10,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        functions=_functions(writer),
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    types = {TensorProto.FLOAT: np.float32, TensorProto.INT32: np.int32}
    arrays = [operand.numpy().astype(types[kind]) for operand in operands]
    result = session.run(None, dict(zip(node.inputs, arrays, strict=True)))[0]
    return torch.from_numpy(result.astype(np.int64))


def test_square_roots_at_and_beside_squares() -> None:
    roots = torch.cat([torch.arange(1, 5000), torch.randint(1, 1 << 26, (50_000,))])
    for difference in (-1, 0, 1):
        values = (roots.square() + difference).clamp(0, (1 << 53) - 1)
        expected = [math.isqrt(value) for value in values.tolist()]
        assert square_root(values).tolist() == expected


def _normalised(row: list[int], node: LayerNormalise) -> list[int]:
    """In Python's integers, the quotient as a fraction rounded halves up."""
    total, size = sum(row), len(row)
    spread = size * sum(x * x for x in row) - total * total
    root = math.isqrt(4**node.extra_bits * spread + node.epsilon)
    scale = 2 ** (node.extra_bits + 12)
    return [math.floor(Fraction((size * x - total) * scale, root) + Fraction(1, 2)) for x in row]


state_rows = st.integers(1, 40).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(-(1 << 15), (1 << 15) - 1), min_size=size, max_size=size),
        min_size=1,
        max_size=4,
    )
)


@given(state_rows, st.sampled_from([1e-12, 1e-6, 1e-5, 1e-3, 0.5]))
@settings(max_examples=60)
def test_normalisation_is_its_definition(rows: list[list[int]], epsilon: float) -> None:
    node = LayerNormalise.of("y", ("x",), len(rows[0]), epsilon)
    assert node.evaluate(torch.tensor(rows)).tolist() == [_normalised(row, node) for row in rows]


def _rows(size: int) -> Tensor:
    """Random states, constant rows, and the extremes."""
    generator = torch.Generator().manual_seed(size)
    small = torch.randint(-300, 300, (50, size), generator=generator)
    large = torch.randint(-(1 << 15), 1 << 15, (50, size), generator=generator)
    constant = torch.tensor([[0], [1], [-(1 << 15)]]).expand(3, size)
    extremes = torch.where(torch.arange(size) % 2 == 0, -(1 << 15), (1 << 15) - 1)
    return torch.cat([small, large, constant, extremes[None], -1 - extremes[None]])


@pytest.mark.parametrize("size", [1, 2, 3, 16, 192, 768, 1448])
def test_normalisation_in_onnxruntime(size: int) -> None:
    rows = _rows(size)
    node = LayerNormalise.of("y", ("x",), size, 1e-5)
    expected = node.evaluate(rows)
    assert torch.equal(_in_onnxruntime(node, rows), expected)
    real = nn.functional.layer_norm(rows.double() / 512, (size,), eps=1e-5)
    assert (expected / 4096 - real)[:100].abs().max() < 2e-3 + 2e-3 * real.abs().max()


@pytest.mark.parametrize(
    ("size", "epsilon", "message"),
    [
        (1449, 1e-5, "a normalised axis must have at most 1448 values, not 1449"),
        (8, 1e9, "epsilon must be 1 … 2"),
    ],
)
def test_normalisations_that_would_not_be_exact(size: int, epsilon: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LayerNormalise.of("y", ("x",), size, epsilon)


def test_exponentials_are_those_of_every_difference() -> None:
    table = exponential_table()
    assert table[0] == 1 << 16 and table[-1] == 0 and table[-2] == 1
    expected = [round(65536 * math.exp(-index / 512)) for index in range(len(table))]
    assert table.tolist() == expected
    assert all(round(65536 * math.exp(-d / 512)) == 0 for d in range(len(table), 1 << 16, 97))


@given(state_rows)
@settings(max_examples=60)
def test_softmax_is_its_definition(rows: list[list[int]]) -> None:
    table = exponential_table()
    found = Softmax("y", ("x",), table).evaluate(torch.tensor(rows))
    for row, result in zip(rows, found.tolist(), strict=True):
        powers = [round(65536 * math.exp(-(max(row) - x) / 512)) for x in row]
        half = Fraction(1, 2)
        assert result == [math.floor(Fraction(p << 15, sum(powers)) + half) for p in powers]


@pytest.mark.parametrize("size", [1, 2, 17, 197])
def test_softmax_in_onnxruntime(size: int) -> None:
    rows = torch.cat([_rows(size), _rows(size) // 16])
    node = Softmax("y", ("x",), exponential_table())
    expected = node.evaluate(rows)
    assert torch.equal(_in_onnxruntime(node, rows), expected)
    real = (rows.double() / 512).softmax(-1)
    assert (expected / 32768 - real).abs().max() < 1e-4


FUNCTIONS: dict[str, tuple[nn.Module, Callable[[float], float]]] = {
    "gelu": (nn.GELU(), lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
    "sigmoid": (nn.Sigmoid(), lambda x: 1 / (1 + math.exp(-x))),
    "silu": (nn.SiLU(), lambda x: x / (1 + math.exp(-x))),
    "hardswish": (nn.Hardswish(), lambda x: x * min(max(x + 3, 0), 6) / 6),
    "leaky_relu": (nn.LeakyReLU(0.1), lambda x: max(x, 0.1 * x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_tabulated_for_every_state(name: str) -> None:
    module, function = FUNCTIONS[name]
    convolution = ApproxConv2d(1, 1, 1, Candidates([EXACT]))
    network = integerise(nn.Sequential(convolution, module).eval(), (1, 2, 2), 1.0)
    (node,) = (node for node in network.nodes if isinstance(node, Lookup))
    expected = np.array([512 * function(state / 512) for state in STATES.tolist()])
    found = node.evaluate(STATES).numpy()
    assert np.abs(found - np.clip(expected, -32768, 32767)).max() <= 0.5 + 1e-9
    assert np.array_equal(_in_onnxruntime(node, STATES).numpy(), found)


def test_zero_points_are_taken_from_every_product() -> None:
    generator = np.random.default_rng(0)
    for z, y in ((-128, 127), (5, 0), (0, -3), (255, 255)):
        a, b = (
            generator.integers(-128, 256, (2, 3, 4, 5)),
            generator.integers(-128, 256, (2, 3, 5, 6)),
        )
        expected = (a - z) @ (b - y)
        node = WithoutZeroPoints("c", ("s", "a", "b"), z, y, 5)
        operands = [torch.from_numpy(x) for x in (a @ b, a, b)]
        assert np.array_equal(node.evaluate(*operands).numpy(), expected)
        found = _in_onnxruntime(node, *operands, kind=TensorProto.INT32)
        assert np.array_equal(found.numpy(), expected)


class Shapes(nn.Module):
    """What networks do to shapes and numbers outside of layers."""

    def __init__(self) -> None:
        super().__init__()
        candidates = Candidates([EXACT])
        self.first = ApproxConv2d(3, 8, 3, candidates, padding=1, bias=True)
        self.along = ApproxConv1d(8, 8, 3, candidates, padding=1, groups=2)
        self.norm = nn.BatchNorm1d(8)
        self.mix = ApproxLinear(8, 8, candidates)
        self.last = ApproxLinear(16, 4, candidates)
        self.shift = nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.first((x - 0.5) / 0.25), approximate="tanh")
        sequence = self.norm(self.along(x.flatten(2)))
        one, other = sequence.chunk(2, dim=-1)
        tokens = (one - other).permute(0, 2, 1) + self.shift
        left, right = torch.split(self.mix(tokens), [3, 5], dim=2)
        tokens = torch.cat([right, -1.5 * left, torch.tanh(tokens[..., ::2])], dim=2)
        tokens = nn.functional.pad(tokens[:, 1:-1], (2, 2))
        pooled = tokens.reshape(-1, 6, 16).mean(dim=1)
        return self.last(nn.functional.dropout(pooled, 0.5, self.training)) / 2


def test_changes_of_shape() -> None:
    torch.manual_seed(0)
    module = Shapes().eval()
    images = torch.randint(0, 256, (7, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    for layer in module.modules():
        if isinstance(layer, ApproxConv2d):
            layer.quantiser.set_range(-3.0, 3.0)
    network, images = integerise(module, (3, 4, 4), 1 / 255), images.to(torch.uint8)
    expected = module(images.float() / 255).detach()
    found = network(images)
    assert (found - expected).abs().max() < 0.1 * expected.std() + 0.02
    session = onnxruntime.InferenceSession(
        onnx_model(network, ModelMetadata()).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    for count in (1, 7):
        logits: NDArray[np.float32] = session.run(None, {"image": images[:count].numpy()})[0]
        assert np.array_equal(logits, found[:count].numpy())


class Products(nn.Module):
    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.layer = forward, nn.Conv2d(3, 4, 1)
        self.product = Matmul()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


REFUSED = {
    "activations": (lambda x: x * x, "products of two activations must be those of lut.Matmul"),
    "images_joined": (lambda x: torch.cat([x, x]), "must not be of images"),
    "mean_of_images": (lambda x: x.mean(0, keepdim=True) + x, "must be the mean of each image"),
    "some_images": (lambda x: x[:1] + x, "must take all images"),
    "repeated": (lambda x: x[:, :, :1].expand(-1, -1, 4, -1), "must repeat a constant"),
    "softmax": (lambda x: x.softmax(1), "must be over the last axis, not over 1"),
    "power": (lambda x: x**2, "not call .*pow"),
    "matmul": (lambda x: x @ x, "not call .*matmul"),
    "padding": (lambda x: nn.functional.pad(x, (1, 1, 1, 1), "reflect"), "must pad with zeros"),
    "large": (lambda x: x + torch.full((4, 1, 1), 99.0), "must be within ±64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_integer_form_is_refused(name: str) -> None:
    function, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        integerise(approximate(Products(function), EXACT).eval(), (3, 4, 4), 1 / 255)
