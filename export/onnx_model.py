"""An integer network as an ONNX model that stock onnxruntime runs bit for bit.

Values between nodes are integers carried in float32 (states, below 2**24), int8 or uint8 (operands)
or int32 (accumulators, sums); float64 appears inside functions and average pools only. Nothing
rounds.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import FunctionProto, ModelProto, TensorProto, helper
from torch import nn

from hw.errors import InputError
from hw.files import write_bytes

from . import integer, onnx_nodes, onnx_products, products, tokens
from .integer import FRACTION_BITS, IntegerNetwork, Node
from .integerise import integerise
from .onnx_functions import DOMAIN, OPSET, product_functions
from .onnx_number_functions import number_functions
from .onnx_writer import ModelMetadata, Writer

__all__ = ["ModelMetadata", "onnx_model", "write_onnx"]

IR_VERSION = 10


def write_onnx(
    network: IntegerNetwork | nn.Module,
    path: Path,
    metadata: ModelMetadata | None = None,
    *,
    input_shape: tuple[int, int, int] | None = None,
    pixel_scale: float | None = None,
) -> IntegerNetwork:
    """Write `network` to `path`, atomically; the same network gives the same bytes.

    A module made of emulated layers (``lut.approximate``, calibrated) is made an integer network
    first, as :func:`integerise` does with `input_shape` (C, H, W) and `pixel_scale`. Returns what
    was written: torch evaluates it to the same bits.
    """
    if not isinstance(network, IntegerNetwork):
        if input_shape is None or pixel_scale is None:
            raise InputError("a module must be written with input_shape and pixel_scale, not alone")
        network = integerise(network, input_shape, pixel_scale)
    elif input_shape is not None or pixel_scale is not None:
        raise InputError("input_shape and pixel_scale must be left to an integer network itself")
    model = onnx_model(network, metadata or ModelMetadata())
    write_bytes(path, model.SerializeToString(deterministic=True))
    return network


def onnx_model(network: IntegerNetwork, metadata: ModelMetadata) -> ModelProto:
    """The checked model: input uint8 (N, C, H, W), output float32 (N, classes)."""
    writer = Writer(network, metadata)
    for node in network.nodes:
        writer.kinds[node.name] = _WRITERS[type(node)](writer, node)
    _write_logits(writer)
    graph = helper.make_graph(
        writer.nodes,
        metadata.name,
        [_input(network)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", _classes(network)])],
        list(writer.initialisers.values()),
    )
    model = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        functions=_functions(writer),
        producer_name="cosearch",
    )
    helper.set_model_props(model, dict(metadata.properties))
    onnx.checker.check_model(model)
    return model


def _functions(writer: Writer) -> list[FunctionProto]:
    """Those that nodes call, in a fixed order."""
    called = {node.op_type for node in writer.nodes if node.domain == DOMAIN}
    known = product_functions() | number_functions()
    return [function for name, function in known.items() if name in called]


def _input(network: IntegerNetwork) -> onnx.ValueInfoProto:
    shape: list[str | int | None] = ["N", *network.input_shape]
    return helper.make_tensor_value_info(network.input_name, TensorProto.UINT8, shape)


def _classes(network: IntegerNetwork) -> int:
    """Logits of an image, counted."""
    return prod(network.shapes[network.nodes[-1].name])


def _write_logits(writer: Writer) -> None:
    last = writer.network.nodes[-1].name
    writer.node("Flatten", [last], "logits.flat", axis=1)
    scale = writer.constant("logits.scale", np.float32(2.0**-FRACTION_BITS))
    writer.node("Mul", ["logits.flat", scale], "logits")


_WRITERS: dict[type[Node], Callable[..., int]] = {
    integer.Requantise: onnx_nodes.requantise,
    integer.Convolution: onnx_products.convolution,
    integer.Clamp: onnx_nodes.clamp,
    integer.Add: onnx_nodes.add,
    integer.MaxPool: onnx_nodes.max_pool,
    integer.AveragePool: onnx_nodes.average_pool,
    integer.GlobalSum: onnx_nodes.global_sum,
    integer.Concatenate: onnx_nodes.concatenate,
    integer.Crop: onnx_nodes.crop,
    products.Linear: onnx_products.linear,
    products.MatrixProduct: onnx_products.matrix_product,
    products.WithoutZeroPoints: onnx_products.without_zero_points,
    tokens.LayerNormalise: onnx_nodes.layer_normalise,
    tokens.Softmax: onnx_nodes.softmax,
    tokens.Lookup: onnx_nodes.lookup,
    tokens.Sum: onnx_nodes.sum_,
    tokens.Reshape: onnx_nodes.reshape,
    tokens.Transpose: onnx_nodes.transpose,
    tokens.Slice: onnx_nodes.slice_,
    tokens.Pad: onnx_nodes.pad,
    tokens.Constant: onnx_nodes.constant,
    tokens.Broadcast: onnx_nodes.broadcast,
}
