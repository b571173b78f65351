"""The operators of the domain `ai.cosearch`, as ONNX model-local functions made of standard
operators.

``ApproxConvInteger(x, w, x_zero_point, u, v) -> int32``: like the standard ``ConvInteger`` (without
the subtraction of zero points), its products being ``sum_r u[x, r] · v[w, r]``: the multiplier's
table. ``ApproxConvIntegerGrouped``: the same for several groups. ``ApproxMatMulInteger(x, y, u, v)
-> int32``: likewise the standard ``MatMulInteger``, for y a weight or another activation.
``…Split<n>`` of all three, with inputs ``u0, …, v, base``: the same for ``u = sum_i u_i ·
base**i`` in n products, where one would not be exact in fp32. ``Requantize`` and the functions of
transformers are in :mod:`export.onnx_number_functions`.

Rows of `u` and `v` are bit patterns; a negative int8 operand indexes from the end, which is its
pattern. An operand becomes R planes of floats, plane r being u[x, r]: ``GatherElements`` of single
numbers, in onnxruntime many times as fast as ``Gather`` of rows. A convolution pads with zeros; in
a layer that pads, planes therefore hold ``u[x] - u[x_zero_point]``, and what is left of the sum,
the same at every position, is the bias. What depends on weights and tables alone is folded when a
model is loaded.
"""

from collections.abc import Sequence
from typing import Any

from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

__all__ = [
    "ANNOTATIONS",
    "DOMAIN",
    "MOST_PARTS",
    "OPSET",
    "PLANE_GROUPS",
    "PRODUCTS",
    "approx_conv_name",
    "approx_matmul_name",
    "cast",
    "function",
    "ints",
    "operation",
    "product_functions",
    "reference",
]

DOMAIN = "ai.cosearch"
OPSET = 21

CONVOLUTION = ("strides", "pads", "dilations", "group")
# Of a grouped convolution: group · R.
PLANE_GROUPS = "plane_groups"
MOST_PARTS = 4
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


def approx_conv_name(parts: int, *, grouped: bool = False) -> str:
    """The operator that computes with `u` in so many parts."""
    return _in_parts("ApproxConvIntegerGrouped" if grouped else "ApproxConvInteger", parts)


def approx_matmul_name(parts: int) -> str:
    """Likewise for matrix products."""
    return _in_parts("ApproxMatMulInteger", parts)


def _in_parts(name: str, parts: int) -> str:
    return name if parts == 1 else f"{name}Split{parts}"


def product_functions() -> dict[str, FunctionProto]:
    """By name: all products in up to four parts."""
    made = []
    for parts in range(1, MOST_PARTS + 1):
        made += [
            _approx_conv(parts, grouped=False),
            _approx_conv(parts, grouped=True),
            _approx_matmul(parts),
        ]
    return {function.name: function for function in made}


def _factors(parts: int) -> list[str]:
    return [f"u{index}" for index in range(parts)] if parts > 1 else ["u"]


def _approx_conv(parts: int, *, grouped: bool) -> FunctionProto:
    body = [*_looked_up_kernels(), *_looked_up("x", "image"), *_padding(), *_shapes_of_planes()]
    body += _grouped_kernels() if grouped else _kernels()
    for factor in _factors(parts):
        body += [*_channels(factor), *_bias_planes(factor)]
        body += _grouped_convolution(factor) if grouped else _convolution(factor)
    inputs = ["x", "w", "x_zero_point", *_factors(parts), "v"]
    attributes = [*CONVOLUTION, *([PLANE_GROUPS] if grouped else []), *ANNOTATIONS]
    return _sum_of_parts(approx_conv_name(parts, grouped=grouped), inputs, parts, body, attributes)


def _looked_up_kernels() -> list[NodeProto]:
    """`w_planes`: float32 (R, O, C / groups, kH, kW) = v[w]."""
    return [
        ints("one", [1]),
        ints("rest", [-1]),
        ints("flat", [1, -1]),
        operation("Shape", ["v"], "rank", start=1),
        operation("Concat", ["rank", "one"], "copies", axis=0),
        *_looked_up("w", "kernel"),
        operation("Transpose", ["v"], "v_table", perm=[1, 0]),
        operation("GatherElements", ["v_table", "kernel_rows"], "w_flat", axis=1),
        operation("Shape", ["w"], "w_shape"),
        operation("Concat", ["rest", "w_shape"], "w_planes_shape", axis=0),
        operation("Reshape", ["w_flat", "w_planes_shape"], "w_planes"),
    ]


def _looked_up(operand: str, name: str) -> list[NodeProto]:
    """`{name}_rows`: int32 (R, n), the operand's levels once for each plane."""
    return [
        cast(operand, f"{name}_levels", TensorProto.INT32),
        operation("Reshape", [f"{name}_levels", "flat"], f"{name}_flat"),
        operation("Expand", [f"{name}_flat", "copies"], f"{name}_rows"),
    ]


