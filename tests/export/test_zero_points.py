"""Affine and unsigned activations: integers as computed by hand, the same in onnxruntime."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from export import IntegerNetwork, integerise, layer_operands, onnxruntime_logits, write_onnx
from export.integer import Convolution, Requantise
from lut import LUT, ActivationQuantiser, ApproxConv2d, ApproxLinear, Candidates

from ..lut.tables import random_table, truncated

SHAPE, SCALE = (2, 6, 6), 1 / 16


def _mixed_signs() -> LUT:
    """Unsigned activations, signed weights, without some low partial products."""
    exact = LUT.exact(a_signed=False, b_signed=True).table
    return LUT(exact & ~np.int32(31), a_signed=False, b_signed=True, name="mixed_signs")


def _disturbed() -> LUT:
    """Exact products and a structureless error, which zero operands have too."""
    table = LUT.exact(a_signed=True, b_signed=True).table + 30 * random_table(2, magnitude=4).table
    return LUT(table, a_signed=True, b_signed=True, name="disturbed")


TABLES = {
    "exact": LUT.exact(a_signed=True, b_signed=True),
    "truncated": truncated(6),
    "nonzero_at_zero": _disturbed(),
    "unsigned_exact": LUT.exact(a_signed=False, b_signed=True),
    "unsigned": _mixed_signs(),
    "both_unsigned": LUT.exact(),
}


class Small(nn.Module):
    """Padded, rectified and not, grouped; a first layer and a classifier."""

    def __init__(self, lut: LUT, *, symmetric: bool = False) -> None:
        super().__init__()
        candidates = Candidates([lut])
        self.stem = ApproxConv2d(2, 6, 3, candidates, padding=1, bias=True)
        self.norm = nn.BatchNorm2d(6)
        self.rectified = ApproxConv2d(6, 6, 3, candidates, padding=2, dilation=2, groups=3)
        self.plain = ApproxConv2d(6, 4, (3, 1), candidates, stride=2, padding=(1, 0))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = ApproxLinear(4, 5, candidates)
        low, high = (-128, 127) if lut.a_signed else (0, 255)
        ranges = {"stem": (-0.2, 1.03), "rectified": (-0.5, 1.9), "plain": (-2.5, 1.7)}
        for name, (lowest, highest) in {**ranges, "classifier": (-1.0, 0.6)}.items():
            quantiser = ActivationQuantiser(low, high, symmetric=symmetric)
            quantiser.set_range(lowest, highest)
            layer = getattr(self, name)
            (layer.convolution if name == "classifier" else layer).quantiser = quantiser

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectified(torch.relu(self.norm(self.stem(x))))
        return self.classifier(torch.flatten(self.pool(self.plain(x)), 1))


def small(lut: LUT, *, symmetric: bool = False) -> Small:
    torch.manual_seed(0)
    network = Small(lut, symmetric=symmetric).eval()
    with torch.no_grad():
        network.stem.bias.normal_(0.0, 0.2)
        network.classifier.convolution.bias.normal_(0.0, 0.2)
        network.norm.running_mean.normal_(0.0, 0.1)
        network.norm.running_var.uniform_(0.1, 0.3)
        network.norm.bias.normal_(0.0, 0.2)
    return network


def _images(count: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 17, (count, *SHAPE), generator=generator).to(torch.uint8)


def _by_hand(layer: ApproxConv2d, levels: Tensor) -> Tensor:
    """scale_x · scale_w · (sum of the table - zero_point · sum of weights) + bias, float64, one
    look-up a multiplication.
    """
    lut, quantiser, geometry = layer.candidates.luts[0], layer.quantiser, layer.geometry
    zero_point = int(quantiser.zero_point)
    weights, scales = (t.detach().double() for t in layer.quantised_weight())
    (top, left), (down, right) = geometry.padding, geometry.stride
    padded = np.pad(
        levels.numpy(), [(0, 0), (0, 0), (top, top), (left, left)], constant_values=zero_point
    )
    outputs, inputs, height, width = weights.shape
    rows = (padded.shape[2] - geometry.dilation[0] * (height - 1) - 1) // down + 1
    columns = (padded.shape[3] - geometry.dilation[1] * (width - 1) - 1) // right + 1
    result = np.zeros((len(levels), outputs, rows, columns))
    for o, c, i, j in np.ndindex(outputs, inputs, height, width):
        channel = o * geometry.groups // outputs * inputs + c
        y, x = i * geometry.dilation[0], j * geometry.dilation[1]
        window = padded[:, channel, y : y + down * rows : down, x : x + right * columns : right]
        weight = int(weights[o, c, i, j])
        result[:, o] += lut.table[window[:, :rows] & 255, weight & 255] - zero_point * weight
    scale = quantiser.scale.double() * scales.view(1, -1, 1, 1)
    bias = 0.0 if layer.bias is None else layer.bias.detach().double().view(1, -1, 1, 1)
    return torch.from_numpy(result) * scale + bias


@pytest.fixture(params=TABLES, scope="module")
def lut(request: pytest.FixtureRequest) -> LUT:
    return TABLES[request.param]


@pytest.fixture(scope="module")
def network(lut: LUT) -> Small:
    return small(lut)


@pytest.fixture(scope="module")
def integer(network: Small) -> IntegerNetwork:
    return integerise(network, SHAPE, SCALE)


def _levels(quantiser: ActivationQuantiser, real: Tensor) -> Tensor:
    unclamped = torch.round(real / quantiser.scale.double()) + int(quantiser.zero_point)
    return unclamped.clamp(quantiser.low, quantiser.high)


def test_layers_keep_their_zero_points(network: Small, integer: IntegerNetwork) -> None:
    found = {node.layer: node.zero_point for node in integer.convolutions}
    assert found == {
        "stem": int(network.stem.quantiser.zero_point),
        "rectified": int(network.rectified.quantiser.zero_point),
        "plain": int(network.plain.quantiser.zero_point),
        "classifier": int(network.classifier.convolution.quantiser.zero_point),
    }
    assert all(zero_point != 0 for zero_point in found.values())


def test_integers_follow_the_computation_by_hand(network: Small, integer: IntegerNetwork) -> None:
    images = _images()
    trace = integer.trace(images)
    assert torch.equal(
        trace["stem.levels"], _levels(network.stem.quantiser, images.double() * SCALE).long()
    )
    stem = _by_hand(network.stem, trace["stem.levels"])
    rectified = torch.relu(network.norm.double()(stem)).detach()
    network.norm.float()
    plain = _by_hand(network.rectified, trace["rectified.levels"])
    pooled = _by_hand(network.plain, trace["plain.levels"]).mean((2, 3), keepdim=True)
    for layer, expected in (("rectified", rectified), ("plain", plain)):
        levels = trace[f"{layer}.levels"]
        quantiser = getattr(network, layer).quantiser
        differences = (levels - _levels(quantiser, expected)).abs()
        assert differences.max() <= 1 and (differences > 0).double().mean() < 0.02, layer
        assert len(levels.unique()) > 20
    convolution = network.classifier.convolution
    differences = trace["classifier.levels"] - _levels(convolution.quantiser, pooled)
    assert differences.abs().max() <= 1
    logits = _by_hand(convolution, trace["classifier.levels"]).flatten(1)
    assert (integer(images) - logits).abs().max() < 2 / 512


def test_logits_follow_the_float_module(network: Small, integer: IntegerNetwork) -> None:
    images = _images()
    expected = network(images.float() * SCALE).detach()
    assert (integer(images) - expected).abs().max() < 0.05 * expected.std() + 4 / 512


def test_rectified_levels_start_at_the_zero_point(integer: IntegerNetwork) -> None:
    by_name = {node.name: node for node in integer.nodes}
    for convolution in integer.convolutions:
        levels = by_name[convolution.inputs[0]]
        assert isinstance(levels, Requantise)
        low = -128 if convolution.lut.a_signed else 0
        assert levels.low == (convolution.zero_point if convolution.layer == "rectified" else low)
        assert levels.high == low + 255


@pytest.mark.parametrize("optimised", [True, False])
def test_onnxruntime_gives_the_same_bits(
    integer: IntegerNetwork, tmp_path: Path, optimised: bool
) -> None:
    write_onnx(integer, tmp_path / "model.onnx")
    images = _images(17)
    logits = onnxruntime_logits(tmp_path / "model.onnx", images.numpy(), optimised=optimised)
    assert np.array_equal(logits, integer(images).numpy())
    assert len(np.unique(logits)) > 10


def test_model_names_the_zero_points(integer: IntegerNetwork, tmp_path: Path) -> None:
    write_onnx(integer, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type.startswith("ApproxConvInteger")]
    for node, convolution in zip(nodes, integer.convolutions, strict=True):
        stored = constants[node.input[2]]
        assert stored == convolution.zero_point
        assert stored.dtype == (np.int8 if convolution.lut.a_signed else np.uint8)


def test_recorded_operands_pad_with_the_zero_point(integer: IntegerNetwork) -> None:
    images = _images(2)
    trace = integer.trace(images)
    for node in integer.convolutions:
        record = layer_operands(integer, node.layer, images)
        products = node.lut.table[record.a, record.b].astype(np.int64)
        per_channel = products.reshape(len(node.weight), -1).sum(axis=1)
        sums = trace[node.name].sum((0, 2, 3)).numpy()
        assert np.array_equal(per_channel, sums), node.layer


def test_a_convolution_pads_with_its_zero_point() -> None:
    lut = random_table(4)
    weight = torch.randint(-128, 128, (1, 1, 3, 3), generator=torch.Generator().manual_seed(3))
    geometry = ApproxConv2d(1, 1, 3, Candidates([lut]), padding=1).geometry
    kernel = weight.to(torch.int8)
    node = Convolution("c", ("x",), "c", kernel, lut, geometry, (1, 1), zero_point=-77)
    operands = np.full((3, 3), -77)
    operands[1, 1] = 5
    expected = lut.table[operands & 255, weight[0, 0].numpy() & 255].sum()
    assert node.evaluate(torch.tensor([[[[5]]]])).item() == expected


@pytest.mark.parametrize("name", ["unsigned_exact", "unsigned", "both_unsigned"])
def test_unsigned_symmetric_activations(name: str, tmp_path: Path) -> None:
    network = small(TABLES[name], symmetric=True)
    integer, images = integerise(network, SHAPE, SCALE), _images()
    assert all(node.zero_point == 0 for node in integer.convolutions)
    write_onnx(integer, tmp_path / "model.onnx")
    logits = onnxruntime_logits(tmp_path / "model.onnx", images.numpy())
    assert np.array_equal(logits, integer(images).numpy())
    expected = network(images.float() * SCALE).detach()
    assert (integer(images) - expected).abs().max() < 0.05 * expected.std() + 4 / 512
    assert expected.std(0).max() > 0


def test_learned_scales_export(tmp_path: Path) -> None:
    network = small(TABLES["truncated"], symmetric=True)
    network.rectified.quantiser = ActivationQuantiser(-127, 127, learned=True)
    network.rectified.quantiser.set_range(-2.0, 2.0)
    integer, images = integerise(network, SHAPE, SCALE), _images()
    expected = network(images.float() * SCALE).detach()
    assert (integer(images) - expected).abs().max() < 0.05 * expected.std() + 4 / 512
    write_onnx(integer, tmp_path / "model.onnx")
    logits = onnxruntime_logits(tmp_path / "model.onnx", images.numpy())
    assert np.array_equal(logits, integer(images).numpy())
