"""The operators of the domain `ai.cosearch`, as ONNX model-local functions made of standard
operators.

``ApproxConvInteger(x, w, x_zero_point, u, v) -> int32``: like the standard ``ConvInteger`` (without
the subtraction of zero points), its products being ``sum_r u[x, r] · v[w, r]``: the multiplier's
table. ``ApproxConvIntegerSplit<n>(x, w, x_zero_point, u0, …, v, base) -> int32``: the same for ``u
= sum_i u_i · base**i`` in n convolutions, where one would not be exact in fp32. ``Requantize(x,
multiplier, offset, scale, low, high) -> to``: ``clamp(floor((x · multiplier + offset) · scale),
low, high)``, scale a power of two; integers in float64, exact below 2**53.

Rows of `u` and `v` are bit patterns; a negative int8 operand indexes from the end, which is its
pattern.
"""

from collections.abc import Iterable

from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

__all__ = ["ANNOTATIONS", "DOMAIN", "OPSET", "approx_conv_name", "functions"]

DOMAIN = "ai.cosearch"
OPSET = 21

CONVOLUTION = ("strides", "pads", "dilations", "group")
# What a hardware flow reads of a layer; no function body uses them.
ANNOTATIONS = (
    "layer",
    "multiplier",
    "lut_sha256",
    "a_bits",
    "b_bits",
    "a_signed",
    "b_signed",
    "acc_bits",
    "macs",
    "energy_aj",
)


def approx_conv_name(parts: int) -> str:
    """The operator that computes with `u` in so many parts."""
    return "ApproxConvInteger" if parts == 1 else f"ApproxConvIntegerSplit{parts}"


def functions(parts: Iterable[int]) -> list[FunctionProto]:
    """The functions that a model with convolutions of these numbers of parts calls, in a fixed
    order.
    """
    return [*(_approx_conv(count) for count in sorted(set(parts))), _requantize()]


def _approx_conv(parts: int) -> FunctionProto:
    factors = [f"u{index}" for index in range(parts)]
    sums = [f"y{index}" for index in range(parts)] if parts > 1 else ["y"]
    body = [*_padded_index(), *_weight_planes()]
    for factor, result in zip(factors, sums, strict=True):
        body += [*_planes(factor, f"{factor}_planes"), *_convolution(f"{factor}_planes", result)]
    for index in reversed(range(parts - 1)):
        above = sums[index + 1] if index == parts - 2 else f"total{index + 1}"
        total = f"total{index}" if index else "y"
        body.append(helper.make_node("Mul", [above, "base"], [f"weighted{index}"]))
        body.append(helper.make_node("Add", [sums[index], f"weighted{index}"], [total]))
    inputs = ["x", "w", "x_zero_point", *factors, "v", *(["base"] if parts > 1 else [])]
    return _function(approx_conv_name(parts), inputs, ["y"], body)


def _padded_index() -> list[NodeProto]:
    """`index`: int32 (N, C, H, W), `spatial`: its height and width."""
    raw_pads = helper.make_node("Constant", [], ["raw_pads"])
    raw_pads.attribute.append(_reference("value_ints", "pads"))
    return [
        raw_pads,
        # onnxruntime up to 1.24 rejects a Pad that takes the constant itself.
        helper.make_node("Identity", ["raw_pads"], ["pads"]),
        helper.make_node("Constant", [], ["spatial_axes"], value_ints=[2, 3]),
        helper.make_node("Pad", ["x", "pads", "x_zero_point", "spatial_axes"], ["padded"]),
        helper.make_node("Cast", ["padded"], ["index"], to=TensorProto.INT32),
        helper.make_node("Constant", [], ["merged"], value_ints=[0, -1]),
        helper.make_node("Shape", ["padded"], ["spatial"], start=2, end=4),
        helper.make_node("Concat", ["merged", "spatial"], ["plane_shape"], axis=0),
    ]


def _planes(factor: str, result: str) -> list[NodeProto]:
    """`result`: float32 (N, C·R, H, W) = factor[index]."""
    return [
        helper.make_node("Gather", [factor, "index"], [f"{result}_last"]),
        helper.make_node(
            "Transpose", [f"{result}_last"], [f"{result}_split"], perm=[0, 1, 4, 2, 3]
        ),
        helper.make_node("Reshape", [f"{result}_split", "plane_shape"], [result]),
    ]


def _weight_planes() -> list[NodeProto]:
    """`kernels`: float32 (O, C·R / group, kH, kW) = v[w]; constant in a model, so folded when
    loaded.
    """
    return [
        helper.make_node("Cast", ["w"], ["w_index"], to=TensorProto.INT32),
        helper.make_node("Gather", ["v", "w_index"], ["kernels_last"]),
        helper.make_node("Transpose", ["kernels_last"], ["kernels_split"], perm=[0, 1, 4, 2, 3]),
        helper.make_node("Shape", ["w"], ["kernel_size"], start=2, end=4),
        helper.make_node("Concat", ["merged", "kernel_size"], ["kernel_shape"], axis=0),
        helper.make_node("Reshape", ["kernels_split", "kernel_shape"], ["kernels"]),
    ]


def _convolution(planes: str, result: str) -> list[NodeProto]:
    node = helper.make_node("Conv", [planes, "kernels"], [f"{result}_exact"])
    node.attribute.extend(_reference(name, name) for name in ("strides", "dilations"))
    node.attribute.append(_reference("group", "group", integer=True))
    return [node, helper.make_node("Cast", [f"{result}_exact"], [result], to=TensorProto.INT32)]


def _requantize() -> FunctionProto:
    cast = helper.make_node("Cast", ["clipped"], ["y"])
    cast.attribute.append(_reference("to", "to", integer=True))
    body = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["wide", "multiplier"], ["product"]),
        helper.make_node("Add", ["product", "offset"], ["sum"]),
        helper.make_node("Mul", ["sum", "scale"], ["scaled"]),
        helper.make_node("Floor", ["scaled"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        cast,
    ]
    inputs = ["x", "multiplier", "offset", "scale", "low", "high"]
    return helper.make_function(
        DOMAIN, "Requantize", inputs, ["y"], body, [helper.make_opsetid("", OPSET)], ["to", "shift"]
    )


def _function(
    name: str, inputs: list[str], outputs: list[str], body: list[NodeProto]
) -> FunctionProto:
    return helper.make_function(
        DOMAIN,
        name,
        inputs,
        outputs,
        body,
        [helper.make_opsetid("", OPSET)],
        [*CONVOLUTION, *ANNOTATIONS],
    )


def _reference(name: str, of: str, *, integer: bool = False) -> AttributeProto:
    """An attribute of a node in a body that takes its value from the function's attribute `of`."""
    kind = AttributeProto.INT if integer else AttributeProto.INTS
    return AttributeProto(name=name, type=kind, ref_attr_name=of)