def _padding() -> list[NodeProto]:
    """`pads_any`: float32 1 where the layer pads, else 0; `zero_row`: the zero point's row."""
    return [
        reference("Constant", [], "pads", value_ints="pads"),
        operation("ReduceMax", ["pads"], "largest_pad", keepdims=0),
        operation("Sign", ["largest_pad"], "pads_sign"),
        cast("pads_sign", "pads_any", TensorProto.FLOAT),
        cast("x_zero_point", "zero_row", TensorProto.INT32),
    ]


def _shapes_of_planes() -> list[NodeProto]:
    """For (R, N, C, H, W) and (N, R·C, H, W)."""
    return [
        operation("Shape", ["x"], "spatial", start=2, end=4),
        operation("Shape", ["w"], "group_channels", start=1, end=2),
        reference("Constant", [], "groups", value_int="group"),
        operation("Mul", ["group_channels", "groups"], "channels"),
        operation("Concat", ["rank", "rest", "channels", "spatial"], "planes_shape", axis=0),
        ints("merged", [0, -1]),
        operation("Concat", ["merged", "spatial"], "channels_shape", axis=0),
    ]


def _channels(factor: str) -> list[NodeProto]:
    """`{factor}_channels`: float32 (N, R·C, H, W), planes without the `{factor}_padding` (R)."""
    f = factor
    return [
        operation("Gather", [f, "zero_row"], f"{f}_row"),
        operation("Mul", [f"{f}_row", "pads_any"], f"{f}_padding"),
        operation("Sub", [f, f"{f}_padding"], f"{f}_shifted"),
        operation("Transpose", [f"{f}_shifted"], f"{f}_table", perm=[1, 0]),
        operation("GatherElements", [f"{f}_table", "image_rows"], f"{f}_flat", axis=1),
        operation("Reshape", [f"{f}_flat", "planes_shape"], f"{f}_planes"),
        operation("Transpose", [f"{f}_planes"], f"{f}_by_image", perm=[1, 0, 2, 3, 4]),
        operation("Reshape", [f"{f}_by_image", "channels_shape"], f"{f}_channels"),
    ]


def _bias_planes(factor: str) -> list[NodeProto]:
    """`{factor}_bias_planes`: float32 (R, O), what a kernel full of padding sums to."""
    f = factor
    return [
        ints(f"{f}_column", [-1, 1, 1, 1, 1]),
        operation("Reshape", [f"{f}_padding", f"{f}_column"], f"{f}_padding_column"),
        operation("Mul", ["w_planes", f"{f}_padding_column"], f"{f}_padded"),
        ints(f"{f}_kernel_axes", [2, 3, 4]),
        operation("ReduceSum", [f"{f}_padded", f"{f}_kernel_axes"], f"{f}_bias_planes", keepdims=0),
    ]


def _kernels() -> list[NodeProto]:
    """`kernels`: float32 (O, R·C, kH, kW): planes are channels of one convolution."""
    return [
        operation("Shape", ["w"], "kernel_size", start=2, end=4),
        operation("Concat", ["merged", "kernel_size"], "kernels_shape", axis=0),
        operation("Transpose", ["w_planes"], "kernels_apart", perm=[1, 0, 2, 3, 4]),
        operation("Reshape", ["kernels_apart", "kernels_shape"], "kernels"),
        ints("plane_axis", [0]),
    ]


def _convolution(factor: str) -> list[NodeProto]:
    """`{factor}_exact`: float32 (N, O, H', W')."""
    f = factor
    return [
        operation("ReduceSum", [f"{f}_bias_planes", "plane_axis"], f"{f}_bias", keepdims=0),
        _conv(f, f"{f}_exact", "group"),
    ]


def _grouped_kernels() -> list[NodeProto]:
    """`kernels`: float32 (R·O, C / groups, kH, kW): a group for each plane of each group, whose
    results are added. onnxruntime is fast for one channel a group, and slow for a few.
    """
    return [
        operation("Shape", ["w"], "kernel_rest", start=1, end=4),
        operation("Concat", ["rest", "kernel_rest"], "kernels_shape", axis=0),
        operation("Reshape", ["w_planes", "kernels_shape"], "kernels"),
        operation("Shape", ["w"], "outputs", start=0, end=1),
        ints("plane_axis", [1]),
        ints("images", [0]),
    ]


def _grouped_convolution(factor: str) -> list[NodeProto]:
    """`{factor}_exact`: float32 (N, O, H', W')."""
    f = factor
    shape = ["images", "rank", "outputs", f"{f}_size"]
    return [
        operation("Reshape", [f"{f}_bias_planes", "rest"], f"{f}_bias"),
        _conv(f, f"{f}_each", PLANE_GROUPS),
        operation("Shape", [f"{f}_each"], f"{f}_size", start=2, end=4),
        operation("Concat", shape, f"{f}_apart", axis=0),
        operation("Reshape", [f"{f}_each", f"{f}_apart"], f"{f}_by_plane"),
        operation("ReduceSum", [f"{f}_by_plane", "plane_axis"], f"{f}_exact", keepdims=0),
    ]


