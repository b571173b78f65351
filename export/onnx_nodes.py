"""Operations beside the products of an integer network as nodes of an ONNX model.

Each function writes its node and says the element type of the result.
"""

import hashlib
from typing import Any

import numpy as np
from onnx import TensorProto

from . import tokens
from .integer import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    Crop,
    GlobalSum,
    MaxPool,
    Requantise,
)
from .onnx_writer import Writer, float64

__all__ = [
    "add",
    "average_pool",
    "broadcast",
    "clamp",
    "concatenate",
    "constant",
    "crop",
    "global_sum",
    "layer_normalise",
    "lookup",
    "max_pool",
    "pad",
    "requantise",
    "reshape",
    "slice_",
    "softmax",
    "sum_",
    "transpose",
]


def requantise(writer: Writer, node: Requantise) -> int:
    kind = _operand_kind(writer, node)
    inputs = [
        node.inputs[0],
        writer.constant(f"{node.name}.multiplier", float64(node.multiplier).reshape(node.shape)),
        writer.constant(f"{node.name}.offset", float64(node.offset).reshape(node.shape)),
        writer.constant(f"scale.{node.shift}", np.float64(2.0**-node.shift)),
        writer.constant(f"limit.{node.low}", np.float64(node.low)),
        writer.constant(f"limit.{node.high}", np.float64(node.high)),
    ]
    writer.call("Requantize", inputs, node.name, to=kind, shift=node.shift)
    return kind


def _operand_kind(writer: Writer, node: Requantise) -> int:
    """int8 or uint8 where a layer reads the result, float32 where it is a state."""
    for reader in writer.network.layers:
        if node.name in reader.inputs:
            first = reader.inputs[0] == node.name
            signed = reader.lut.a_signed if first else reader.lut.b_signed
            return TensorProto.INT8 if signed else TensorProto.UINT8
    return TensorProto.FLOAT


def clamp(writer: Writer, node: Clamp) -> int:
    return _clipped(writer, node.inputs[0], node)


def add(writer: Writer, node: Add) -> int:
    writer.node("Add", node.inputs, f"{node.name}.sum")
    return _clipped(writer, f"{node.name}.sum", node)


def _clipped(writer: Writer, value: str, node: Add | Clamp) -> int:
    limits = [
        writer.constant(f"state_limit.{limit}", np.float32(limit))
        for limit in (node.low, node.high)
    ]
    writer.node("Clip", [value, *limits], node.name)
    return TensorProto.FLOAT


def max_pool(writer: Writer, node: MaxPool) -> int:
    writer.node("MaxPool", node.inputs, node.name, **_window(node))
    return TensorProto.FLOAT


def average_pool(writer: Writer, node: AveragePool) -> int:
    """Windows summed by a depthwise convolution with ones: integers exact in fp32."""
    channels = _channels(writer, node.inputs[0])
    ones = np.ones((channels, 1, node.kernel, node.kernel), np.float32)
    kernel = writer.constant(f"ones.{channels}.{node.kernel}", ones)
    name, inputs = node.name, [node.inputs[0], kernel]
    writer.node("Conv", inputs, f"{name}.sum", **_window(node), group=channels)
    writer.node("Cast", [f"{name}.sum"], f"{name}.wide", to=TensorProto.DOUBLE)
    multiplier = writer.constant(f"{name}.multiplier", float64(node.multiplier))
    writer.node("Mul", [f"{name}.wide", multiplier], f"{name}.product")
    offset = writer.constant(f"{name}.offset", np.float64(node.offset))
    writer.node("Add", [f"{name}.product", offset], f"{name}.biased")
    scale = writer.constant(f"scale.{node.shift}", np.float64(2.0**-node.shift))
    writer.node("Mul", [f"{name}.biased", scale], f"{name}.scaled")
    writer.node("Floor", [f"{name}.scaled"], f"{name}.rounded")
    writer.node("Cast", [f"{name}.rounded"], name, to=TensorProto.FLOAT)
    return TensorProto.FLOAT


def _channels(writer: Writer, name: str) -> int:
    """Channels of a value (N, C, H, W), found from the node that made it."""
    if name == writer.network.input_name:
        return writer.network.input_shape[0]
    node = next(node for node in writer.network.nodes if node.name == name)
    if isinstance(node, Convolution):
        return len(node.weight)
    if isinstance(node, Concatenate):
        return sum(_channels(writer, part) for part in node.inputs)
    if isinstance(node, tokens.Reshape):
        return node.shape[1]
    if isinstance(node, tokens.Pad):
        return _channels(writer, node.inputs[0]) + sum(node.amounts[1])
    return _channels(writer, node.inputs[0])


