"""``Quant`` of the QONNX dialect as an ONNX function, so that a stock runtime executes it.

``Quant(x, scale, zeropt, bitwidth) -> y``: ``(round(clamp(x / scale + zeropt, min, max)) - zeropt)
· scale``, min and max being those of `bitwidth` bits, signed and narrow as the attributes say
(definition: fastmachinelearning/qonnx, docs/qonnx-custom-ops/intquant_op.md; ``IntQuant`` is the
newer name of the same, which FINN's and QONNX's own transformations look for less). A function
cannot choose by the attribute `rounding_mode`: this one is right for ROUND, which is the only mode
we write. Readers of the dialect do not use it, they have a Quant of their own.
"""

from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

__all__ = ["OPSET", "QONNX_DOMAIN", "int_quant"]

QONNX_DOMAIN = "qonnx.custom_op.general"
OPSET = 21


def int_quant() -> FunctionProto:
    """The function; x in any float type, the other inputs float32."""
    return helper.make_function(
        QONNX_DOMAIN,
        "Quant",
        ["x", "scale", "zeropt", "bitwidth"],
        ["y"],
        [*_limits(), *_quantised()],
        [helper.make_opsetid("", OPSET)],
        ["signed", "narrow", "rounding_mode"],
    )


def _limits() -> list[NodeProto]:
    """min = signed · (narrow - 2^(bits - 1)).

    max = 2^(bits - signed) - 1 - narrow · (1 - signed).
    """
    return [
        _attribute("signed", "s"),
        _attribute("narrow", "n"),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Cast", ["s"], ["is_signed"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["n"], ["is_narrow"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["bitwidth", "one"], ["less_one"]),
        helper.make_node("Pow", ["two", "less_one"], ["half"]),
        helper.make_node("Sub", ["is_narrow", "half"], ["negative"]),
        helper.make_node("Mul", ["is_signed", "negative"], ["low"]),
        helper.make_node("Sub", ["bitwidth", "is_signed"], ["magnitude_bits"]),
        helper.make_node("Pow", ["two", "magnitude_bits"], ["patterns"]),
        helper.make_node("Sub", ["one", "is_signed"], ["is_unsigned"]),
        helper.make_node("Mul", ["is_narrow", "is_unsigned"], ["left_out"]),
        helper.make_node("Sub", ["patterns", "one"], ["largest"]),
        helper.make_node("Sub", ["largest", "left_out"], ["high"]),
    ]


def _quantised() -> list[NodeProto]:
    casts = [
        helper.make_node("CastLike", [name, "x"], [f"{name}_x"])
        for name in ("scale", "zeropt", "low", "high")
    ]
    return [
        *casts,
        helper.make_node("Div", ["x", "scale_x"], ["divided"]),
        helper.make_node("Add", ["divided", "zeropt_x"], ["moved"]),
        helper.make_node("Max", ["moved", "low_x"], ["not_below"]),
        helper.make_node("Min", ["not_below", "high_x"], ["clamped"]),
        helper.make_node("Round", ["clamped"], ["level"]),
        helper.make_node("Sub", ["level", "zeropt_x"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale_x"], ["y"]),
    ]


def _attribute(name: str, result: str) -> NodeProto:
    node = helper.make_node("Constant", [], [result])
    node.attribute.append(
        AttributeProto(name="value_int", type=AttributeProto.INT, ref_attr_name=name)
    )
    return node
