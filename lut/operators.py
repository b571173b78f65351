"""Operators of emulation, registered with torch: they trace, compile, export and differentiate.

``torch.ops.lut.accumulators``: the integer convolution. ``torch.ops.lut.conv2d``: from real
operands to a real result, with ``conv2d_backward``. ``torch.ops.lut.observe_largest``: the range of
a quantiser. Tables are named by key, see :mod:`lut.candidates`.
"""

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn import functional

from hw.errors import InputError

from .backends import Problem, chosen_backend
from .backends.cuda_emulation import observed_scale
from .candidates import tables_of
from .emulation import Operands, Wanted, convolution, gradients
from .geometry import ConvGeometry
from .table import LUT

__all__ = ["known_table"]

GEOMETRY = "int[] stride, int[] padding, int[] dilation, int groups"
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
_LIBRARY.define(
    "observe_largest(Tensor x, Tensor(a!) scratch, Tensor(b!) low_value, Tensor(c!) high_value, "
    "Tensor(d!) batches, Tensor(e!) kept, float momentum, int levels) -> Tensor"
)

_TABLES: WeakValueDictionary[str, LUT] = WeakValueDictionary()


@torch.compiler.assume_constant_result
def known_table(lut: LUT) -> str:
    """The key by which ``torch.ops.lut.accumulators`` finds `lut` as long as it lives."""
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
    if table not in _TABLES:
        raise InputError(f"the LUT of key {table[:12]}… must be alive in this process, it is not")
    lut = _TABLES[table]
    geometry = _geometry(stride, padding, dilation, groups)
    height, width = geometry.padding
    border = (width, width, height, height)
    padded = functional.pad(x, border, value=x_zero_point) if any(border) else x
    problem = Problem(
        _patterns(padded, lut.a_width), _patterns(w, lut.b_width), lut, geometry.without_padding()
    )
    return chosen_backend(problem, backend or None).accumulators(problem)


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
    shape = _output_shape(x, w, stride, padding, dilation)
    return x.new_empty(shape, dtype=torch.int32)


def _conv2d(x: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *settings, dtype = rest
    return convolution(_operands(x, w, *settings), dtype)


def _fake_conv2d(x: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *_, stride, padding, dilation, _, dtype = rest
    batch, outputs, height, width = _output_shape(x, w, stride, padding, dilation)
    result = x.new_empty((batch, height, width, outputs), dtype=dtype).permute(0, 3, 1, 2)
    return result, torch.empty_like(w, dtype=dtype)


def _conv2d_backward(
    gradient: Tensor, real: Tensor, result: Tensor | None, *rest: Any
) -> list[Tensor]:
    *settings, wanted = rest
    operands = _operands(*settings)
    found = gradients(gradient, operands, real, result, Wanted(*wanted))
    return [gradient.new_empty(0) if one is None else one for one in found]


def _fake_conv2d_backward(
    gradient: Tensor, real: Tensor, result: Tensor | None, *rest: Any
) -> list[Tensor]:
    x, w, x_scale, _, w_scale, mixture, *_, wanted = rest
    return [
        torch.empty_like(tensor) if one and tensor is not None else gradient.new_empty(0)
        for one, tensor in zip(wanted, (x, w, x_scale, w_scale, mixture), strict=True)
    ]


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
    found = torch.ops.lut.conv2d_backward(
        gradient, real, result, *operands, *ctx.settings, wanted
    )
    x, w, x_scale, w_scale, mixture = (
        tensor if one else None for tensor, one in zip(found, wanted, strict=True)
    )
    return x, w, x_scale, None, w_scale, mixture, *([None] * (len(ctx.settings) + 1))


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
    return observed_scale(
        x, scratch, low_value, high_value, batches, kept, momentum, levels
    )


def _fake_observe_largest(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty((), dtype=torch.float32)


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


def _output_shape(
    x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[Any, ...]:
    """(N, O, H', W'), symbolic sizes welcome."""
    height, width = (
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    )
    return x.shape[0], w.shape[0], height, width


for _name, _implementation, _fake in (
    ("accumulators", _accumulators, _fake_accumulators),
    ("conv2d", _conv2d, _fake_conv2d),
    ("conv2d_backward", _conv2d_backward, _fake_conv2d_backward),
    ("observe_largest", _observe_largest, _fake_observe_largest),
):
    _LIBRARY.impl(_name, _implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lut::{_name}", _fake, lib=_LIBRARY)
torch.library.register_autograd("lut::conv2d", _differentiate, setup_context=_save, lib=_LIBRARY)
