"""The ONNX model: bit-identical in onnxruntime, annotated, the same bytes twice."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export import (
    IntegerNetwork,
    ModelMetadata,
    integerise,
    onnx_model,
    onnxruntime_logits,
    write_onnx,
)
from export.integer import FRACTION_BITS, Convolution, Requantise
from export.onnx_bodies import product_body
from hw.errors import InputError
from lut import LUT, ConvGeometry

from ..lut.tables import random_table, truncated
from .networks import pixels, trained_residual

EXACT = LUT.exact(a_signed=True, b_signed=True)
TABLES = {
    "exact": [EXACT],
    "truncated": [truncated(7), truncated(6, rows=2)],
    "nonzero_at_zero": [random_table(3), EXACT],
    "high_rank": [random_table(70, magnitude=3), truncated(4)],
}


@pytest.fixture(params=TABLES, scope="module")
def integer(request: pytest.FixtureRequest) -> IntegerNetwork:
    return integerise(trained_residual(TABLES[request.param]), (2, 8, 8), 1 / 16)


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_logits_are_bit_identical(
    integer: IntegerNetwork, tmp_path: Path, optimised: bool, threads: int
) -> None:
    write_onnx(integer, tmp_path / "model.onnx")
    images = pixels(33, seed=9)
    logits = onnxruntime_logits(
        tmp_path / "model.onnx", images.numpy(), threads=threads, optimised=optimised
    )
    assert logits.dtype == np.float32
    assert np.array_equal(logits, integer(images).numpy())
    assert len(np.unique(logits)) > 20


def test_every_node_is_bit_identical(integer: IntegerNetwork) -> None:
    model, images = onnx_model(integer, ModelMetadata()), pixels(5, seed=3)
    del model.graph.output[:]
    for node in integer.nodes:
        model.graph.output.append(onnx.ValueInfoProto(name=node.name))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results = session.run(None, {integer.input_name: images.numpy()})
    trace = integer.trace(images)
    for node, result in zip(integer.nodes, results, strict=True):
        assert np.array_equal(result.astype(np.int64), trace[node.name].numpy()), node.name


def test_annotations(integer: IntegerNetwork) -> None:
    metadata = ModelMetadata("name", {"stem": 123}, {"key": "value"})
    model = onnx_model(integer, metadata)
    nodes = [node for node in model.graph.node if node.op_type.startswith("ApproxConvInteger")]
    assert len(nodes) == len(integer.convolutions)
    for node, convolution in zip(nodes, integer.convolutions, strict=True):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert node.domain == "ai.cosearch"
        assert attributes["layer"].decode() == convolution.layer
        assert attributes["lut_sha256"].decode() == convolution.lut.digest
        assert attributes["macs"] == convolution.macs
        assert attributes["energy_aj"] == (123 if convolution.layer == "stem" else 0)
    assert model.metadata_props[0].value == "value"


def test_same_network_gives_the_same_bytes(integer: IntegerNetwork, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_onnx(integer, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_split_body_where_fp32_stops_being_exact(tmp_path: Path) -> None:
    channels = 600
    weight = torch.full((2, channels, 3, 3), 255, dtype=torch.uint8)
    geometry = ConvGeometry.of(padding=1)
    convolution = Convolution("c", ("image",), "c", weight, LUT.exact(), geometry, (3, 3))
    one, half = torch.tensor([1]), torch.tensor([1 << 8])
    rescaled = Requantise("r", ("c",), one, half, 9, -(1 << 23), (1 << 23) - 1)
    network = IntegerNetwork("image", (channels, 3, 3), (convolution, rescaled))
    body = product_body(convolution)
    assert body.op_type == "ApproxConvIntegerSplit3" and body.bound < 1 << 24
    digits = sum(part * body.base**index for index, part in enumerate(body.parts))
    assert np.array_equal(digits, LUT.exact().factors.u)
    write_onnx(network, tmp_path / "model.onnx")
    images = torch.full((1, channels, 3, 3), 255, dtype=torch.uint8)
    logits = onnxruntime_logits(tmp_path / "model.onnx", images.numpy())
    centre = (channels * 9 * 255 * 255 + (1 << 8)) >> 9
    assert logits.reshape(2, 3, 3)[0, 1, 1] == np.float32(centre) * 2.0**-FRACTION_BITS
    assert np.array_equal(logits, network(images).numpy())


@pytest.mark.parametrize("zero_point", [0, -37])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(
    "lut",
    [
        EXACT,
        random_table(3),
        random_table(70, magnitude=2),
        LUT(12_000 * random_table(2).table, a_signed=True, b_signed=True, name="split"),
        LUT(0 * EXACT.table, a_signed=True, b_signed=True, name="zeros"),
    ],
    ids=lambda lut: lut.name,
)
def test_convolutions_of_any_geometry(lut: LUT, groups: int, zero_point: int) -> None:
    """A kernel of a group sums 36 / groups products, those of "split" beyond 2**24."""
    generator = torch.Generator().manual_seed(groups)
    if lut.name == "split":
        lut = LUT(groups * lut.table, a_signed=True, b_signed=True, name="split")
    weight = torch.randint(-128, 128, (12, 6 // groups, 3, 2), generator=generator)
    for geometry in (
        ConvGeometry.of(padding=(2, 1), groups=groups),
        ConvGeometry.of(stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=groups),
        ConvGeometry.of(groups=groups),
    ):
        size = geometry.output_size(
            torch.Size((1, 6, 8 + 2 * geometry.padding[0], 7 + 2 * geometry.padding[1])),
            weight.shape,
        )
        kernel = weight.to(torch.int8)
        node = Convolution("c", ("x",), "c", kernel, lut, geometry, size, zero_point)
        one, nothing = torch.tensor([1 << 9]), torch.tensor([0])
        levels = Requantise("x", ("image",), torch.tensor([2]), torch.tensor([-512]), 1, -128, 127)
        result = Requantise("r", ("c",), one, nothing, 9, -(1 << 31), (1 << 31) - 1)
        network = IntegerNetwork("image", (6, 8, 7), (levels, node, result))
        model = onnx_model(network, ModelMetadata())
        model.graph.output.append(onnx.ValueInfoProto(name="c"))
        grouped = "Grouped" if groups > 1 else ""
        (op_type,) = (n.op_type for n in model.graph.node if n.op_type.startswith("Approx"))
        assert op_type.startswith(f"ApproxConvInteger{grouped}")
        assert ("Split" in op_type) == (lut.name == "split")
        images = torch.randint(0, 256, (3, 6, 8, 7), generator=generator).to(torch.uint8)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        found = session.run(["c"], {"image": images.numpy()})[0]
        assert np.array_equal(found, network.trace(images)["c"].numpy())


def test_rescalings_that_float64_would_round_are_refused() -> None:
    number = torch.tensor([1])
    for multiplier, offset, shift, high in (
        (1 << 21, 1, 1, 1),
        (1, 1 << 52, 1, 1),
        (1, 1, 45, 127),
    ):
        with pytest.raises(InputError, match="must be at most 2.*51 to be exact in float64"):
            Requantise("n", ("x",), number * multiplier, number * offset, shift, 0, high)
