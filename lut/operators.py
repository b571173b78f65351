"""Operators of emulation, registered with torch: they trace, compile, export and differentiate.

``torch.ops.lut.accumulators``: the integer convolution. ``torch.ops.lut.conv2d``: from real
operands to a real result, with ``conv2d_backward``. ``torch.ops.lut.products``: the integer matrix
product of batches. ``torch.ops.lut.matmul``: the sums that one or several mixed tables make of
levels, with ``matmul_backward``. ``torch.ops.lut.observe_largest``: the range of a quantiser,
``observe_together``: of several that read one tensor.

Tables are named by key, see :mod:`lut.candidates`. Autocast, on in the caller's thread, reaches
nothing inside an operator. Results lie in memory as their operands do, images channels last.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from hw.errors import InputError

from .backends import Problem, chosen_backend
from .backends.cuda_emulation import observed_scales
from .candidates import tables_of
from .emulation import Operands, Wanted, convolution, gradients
from .geometry import ConvGeometry
from .products import MatrixOperands, product_gradients, sums_of_products, table_product
from .table import LUT

__all__ = ["IMPLEMENTATIONS", "known_table"]

GEOMETRY = "int[] stride, int[] padding, int[] dilation, int groups"
MATRICES = (
    "Tensor x, Tensor y, Tensor x_zero_point, Tensor y_zero_point, Tensor? mixture, "
    "str candidates, bool affine"
)
OPERANDS = (
    "Tensor x, Tensor w, Tensor x_scale, Tensor zero_point, Tensor? w_scale, Tensor? mixture, "
    f"str candidates, bool affine, int[] x_range, int[] w_range, {GEOMETRY}"
)

_LIBRARY = torch.library.Library("lut", "DEF")
_LIBRARY.define(
    f"accumulators(Tensor x, Tensor w, str table, {GEOMETRY}, int x_zero_point, str backend)"
    " -> Tensor"
)
_LIBRARY.define(f"conv2d({OPERANDS}, ScalarType dtype) -> (Tensor, Tensor)")
_LIBRARY.define(
    f"conv2d_backward(Tensor gradient, Tensor real, Tensor? result, {OPERANDS}, bool[] wanted)"
    " -> Tensor[]"
)
_LIBRARY.define("products(Tensor x, Tensor y, str table) -> Tensor")
_LIBRARY.define(f"matmul({MATRICES}) -> Tensor")
_LIBRARY.define(f"matmul_backward(Tensor gradient, {MATRICES}, bool[] wanted) -> Tensor[]")
_LIBRARY.define(
    "observe_largest(Tensor x, Tensor(a!) scratch, Tensor(b!) low_value, Tensor(c!) high_value, "
    "Tensor(d!) batches, Tensor(e!) kept, float momentum, int levels) -> Tensor"
)
_LIBRARY.define(
    "observe_together(Tensor x, Tensor(a!) scratch, Tensor(b!)[] low_values, "
    "Tensor(c!)[] high_values, Tensor(d!)[] batches, Tensor(e!)[] kept, float momentum, "
    "int levels) -> Tensor"
)

_TABLES: WeakValueDictionary[str, LUT] = WeakValueDictionary()


@torch.compiler.assume_constant_result
def known_table(lut: LUT) -> str:
    """The key by which ``accumulators`` and ``products`` find `lut` as long as it lives."""
    key = f"{lut.digest} {lut.a_signed:d} {lut.b_signed:d}"
    _TABLES.setdefault(key, lut)
    return key


def _accumulators(
    x: Tensor,
    w: Tensor,
    table: str,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    x_zero_point: int,
    backend: str,
) -> Tensor:
    lut = _table(table)
    geometry = _geometry(stride, padding, dilation, groups)
    zero = x_zero_point & ((1 << lut.a_width) - 1)
    rows, columns = _patterns(x, lut.a_width), _patterns(w, lut.b_width)
    problem = Problem(rows, columns, lut, geometry, zero)
    sums = chosen_backend(problem, backend or None).accumulators(problem)
    return sums.contiguous(memory_format=torch.channels_last)


def _table(key: str) -> LUT:
    if key not in _TABLES:
        raise InputError(f"the LUT of key {key[:12]}… must be alive in this process, it is not")
    return _TABLES[key]


def _patterns(operand: Tensor, width: int) -> Tensor:
    """Bit patterns, uint8: all 8 bits of a full operand, the low `width` bits of a narrower one."""
    patterns = operand.view(torch.uint8)
    return patterns if width == 8 else patterns & ((1 << width) - 1)


def _fake_accumulators(
    x: Tensor,
    w: Tensor,
    table: str,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    x_zero_point: int,
    backend: str,
) -> Tensor:
    return _empty_images(x, w, torch.int32, stride, padding, dilation)


def _conv2d(x: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *settings, dtype = rest
    result, real = convolution(_operands(x, w, *settings), dtype)
    return result, _laid_out(real, torch.empty_like(w, dtype=dtype, device="meta"))


def _fake_conv2d(x: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *_, stride, padding, dilation, _, dtype = rest
    result = _empty_images(x, w, dtype, stride, padding, dilation)
    return result, torch.empty_like(w, dtype=dtype)


def _conv2d_backward(
    gradient: Tensor, real: Tensor, result: Tensor | None, *rest: Any
) -> list[Tensor]:
    *settings, wanted = rest
    operands = _operands(*settings)
    found = gradients(gradient, operands, real, result, Wanted(*wanted))
    tensors = (operands.x, operands.w, operands.x_scale, operands.w_scale, operands.mixture)
    return _gradients_like(tensors, found, gradient)


def _fake_conv2d_backward(
    gradient: Tensor, real: Tensor, result: Tensor | None, *rest: Any
) -> list[Tensor]:
    x, w, x_scale, _, w_scale, mixture, *_, wanted = rest
    return _empty_gradients((x, w, x_scale, w_scale, mixture), wanted, gradient)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w, x_scale, zero_point, w_scale, mixture, *settings = inputs
    result, real = output
    ctx.mark_non_differentiable(real)
    scales = ctx.needs_input_grad[2] or ctx.needs_input_grad[4]
    ctx.save_for_backward(
        x, w, x_scale, zero_point, w_scale, mixture, real, result if scales else None
    )
    ctx.settings = settings[:-1]


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *operands, real, result = ctx.saved_tensors
    needs = ctx.needs_input_grad
    wanted = [needs[0], needs[1], needs[2], needs[4], needs[5]]
    found = torch.ops.lut.conv2d_backward(gradient, real, result, *operands, *ctx.settings, wanted)
    x, w, x_scale, w_scale, mixture = (
        tensor if one else None for tensor, one in zip(found, wanted, strict=True)
    )
    return x, w, x_scale, None, w_scale, mixture, *([None] * (len(ctx.settings) + 1))


def _refuse(ctx: Any, *_: Any) -> None:
    raise InputError(
        "gradients of emulated products must be taken once, not gradients of them again"
    )


def _products(x: Tensor, y: Tensor, table: str) -> Tensor:
    lut = _table(table)
    rows = x.to(torch.int64) & ((1 << lut.a_width) - 1)
    columns = y.to(torch.int64) & ((1 << lut.b_width) - 1)
    return table_product(rows, columns, lut)


def _fake_products(x: Tensor, y: Tensor, table: str) -> Tensor:
    return x.new_empty(_product_shape(x, y), dtype=torch.int32)


def _matmul(*operands: Any) -> Tensor:
    return sums_of_products(_matrices(*operands))


def _fake_matmul(x: Tensor, y: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(_product_shape(x, y), dtype=torch.float32)


def _matmul_backward(gradient: Tensor, *rest: Any) -> list[Tensor]:
    *settings, wanted = rest
    operands = _matrices(*settings)
    found = product_gradients(gradient, operands, *wanted)
    return _gradients_like((operands.x, operands.y, operands.mixture), found, gradient)


def _fake_matmul_backward(gradient: Tensor, *rest: Any) -> list[Tensor]:
    x, y, _, _, mixture, *_, wanted = rest
    return _empty_gradients((x, y, mixture), wanted, gradient)


def _save_matrices(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, candidates, affine = inputs
    ctx.save_for_backward(*tensors)
    ctx.settings = candidates, affine


def _differentiate_matmul(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad
    wanted = [needs[0], needs[1], needs[4]]
    found = torch.ops.lut.matmul_backward(gradient, *ctx.saved_tensors, *ctx.settings, wanted)
    x, y, mixture = (tensor if one else None for tensor, one in zip(found, wanted, strict=True))
    return x, y, None, None, mixture, None, None


def _observe_largest(
    x: Tensor,
    scratch: Tensor,
    low_value: Tensor,
    high_value: Tensor,
    batches: Tensor,
    kept: Tensor,
    momentum: float,
    levels: int,
) -> Tensor:
    observer = [low_value], [high_value], [batches], [kept]
    return observed_scales(x, scratch, *observer, momentum, levels)[0]


def _fake_observe_largest(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty((), dtype=torch.float32)


def _fake_observe_together(
    x: Tensor, scratch: Tensor, low_values: list[Tensor], *rest: Any
) -> Tensor:
    return x.new_empty(len(low_values), dtype=torch.float32)


def _gradients_like(
    tensors: tuple[Tensor | None, ...], found: list[Tensor | None], gradient: Tensor
) -> list[Tensor]:
    """What was found, laid out as what it is the gradient of; of nothing, an empty tensor."""
    return [
        gradient.new_empty(0) if one is None or tensor is None else _laid_out(one, tensor)
        for tensor, one in zip(tensors, found, strict=True)
    ]


def _empty_gradients(
    tensors: tuple[Tensor | None, ...], wanted: list[bool], gradient: Tensor
) -> list[Tensor]:
    """As `_gradients_like`, not filled."""
    return [
        torch.empty_like(tensor) if one and tensor is not None else gradient.new_empty(0)
        for tensor, one in zip(tensors, wanted, strict=True)
    ]


def _laid_out(found: Tensor, like: Tensor) -> Tensor:
    """`found` with the type and strides of ``empty_like(like)``; a copy only where they differ.

    The stride of a dimension of size 1 does not count.
    """
    strides = zip(found.shape, found.stride(), like.stride(), strict=True)
    if found.dtype == like.dtype and all(size == 1 or a == b for size, a, b in strides):
        return found
    return torch.empty_like(like, device=found.device).copy_(found)


def _geometry(
    stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> ConvGeometry:
    (a, b), (c, d), (e, f) = stride, padding, dilation
    return ConvGeometry((a, b), (c, d), (e, f), groups)


def _operands(
    x: Tensor,
    w: Tensor,
    x_scale: Tensor,
    zero_point: Tensor,
    w_scale: Tensor | None,
    mixture: Tensor | None,
    candidates: str,
    affine: bool,
    x_range: list[int],
    w_range: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Operands:
    return Operands(
        x, w, x_scale, zero_point, affine, w_scale, mixture, tables_of(candidates),
        _geometry(stride, padding, dilation, groups),
        (x_range[0], x_range[1]), (w_range[0], w_range[1]),
    )  # fmt: skip


def _matrices(
    x: Tensor,
    y: Tensor,
    x_zero_point: Tensor,
    y_zero_point: Tensor,
    mixture: Tensor | None,
    candidates: str,
    affine: bool,
) -> MatrixOperands:
    return MatrixOperands(x, y, x_zero_point, y_zero_point, affine, mixture, tables_of(candidates))


def _product_shape(x: Tensor, y: Tensor) -> tuple[Any, ...]:
    """(..., M, N)."""
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return *batch, x.shape[-2], y.shape[-1]


def _empty_images(
    x: Tensor,
    w: Tensor,
    dtype: torch.dtype,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """(N, O, H', W'), channels last; symbolic sizes welcome."""
    height, width = (
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    )
    return x.new_empty((x.shape[0], height, width, w.shape[0]), dtype=dtype).permute(0, 3, 1, 2)


def _without_autocast(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """`implementation` with autocast off for the device of its first operand."""

    @wraps(implementation)
    def run(first: Tensor, *rest: Any) -> Any:
        kind = first.device.type
        if not torch.is_autocast_enabled(kind):
            return implementation(first, *rest)
        with torch.autocast(kind, enabled=False):
            return implementation(first, *rest)

    return run


IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {}  # by name: for whoever looks inside

for _name, _implementation, _fake in (
    ("accumulators", _accumulators, _fake_accumulators),
    ("conv2d", _conv2d, _fake_conv2d),
    ("conv2d_backward", _conv2d_backward, _fake_conv2d_backward),
    ("products", _products, _fake_products),
    ("matmul", _matmul, _fake_matmul),
    ("matmul_backward", _matmul_backward, _fake_matmul_backward),
    ("observe_largest", _observe_largest, _fake_observe_largest),
    ("observe_together", observed_scales, _fake_observe_together),
):
    IMPLEMENTATIONS[_name] = _without_autocast(_implementation)
    _LIBRARY.impl(_name, IMPLEMENTATIONS[_name], "CompositeExplicitAutograd")
    torch.library.register_fake(f"lut::{_name}", _fake, lib=_LIBRARY)
torch.library.register_autograd("lut::conv2d", _differentiate, setup_context=_save, lib=_LIBRARY)
torch.library.register_autograd(
    "lut::matmul", _differentiate_matmul, setup_context=_save_matrices, lib=_LIBRARY
)
for _name in ("conv2d_backward", "matmul_backward"):
    torch.library.register_autograd(f"lut::{_name}", _refuse, lib=_LIBRARY)
