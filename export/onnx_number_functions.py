"""The operators of the domain `ai.cosearch` beside products, as functions of standard ones.

``Requantize(x, multiplier, offset, scale, low, high) -> to``: ``clamp(floor((x · multiplier +
offset) · scale), low, high)``, scale a power of two: :class:`export.integer.Requantise`. Computed
from `low` upwards, so that rounding towards zero is rounding down.
``IntegerLayerNormalization(x, size, scale, epsilon, numerator_scale) -> float32``,
``IntegerSoftmax(x, table, numerator_scale) -> float32`` and ``IntegerLookup(x, table) -> float32``
are :class:`export.tokens.LayerNormalise`, ``Softmax`` and ``Lookup``. All are integers (times a
power of two) in float64, exact below 2**53; a square root is corrected by comparing squares, a
quotient is rounded once and then down.
"""

from onnx import FunctionProto, NodeProto, TensorProto, helper

from .onnx_functions import cast, function, ints, operation, reference

__all__ = ["number_functions"]


def number_functions() -> dict[str, FunctionProto]:
    """By name."""
    made = (_requantize(), _layer_normalization(), _softmax(), _lookup())
    return {function.name: function for function in made}


def _requantize() -> FunctionProto:
    body = [
        operation("Mul", ["multiplier", "scale"], "gain"),
        operation("Mul", ["offset", "scale"], "shifted"),
        operation("Sub", ["shifted", "low"], "from_low"),
        operation("Sub", ["high", "low"], "span"),
        _number("zero", 0.0),
        cast("low", "lowest", TensorProto.INT32),
        cast("x", "wide", TensorProto.DOUBLE),
        operation("Mul", ["wide", "gain"], "product"),
        operation("Add", ["product", "from_low"], "sum"),
        operation("Clip", ["sum", "zero", "span"], "clipped"),
        cast("clipped", "rounded", TensorProto.INT32),
        operation("Add", ["rounded", "lowest"], "levels"),
        reference("Cast", ["levels"], "result", to="to"),
    ]
    inputs = ["x", "multiplier", "offset", "scale", "low", "high"]
    return function("Requantize", inputs, body, ["to", "shift"])


def _layer_normalization() -> FunctionProto:
    body = [
        ints("last_axis", [-1]),
        cast("x", "wide", TensorProto.DOUBLE),
        operation("ReduceSum", ["wide", "last_axis"], "total"),
        operation("Mul", ["wide", "wide"], "square"),
        operation("ReduceSum", ["square", "last_axis"], "squares"),
        operation("Mul", ["squares", "size"], "scaled_squares"),
        operation("Mul", ["total", "total"], "total_square"),
        operation("Sub", ["scaled_squares", "total_square"], "spread"),
        operation("Mul", ["spread", "scale"], "scaled_spread"),
        operation("Add", ["scaled_spread", "epsilon"], "radicand"),
        *_square_root("radicand", "root"),
        operation("Mul", ["wide", "size"], "scaled"),
        operation("Sub", ["scaled", "total"], "centred"),
        operation("Mul", ["centred", "numerator_scale"], "numerator"),
        *_rounded_quotient("numerator", "root", "result"),
    ]
    inputs = ["x", "size", "scale", "epsilon", "numerator_scale"]
    return function("IntegerLayerNormalization", inputs, body)


def _softmax() -> FunctionProto:
    body = [
        ints("last_axis", [-1]),
        operation("ReduceMax", ["x", "last_axis"], "largest"),
        operation("Sub", ["largest", "x"], "difference"),
        cast("difference", "unlimited", TensorProto.INT32),
        operation("Shape", ["table"], "length"),
        ints("one", [1]),
        operation("Sub", ["length", "one"], "last_row"),
        cast("last_row", "last_index", TensorProto.INT32),
        operation("Min", ["unlimited", "last_index"], "index"),
        operation("Gather", ["table", "index"], "powers"),
        operation("ReduceSum", ["powers", "last_axis"], "total"),
        operation("Mul", ["powers", "numerator_scale"], "numerator"),
        *_rounded_quotient("numerator", "total", "result"),
    ]
    return function("IntegerSoftmax", ["x", "table", "numerator_scale"], body)


def _lookup() -> FunctionProto:
    """A negative state indexes from the end, which is its bit pattern."""
    body = [
        cast("x", "index", TensorProto.INT32),
        operation("Gather", ["table", "index"], "states"),
        cast("states", "result", TensorProto.FLOAT),
    ]
    return function("IntegerLookup", ["x", "table"], body)


def _square_root(x: str, root: str) -> list[NodeProto]:
    """`root`: floor(sqrt(x)), exact for integers below 2**53."""
    return [
        operation("Sqrt", [x], "float_root"),
        operation("Floor", ["float_root"], "near"),
        operation("Mul", ["near", "near"], "near_square"),
        operation("Greater", ["near_square", x], "too_large"),
        cast("too_large", "excess", TensorProto.DOUBLE),
        operation("Sub", ["near", "excess"], "lower"),
        _number("unit", 1.0),
        operation("Add", ["lower", "unit"], "next"),
        operation("Mul", ["next", "next"], "next_square"),
        operation("LessOrEqual", ["next_square", x], "reached"),
        cast("reached", "missing", TensorProto.DOUBLE),
        operation("Add", ["lower", "missing"], root),
    ]


def _rounded_quotient(numerator: str, denominator: str, result: str) -> list[NodeProto]:
    """`result`: float32 floor((numerator + d) / (2 · d)); the numerator is doubled already."""
    return [
        operation("Add", [numerator, denominator], "rounding"),
        operation("Add", [denominator, denominator], "doubled"),
        operation("Div", ["rounding", "doubled"], "quotient"),
        operation("Floor", ["quotient"], "rounded"),
        cast("rounded", result, TensorProto.FLOAT),
    ]


def _number(name: str, value: float) -> NodeProto:
    """A constant float64."""
    tensor = helper.make_tensor(name, TensorProto.DOUBLE, [], [value])
    return operation("Constant", [], name, value=tensor)
