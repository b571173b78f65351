"""Layers of an integer network as nodes of an ONNX model, with their annotations."""

from typing import Any

import numpy as np
from onnx import TensorProto

from lut import LUT

from .integer import Convolution, Layer, Linear, MatrixProduct
from .onnx_bodies import ProductBody, product_body
from .onnx_functions import PLANE_GROUPS
from .onnx_writer import Writer
from .products import WithoutZeroPoints

__all__ = ["convolution", "linear", "matrix_product", "without_zero_points"]


def convolution(writer: Writer, node: Convolution) -> int:
    body = product_body(node)
    zero_point = np.array(node.zero_point, np.int8 if node.lut.a_signed else np.uint8)
    inputs = [
        node.inputs[0],
        writer.constant(f"{node.name}.weight", node.weight.numpy()),
        writer.constant(f"zero_point.{zero_point.dtype}.{zero_point}", zero_point),
        *_factors(writer, node.lut, body),
    ]
    attributes = {**_geometry(node), **_annotations(writer, node)}
    if node.geometry.groups > 1:
        attributes[PLANE_GROUPS] = node.geometry.groups * body.v.shape[1]
    writer.call(body.op_type, inputs, node.name, **attributes)
    return TensorProto.INT32


def linear(writer: Writer, node: Linear) -> int:
    weight = writer.constant(f"{node.name}.weight", node.weight.numpy())
    return _product(writer, node, [node.inputs[0], weight])


def matrix_product(writer: Writer, node: MatrixProduct) -> int:
    return _product(writer, node, list(node.inputs))


def _product(writer: Writer, node: Linear | MatrixProduct, operands: list[str]) -> int:
    body = product_body(node)
    inputs = [*operands, *_factors(writer, node.lut, body)]
    writer.call(body.op_type, inputs, node.name, **_annotations(writer, node))
    return TensorProto.INT32


def without_zero_points(writer: Writer, node: WithoutZeroPoints) -> int:
    """Terms that are zero are not written."""
    accumulators, a, b = node.inputs
    value = accumulators
    for operand, axis, factor in ((b, -2, node.zero_point), (a, -1, node.second_zero_point)):
        if factor:
            name = f"{node.name}.{'rows' if axis == -1 else 'columns'}"
            writer.node("Cast", [operand], f"{name}.integers", to=TensorProto.INT32)
            writer.node("ReduceSum", [f"{name}.integers", writer.indices(axis)], f"{name}.sum")
            writer.node("Mul", [f"{name}.sum", _int32(writer, factor)], f"{name}.term")
            writer.node("Sub", [value, f"{name}.term"], f"{name}.rest")
            value = f"{name}.rest"
    both = node.terms * node.zero_point * node.second_zero_point
    writer.node("Add", [value, _int32(writer, both)], node.name)
    return TensorProto.INT32


def _int32(writer: Writer, value: int) -> str:
    return writer.constant(f"int32.{value}", np.int32(value))


def _factors(writer: Writer, lut: LUT, body: ProductBody) -> list[str]:
    suffix = f".{body.base}" if len(body.parts) > 1 else ""
    names = [
        writer.constant(f"{lut.name}.u{index or ''}{suffix}", part.astype(np.float32))
        for index, part in enumerate(body.parts)
    ]
    names.append(writer.constant(f"{lut.name}.v", body.v.astype(np.float32)))
    if len(body.parts) > 1:
        names.append(writer.constant(f"base.{body.base}", np.int32(body.base)))
    return names


def _annotations(writer: Writer, node: Layer) -> dict[str, Any]:
    lut = node.lut
    return {
        "layer": node.layer,
        "multiplier": lut.name,
        "lut_sha256": lut.digest,
        "a_bits": lut.a_width,
        "b_bits": lut.b_width,
        "a_signed": int(lut.a_signed),
        "b_signed": int(lut.b_signed),
        "acc_bits": 32,
        "macs": node.macs,
        "energy_aj": int(writer.metadata.energy_aj.get(node.layer, 0)),
    }


def _geometry(node: Convolution) -> dict[str, Any]:
    (top, left), geometry = node.geometry.padding, node.geometry
    return {
        "strides": list(geometry.stride),
        "pads": [top, left, top, left],
        "dilations": list(geometry.dilation),
        "group": geometry.groups,
    }
