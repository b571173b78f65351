"""The operators of the domain `ai.cosearch` that transformers need, as functions of standard ones.

``IntegerLayerNormalization(x, size, scale, epsilon, numerator_scale) -> float32``,
``IntegerSoftmax(x, table, numerator_scale) -> float32`` and ``IntegerLookup(x, table) -> float32``
are :class:`export.tokens.LayerNormalise`, ``Softmax`` and ``Lookup``: integers in float64, exact
below 2**53; a square root is corrected by comparing squares, a quotient is rounded once and then
down.
"""

from onnx import FunctionProto, NodeProto, TensorProto, helper

from .onnx_functions import DOMAIN, OPSET

__all__ = ["token_functions"]


def token_functions() -> dict[str, FunctionProto]:
    """By name."""
    made = (_layer_normalization(), _softmax(), _lookup())
    return {function.name: function for function in made}


def _layer_normalization() -> FunctionProto:
    body = [
        _last_axis(),
        _cast("x", "wide", TensorProto.DOUBLE),
        _node("ReduceSum", ["wide", "last_axis"], "total"),
        _node("Mul", ["wide", "wide"], "square"),
        _node("ReduceSum", ["square", "last_axis"], "squares"),
        _node("Mul", ["squares", "size"], "scaled_squares"),
        _node("Mul", ["total", "total"], "total_square"),
        _node("Sub", ["scaled_squares", "total_square"], "spread"),
        _node("Mul", ["spread", "scale"], "scaled_spread"),
        _node("Add", ["scaled_spread", "epsilon"], "radicand"),
        *_square_root("radicand", "root"),
        _node("Mul", ["wide", "size"], "scaled"),
        _node("Sub", ["scaled", "total"], "centred"),
        _node("Mul", ["centred", "numerator_scale"], "numerator"),
        *_rounded_quotient("numerator", "root", "y"),
    ]
    inputs = ["x", "size", "scale", "epsilon", "numerator_scale"]
    return _function("IntegerLayerNormalization", inputs, body)


def _softmax() -> FunctionProto:
    body = [
        _last_axis(),
        _node("ReduceMax", ["x", "last_axis"], "largest"),
        _node("Sub", ["largest", "x"], "difference"),
        _cast("difference", "unlimited", TensorProto.INT32),
        _node("Shape", ["table"], "length"),
        helper.make_node("Constant", [], ["one"], value_ints=[1]),
        _node("Sub", ["length", "one"], "last_row"),
        _cast("last_row", "last_index", TensorProto.INT32),
        _node("Min", ["unlimited", "last_index"], "index"),
        _node("Gather", ["table", "index"], "powers"),
        _node("ReduceSum", ["powers", "last_axis"], "total"),
        _node("Mul", ["powers", "numerator_scale"], "numerator"),
        *_rounded_quotient("numerator", "total", "y"),
    ]
    return _function("IntegerSoftmax", ["x", "table", "numerator_scale"], body)


def _lookup() -> FunctionProto:
    """A negative state indexes from the end, which is its bit pattern."""
    body = [
        _cast("x", "index", TensorProto.INT32),
        _node("Gather", ["table", "index"], "states"),
        _cast("states", "y", TensorProto.FLOAT),
    ]
    return _function("IntegerLookup", ["x", "table"], body)


def _square_root(x: str, root: str) -> list[NodeProto]:
    """`root`: floor(sqrt(x)), exact for integers below 2**53."""
    return [
        _node("Sqrt", [x], "float_root"),
        _node("Floor", ["float_root"], "near"),
        _node("Mul", ["near", "near"], "near_square"),
        _node("Greater", ["near_square", x], "too_large"),
        _cast("too_large", "excess", TensorProto.DOUBLE),
        _node("Sub", ["near", "excess"], "lower"),
        helper.make_node("Constant", [], ["unit"], value=helper.make_tensor("unit", 11, [], [1.0])),
        _node("Add", ["lower", "unit"], "next"),
        _node("Mul", ["next", "next"], "next_square"),
        _node("LessOrEqual", ["next_square", x], "reached"),
        _cast("reached", "missing", TensorProto.DOUBLE),
        _node("Add", ["lower", "missing"], root),
    ]


def _rounded_quotient(numerator: str, denominator: str, result: str) -> list[NodeProto]:
    """`result`: float32 floor((numerator + d) / (2 · d)); the numerator is doubled already."""
    return [
        _node("Add", [numerator, denominator], "rounding"),
        _node("Add", [denominator, denominator], "doubled"),
        _node("Div", ["rounding", "doubled"], "quotient"),
        _node("Floor", ["quotient"], "rounded"),
        _cast("rounded", result, TensorProto.FLOAT),
    ]


def _last_axis() -> NodeProto:
    return helper.make_node("Constant", [], ["last_axis"], value_ints=[-1])


def _node(op_type: str, inputs: list[str], output: str) -> NodeProto:
    return helper.make_node(op_type, inputs, [output])


def _cast(x: str, result: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [x], [result], to=kind)


def _function(name: str, inputs: list[str], body: list[NodeProto]) -> FunctionProto:
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, name, inputs, ["y"], body, opset, [])