def _conv(factor: str, result: str, group: str) -> NodeProto:
    inputs = [f"{factor}_channels", "kernels", f"{factor}_bias"]
    lists = {name: name for name in ("strides", "pads", "dilations")}
    return reference("Conv", inputs, result, **lists, group=group)


def _approx_matmul(parts: int) -> FunctionProto:
    body = [*_columns(), *_looked_up("x", "image"), *_shapes_of_rows()]
    for factor in _factors(parts):
        f = factor
        body += [
            operation("Transpose", [f], f"{f}_table", perm=[1, 0]),
            operation("GatherElements", [f"{f}_table", "image_rows"], f"{f}_flat", axis=1),
            operation("Reshape", [f"{f}_flat", "planes_shape"], f"{f}_planes"),
            operation("Transpose", [f"{f}_planes"], f"{f}_by_row", perm=[1, 0, 2]),
            operation("Reshape", [f"{f}_by_row", "rows_shape"], f"{f}_rows"),
            operation("MatMul", [f"{f}_rows", "columns"], f"{f}_exact"),
        ]
    inputs = ["x", "y", *_factors(parts), "v"]
    return _sum_of_parts(approx_matmul_name(parts), inputs, parts, body, ANNOTATIONS)


def _columns() -> list[NodeProto]:
    """`columns`: float32 (…, R·K, N) = v[y], R before K."""
    return [
        ints("one", [1]),
        ints("rest", [-1]),
        ints("flat", [1, -1]),
        operation("Shape", ["v"], "rank", start=1),
        operation("Concat", ["rank", "one"], "copies", axis=0),
        *_looked_up("y", "kernel"),
        operation("Transpose", ["v"], "v_table", perm=[1, 0]),
        operation("GatherElements", ["v_table", "kernel_rows"], "y_flat", axis=1),
        operation("Shape", ["y"], "y_batch", start=0, end=-2),
        operation("Shape", ["y"], "y_matrix", start=-2),
        operation("Shape", ["y"], "y_outputs", start=-1),
        operation("Concat", ["rank", "rest", "y_matrix"], "y_planes_shape", axis=0),
        operation("Reshape", ["y_flat", "y_planes_shape"], "y_planes"),
        operation("Transpose", ["y_planes"], "y_by_matrix", perm=[1, 0, 2, 3]),
        operation("Concat", ["y_batch", "rest", "y_outputs"], "columns_shape", axis=0),
        operation("Reshape", ["y_by_matrix", "columns_shape"], "columns"),
    ]


def _shapes_of_rows() -> list[NodeProto]:
    """For (R, rows, K) and (…, M, R·K)."""
    return [
        operation("Shape", ["x"], "terms", start=-1),
        operation("Concat", ["rank", "rest", "terms"], "planes_shape", axis=0),
        operation("Shape", ["x"], "x_batch", start=0, end=-1),
        operation("Concat", ["x_batch", "rest"], "rows_shape", axis=0),
    ]


def _sum_of_parts(
    name: str,
    inputs: Sequence[str],
    parts: int,
    body: Sequence[NodeProto],
    attributes: Sequence[str],
) -> FunctionProto:
    """int32 sum_i exact_i · base**i, the highest first."""
    factors = _factors(parts)
    if parts == 1:
        return function(
            name, inputs, [*body, cast("u_exact", "result", TensorProto.INT32)], attributes
        )
    nodes = [*body]
    nodes += [cast(f"{f}_exact", f"{f}_sum", TensorProto.INT32) for f in factors]
    above = f"{factors[-1]}_sum"
    for index in reversed(range(parts - 1)):
        total = f"total{index}" if index else "result"
        nodes.append(operation("Mul", [above, "base"], f"weighted{index}"))
        nodes.append(operation("Add", [f"{factors[index]}_sum", f"weighted{index}"], total))
        above = total
    return function(name, [*inputs, "base"], nodes, attributes)


def operation(op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    """A standard operator of a body."""
    return helper.make_node(op_type, list(inputs), [output], **attributes)


def cast(x: str, result: str, kind: int) -> NodeProto:
    return operation("Cast", [x], result, to=kind)


def ints(name: str, values: Sequence[int]) -> NodeProto:
    """A constant int64 vector."""
    return operation("Constant", [], name, value_ints=list(values))


def reference(op_type: str, inputs: Sequence[str], output: str, **attributes: str) -> NodeProto:
    """An operator whose attributes take their values from the function's, by name."""
    node = operation(op_type, inputs, output)
    for name, of in attributes.items():
        kind = AttributeProto.INT if name in _NUMBERS else AttributeProto.INTS
        node.attribute.append(AttributeProto(name=name, type=kind, ref_attr_name=of))
    return node


_NUMBERS = ("group", "to", "value_int")


def function(
    name: str, inputs: Sequence[str], body: Sequence[NodeProto], attributes: Sequence[str] = ()
) -> FunctionProto:
    """A function of our domain; its output is `result`."""
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_function(
        DOMAIN, name, list(inputs), ["result"], list(body), opset, list(attributes)
    )