def global_sum(writer: Writer, node: GlobalSum) -> int:
    return _summed(writer, node, (2, 3), keep=True)


def sum_(writer: Writer, node: tokens.Sum) -> int:
    return _summed(writer, node, node.axes, keep=node.keep)


def _summed(writer: Writer, node: GlobalSum | tokens.Sum, axes: tuple[int, ...], keep: bool) -> int:
    writer.node("Cast", node.inputs, f"{node.name}.integers", to=TensorProto.INT32)
    inputs = [f"{node.name}.integers", writer.indices(*axes)]
    writer.node("ReduceSum", inputs, node.name, keepdims=int(keep))
    return TensorProto.INT32


def concatenate(writer: Writer, node: Concatenate) -> int:
    writer.node("Concat", node.inputs, node.name, axis=node.axis)
    return TensorProto.FLOAT


def crop(writer: Writer, node: Crop) -> int:
    end = np.iinfo(np.int64).max
    ends = writer.constant("ends", np.array([end, end], np.int64))
    starts = writer.indices(node.top, node.left)
    inputs = [node.inputs[0], starts, ends, writer.indices(2, 3)]
    writer.node("Slice", inputs, node.name)
    return writer.kinds[node.inputs[0]]


def slice_(writer: Writer, node: tokens.Slice) -> int:
    numbers = (node.start, node.stop, node.axis, node.step)
    writer.node("Slice", [node.inputs[0], *map(writer.indices, numbers)], node.name)
    return writer.kinds[node.inputs[0]]


def pad(writer: Writer, node: tokens.Pad) -> int:
    before, after = zip(*node.amounts, strict=True)
    writer.node("Pad", [node.inputs[0], writer.indices(*before, *after)], node.name)
    return writer.kinds[node.inputs[0]]


def reshape(writer: Writer, node: tokens.Reshape) -> int:
    writer.node("Reshape", [node.inputs[0], writer.indices(*node.shape)], node.name)
    return writer.kinds[node.inputs[0]]


def transpose(writer: Writer, node: tokens.Transpose) -> int:
    writer.node("Transpose", node.inputs, node.name, perm=list(node.axes))
    return writer.kinds[node.inputs[0]]


def constant(writer: Writer, node: tokens.Constant) -> int:
    writer.constant(node.name, node.value.numpy().astype(np.float32))
    return TensorProto.FLOAT


def broadcast(writer: Writer, node: tokens.Broadcast) -> int:
    value, images = node.inputs
    rank = writer.initialisers[value].dims
    writer.node("Shape", [images], f"{node.name}.count", start=0, end=1)
    ones = writer.indices(*(1,) * (len(rank) - 1))
    writer.node("Concat", [f"{node.name}.count", ones], f"{node.name}.shape", axis=0)
    writer.node("Expand", [value, f"{node.name}.shape"], node.name)
    return TensorProto.FLOAT


def layer_normalise(writer: Writer, node: tokens.LayerNormalise) -> int:
    numerator = 2.0 ** (node.extra_bits + tokens.NORMALISED_BITS + 1)
    numbers = (node.size, 4.0**node.extra_bits, node.epsilon, numerator)
    inputs = [node.inputs[0], *(writer.double(float(number)) for number in numbers)]
    writer.call("IntegerLayerNormalization", inputs, node.name)
    return TensorProto.FLOAT


def softmax(writer: Writer, node: tokens.Softmax) -> int:
    table = writer.constant("exponential", float64(node.table))
    numerator = writer.double(2.0 ** (tokens.PROBABILITY_BITS + 1))
    writer.call("IntegerSoftmax", [node.inputs[0], table, numerator], node.name)
    return TensorProto.FLOAT


def lookup(writer: Writer, node: tokens.Lookup) -> int:
    states = node.table.numpy().astype(np.int16)
    digest = hashlib.sha256(states.astype("<i2").tobytes()).hexdigest()
    table = writer.constant(f"{node.function}.{digest[:16]}", states)
    writer.call("IntegerLookup", [node.inputs[0], table], node.name)
    return TensorProto.FLOAT


def _window(node: MaxPool | AveragePool) -> dict[str, Any]:
    return {
        "kernel_shape": [node.kernel] * 2,
        "strides": [node.stride] * 2,
        "pads": [node.padding] * 4,
    }
