"""The QONNX twin: exact products bit for bit in onnxruntime and in QONNX's own executor, types and
annotations, what it refuses.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export import IntegerNetwork, ModelMetadata, integerise
from export.integer import FRACTION_BITS, Convolution, Node, Requantise
from export.qonnx import FP32_EXACT, largest_sum, nodes_without_form, qonnx_model, write_qonnx
from hw import InputError
from lut import LUT, ConvGeometry

from ..lut.tables import truncated
from .networks import pixels, trained_residual
from .test_zero_points import SCALE, SHAPE, small

SIGNED = LUT.exact(a_signed=True, b_signed=True)


def residual(lut: LUT = SIGNED) -> IntegerNetwork:
    return integerise(trained_residual([lut]), (2, 8, 8), 1 / 16)


def padded(a_signed: bool, b_signed: bool) -> IntegerNetwork:
    """Zero points, paddings of them, a global pool over nine positions."""
    lut = LUT.exact(a_signed=a_signed, b_signed=b_signed)
    return integerise(small(lut), SHAPE, SCALE)


NETWORKS = {
    "residual": residual(),
    "signed": padded(True, True),
    "mixed_signs": padded(False, True),
    "unsigned": padded(False, False),
}


def images(network: IntegerNetwork, count: int = 33) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, *network.input_shape)
    return torch.randint(0, 17, shape, generator=generator).to(torch.uint8)


def values(model: onnx.ModelProto, names: list[str], pixels: Tensor) -> dict[str, np.ndarray]:
    """What stock onnxruntime gives for values of the graph."""
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results = session.run(names, {"image": pixels.numpy().astype(np.float32)})
    return dict(zip(names, results, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_node_is_bit_identical_with_wide_rescalings(name: str) -> None:
    network = NETWORKS[name]
    assert largest_sum(network) < FP32_EXACT
    pixels, names = images(network), [node.name for node in network.nodes]
    model = qonnx_model(network, ModelMetadata(), wide=True)
    found, expected = values(model, [*names, "logits"], pixels), network.trace(pixels)
    for node in names:
        assert found[node].dtype == np.float32
        assert np.array_equal(found[node], expected[node].numpy()), node
    assert np.array_equal(found["logits"], network(pixels).numpy())
    assert len(np.unique(found["logits"])) > 20


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_rescalings_round_few_values_to_a_neighbour(name: str) -> None:
    """Each rescaling alone, from exact inputs: off by one level at most, and seldom."""
    network = NETWORKS[name]
    pixels = images(network, 200)
    expected = network.trace(pixels)
    model = qonnx_model(network, ModelMetadata())
    different = total = 0
    for node in network.nodes:
        if isinstance(node, Requantise):
            found = alone(model, node, expected[node.inputs[0]])
            error = np.abs(found - expected[node.name].numpy())
            assert error.max() <= 1, node.name
            different, total = different + int(error.sum()), total + error.size
    assert different <= total * 1e-3
    logits = values(model, ["logits"], pixels)["logits"]
    assert np.abs(logits - network(pixels).numpy()).max() <= 16 * 2.0**-FRACTION_BITS


def alone(model: onnx.ModelProto, node: Requantise, operand: Tensor) -> np.ndarray:
    """The part of the graph that stands for one rescaling, run on exact inputs."""
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    names = {output for each in model.graph.node for output in each.output}
    nodes = [each for each in extractor.graph.node if each.output[0].startswith(node.name)]
    nodes = [each for each in nodes if each.output[0] in steps(node.name) & names]
    inputs = [onnx.helper.make_tensor_value_info(node.inputs[0], 1, None)]
    outputs = [onnx.helper.make_tensor_value_info(node.name, 1, None)]
    graph = onnx.helper.make_graph(
        nodes, "part", inputs, outputs, initializer=list(model.graph.initializer)
    )
    part = onnx.helper.make_model(
        graph,
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        functions=model.functions,
    )
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: np.ndarray = session.run(None, {node.inputs[0]: operand.numpy().astype(np.float32)})[0]
    return result


def steps(name: str) -> set[str]:
    return {name, *(f"{name}.{step}" for step in ("product", "biased", "rectified", "clipped"))}


def test_approximate_tables_change_annotations_alone() -> None:
    """The twin is about structure: its arithmetic knows no table."""
    exact, other = residual(), residual(truncated(7))
    model = qonnx_model(other, ModelMetadata("twin", {"stem": 123}, {"key": "value"}))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    named = {node.name: {p.key: p.value for p in node.metadata_props} for node in convolutions}
    assert [node.name for node in other.convolutions] == [n for n, p in named.items() if p]
    for node in other.convolutions:
        assert named[node.name]["layer"] == node.layer
        assert named[node.name]["multiplier"] == node.lut.name
        assert named[node.name]["lut_sha256"] == node.lut.digest != exact.luts[0].digest
        assert named[node.name]["macs"] == str(node.macs)
        assert named[node.name]["energy_aj"] == ("123" if node.layer == "stem" else "0")
    allowed = {"kernel_shape", "strides", "pads", "dilations", "group"}
    assert all({a.name for a in node.attribute} <= allowed for node in convolutions)
    assert "exact products" in model.doc_string
    assert [(p.key, p.value) for p in model.metadata_props] == [("key", "value")]


def test_dialect() -> None:
    network = NETWORKS["residual"]
    model = qonnx_model(network, ModelMetadata())
    quantisers = [node for node in model.graph.node if node.op_type == "Quant"]
    assert {node.domain for node in quantisers} == {"qonnx.custom_op.general"}
    for node in quantisers:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert set(attributes) == {"signed", "narrow", "rounding_mode"}
        assert attributes["rounding_mode"] == b"ROUND"
    assert {node.domain for node in model.graph.node} == {"", "qonnx.custom_op.general"}
    kinds = types(model)
    assert kinds["image"] == "UINT8"
    for node in network.convolutions:
        assert kinds[node.name] == "INT32" and kinds[f"{node.layer}.weight"] == "INT8"
        assert kinds[node.inputs[0]] in ("INT8", "UINT7")


def test_types_hold_the_values() -> None:
    for network in NETWORKS.values():
        trace, model = network.trace(images(network)), qonnx_model(network, ModelMetadata())
        for name, kind in types(model).items():
            if name in trace:
                bits, signed = int(kind.lstrip("UINT")), kind[0] != "U"
                assert int(trace[name].min()) >= (-(1 << (bits - 1)) if signed else 0), name
                assert int(trace[name].max()) < 1 << (bits - signed), name


def types(model: onnx.ModelProto) -> dict[str, str]:
    annotations = model.graph.quantization_annotation
    for annotation in annotations:
        assert [p.key for p in annotation.quant_parameter_tensor_names] == ["finn_datatype"]
    return {a.tensor_name: a.quant_parameter_tensor_names[0].value for a in annotations}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-128, 127, ["Quant"]),
        (-127, 127, ["Quant"]),
        (0, 127, ["Relu", "Quant"]),
        (0, 255, ["Relu", "Quant"]),
        (0, 200, ["Clip", "Quant"]),
        (17, 127, ["Clip", "Quant"]),
        (-100, 127, ["Clip", "Quant"]),
        (-32768, 32767, ["Quant"]),
        (-(1 << 23), (1 << 23) - 1, ["Quant"]),
    ],
)
def test_limits_of_a_rescaling(low: int, high: int, expected: list[str]) -> None:
    """Every whole number near the limits, and halves: floor, then clamp."""
    multiplier, offset = torch.tensor([3]), torch.tensor([1])
    rescaled = Requantise("r", ("image",), multiplier, offset, 1, low, high)
    scale = torch.tensor([1 << 8])
    stretched = Requantise("s", ("image",), scale, torch.tensor([-(1 << 15)]), 0, -32768, 32767)
    last = Requantise("t", ("s",), multiplier, offset, 1, low, high)
    network = IntegerNetwork("image", (1, 16, 16), (rescaled, stretched, last))
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    model, trace = qonnx_model(network, ModelMetadata()), network.trace(pixels)
    kinds = [n.op_type for n in model.graph.node if n.output[0] in steps("r")]
    assert kinds == ["Mul", "Add", *expected]
    for name, found in values(model, ["r", "t"], pixels).items():
        assert np.array_equal(found, trace[name].numpy())


def test_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_qonnx(NETWORKS["signed"], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_largest_sum_sees_every_sum() -> None:
    weight = torch.full((1, 600, 3, 3), 255, dtype=torch.uint8)
    geometry = ConvGeometry.of()
    convolution = Convolution("c", ("image",), "c", weight, LUT.exact(), geometry, (1, 1))
    network = IntegerNetwork("image", (600, 3, 3), (convolution,))
    assert largest_sum(network) >= 600 * 9 * 255 * 255 > FP32_EXACT


@dataclass(frozen=True, eq=False)
class Unknown(Node):
    def evaluate(self, *operands: Tensor) -> Tensor:
        return operands[0]


def test_a_node_without_a_form_is_refused() -> None:
    network = IntegerNetwork("image", (1, 4, 4), (Unknown("odd", ("image",)),))
    assert [node.name for node in nodes_without_form(network)] == ["odd"]
    assert not nodes_without_form(NETWORKS["residual"])
    with pytest.raises(InputError, match="node 'odd' must be one that QONNX has a form for, not"):
        qonnx_model(network, ModelMetadata())


@pytest.mark.skipif(
    importlib.util.find_spec("qonnx") is None, reason="qonnx is missing: pip install qonnx"
)
@pytest.mark.parametrize("wide", [True, False])
def test_qonnx_executes_it(tmp_path: Path, wide: bool) -> None:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes

    network = NETWORKS["residual"]
    onnx.save(qonnx_model(network, ModelMetadata(), wide=wide), tmp_path / "model.qonnx.onnx")
    model = ModelWrapper(str(tmp_path / "model.qonnx.onnx"))
    model.set_tensor_shape("image", [1, *network.input_shape])
    model.set_tensor_shape("logits", [1, 5])
    model = model.transform(InferShapes()).transform(InferDataTypes())
    assert model.get_tensor_datatype("stem.levels").name == "INT8"
    pixels = images(network, 8)
    for image, expected in zip(pixels, network(pixels), strict=True):
        operand = image[None].numpy().astype(np.float32)
        logits = execute_onnx(model, {"image": operand})["logits"]
        assert np.abs(logits - expected.numpy()).max() <= (0 if wide else 16 * 2.0**-9)


def test_pixels_of_the_tests_are_those_of_the_network() -> None:
    assert pixels(3).shape[1:] == NETWORKS["residual"].input_shape
    assert isinstance(small(SIGNED), nn.Module)
