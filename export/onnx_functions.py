"""The operators of the domain `ai.cosearch`, as ONNX model-local functions made of standard
operators.

``ApproxConvInteger(x, w, x_zero_point, u, v) -> int32``: like the standard ``ConvInteger`` (without
the subtraction of zero points), its products being ``sum_r u[x, r] · v[w, r]``: the multiplier's
table. ``ApproxMatMulInteger(x, y, u, v) -> int32``: likewise the standard ``MatMulInteger``, for
y a weight or another activation. ``…Split<n>`` of both, with inputs ``u0, …, v, base``: the same
for ``u = sum_i u_i · base**i`` in n products, where one would not be exact in fp32. ``Requantize(x,
multiplier, offset, scale, low, high) -> to``: ``clamp(floor((x · multiplier + offset) · scale),
low, high)``, scale a power of two; integers in float64, exact below 2**53. Those of transformers
are in :mod:`export.onnx_token_functions`.

Rows of `u` and `v` are bit patterns; a negative int8 operand indexes from the end, which is its
pattern.
"""

from collections.abc import Sequence

from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

__all__ = [
    "ANNOTATIONS",
    "DOMAIN",
    "OPSET",
    "PRODUCTS",
    "approx_conv_name",
    "approx_matmul_name",
    "product_functions",
]

DOMAIN = "ai.cosearch"
OPSET = 21

CONVOLUTION = ("strides", "pads", "dilations", "group")
# Operators whose names begin so carry the annotations.
PRODUCTS = ("ApproxConvInteger", "ApproxMatMulInteger")
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


def approx_matmul_name(parts: int) -> str:
    """Likewise for matrix products."""
    return "ApproxMatMulInteger" if parts == 1 else f"ApproxMatMulIntegerSplit{parts}"


def product_functions() -> dict[str, FunctionProto]:
    """By name: the products in up to four parts, and ``Requantize``."""
    made = [make(parts) for make in (_approx_conv, _approx_matmul) for parts in range(1, 5)]
    return {function.name: function for function in (*made, _requantize())}


def _approx_conv(parts: int) -> FunctionProto:
    factors = [f"u{index}" for index in range(parts)]
    sums = [f"y{index}" for index in range(parts)] if parts > 1 else ["y"]
    body = [*_padded_index(), *_weight_planes()]
    for factor, result in zip(factors, sums, strict=True):
        body += [*_planes(factor, f"{factor}_planes"), *_convolution(f"{factor}_planes", result)]
    inputs = ["x", "w", "x_zero_point", *factors, "v", *(["base"] if parts > 1 else [])]
    attributes = [*CONVOLUTION, *ANNOTATIONS]
    return _function(approx_conv_name(parts), inputs, [*body, *_recombined(sums)], attributes)


def _approx_matmul(parts: int) -> FunctionProto:
    factors = [f"u{index}" for index in range(parts)]
    sums = [f"y{index}" for index in range(parts)] if parts > 1 else ["z"]
    body = [*_columns(), helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT32)]
    for factor, result in zip(factors, sums, strict=True):
        body += [*_rows(factor, f"{factor}_rows"), *_product(f"{factor}_rows", result)]
    inputs = ["x", "y", *factors, "v", *(["base"] if parts > 1 else [])]
    body += _recombined(sums, "z")
    return _function(approx_matmul_name(parts), inputs, body, ANNOTATIONS, "z")


def _recombined(sums: list[str], result: str = "y") -> list[NodeProto]:
    """`result`: sum_i sums[i] · base**i; a single sum is the result already."""
    body, above = [], sums[-1]
    for index in reversed(range(len(sums) - 1)):
        total = f"total{index}" if index else result
        body.append(helper.make_node("Mul", [above, "base"], [f"weighted{index}"]))
        body.append(helper.make_node("Add", [sums[index], f"weighted{index}"], [total]))
        above = total
    return body


def _rows(factor: str, result: str) -> list[NodeProto]:
    """`result`: float32 (…, M, K·R) = factor[index]."""
    return [
        helper.make_node("Gather", [factor, "index"], [f"{result}_last"]),
        helper.make_node("Shape", ["x"], [f"{result}_batch"], start=0, end=-1),
        helper.make_node("Concat", [f"{result}_batch", "rest"], [f"{result}_shape"], axis=0),
        helper.make_node("Reshape", [f"{result}_last", f"{result}_shape"], [result]),
    ]


def _columns() -> list[NodeProto]:
    """`columns`: float32 (…, K·R, N) = v[y], R before N; constant for a weight."""
    return [
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Cast", ["y"], ["y_index"], to=TensorProto.INT32),
        helper.make_node("Gather", ["v", "y_index"], ["columns_last"]),
        helper.make_node("Shape", ["y"], ["y_batch"], start=0, end=-2),
        helper.make_node("Shape", ["y"], ["y_matrix"], start=-2),
        helper.make_node("Shape", ["y"], ["y_outputs"], start=-1),
        helper.make_node("Shape", ["v"], ["rank"], start=1),
        helper.make_node("Concat", ["rest", "y_matrix", "rank"], ["merged_shape"], axis=0),
        helper.make_node("Reshape", ["columns_last", "merged_shape"], ["columns_merged"]),
        helper.make_node("Transpose", ["columns_merged"], ["columns_split"], perm=[0, 1, 3, 2]),
        helper.make_node("Concat", ["y_batch", "rest", "y_outputs"], ["columns_shape"], axis=0),
        helper.make_node("Reshape", ["columns_split", "columns_shape"], ["columns"]),
    ]


def _product(rows: str, result: str) -> list[NodeProto]:
    return [
        helper.make_node("MatMul", [rows, "columns"], [f"{result}_exact"]),
        helper.make_node("Cast", [f"{result}_exact"], [result], to=TensorProto.INT32),
    ]


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
    return _function("Requantize", inputs, body, ["to", "shift"])


def _function(
    name: str,
    inputs: list[str],
    body: list[NodeProto],
    attributes: Sequence[str],
    output: str = "y",
) -> FunctionProto:
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, name, inputs, [output], body, opset, list(attributes))


def _reference(name: str, of: str, *, integer: bool = False) -> AttributeProto:
    """An attribute of a node in a body that takes its value from the function's attribute `of`."""
    kind = AttributeProto.INT if integer else AttributeProto.INTS
    return AttributeProto(name=name, type=kind, ref_attr_name=of)
