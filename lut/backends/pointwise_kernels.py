"""Triton kernels of exact 1×1 convolutions of few channels, channels last, and their gradients.

Positions are the N·H·W places of the images. Sums are those of the matrix units, in float32.
Channels are counted in units of ALIGN. Where RELU, the operand is rectified first.
"""

import triton
import triton.language as tl

from .cuda_kernels import _levels
from .mixture_kernels import _add_product

__all__ = ["pointwise", "pointwise_weight_gradient"]

# Not compiled anew for their values.
COUNTS = ["positions", "aligned_channels", "aligned_outputs", "turns", "low", "high"]


@triton.jit
def _clamped(
    value: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """The level of a value less the zero point, float32, and whether nothing was clamped."""
    point = tl.load(zero)
    bottom, top = (low - point) * 1.0, (high - point) * 1.0
    level = _levels(value.to(tl.float32), tl.load(scale), bottom - 1.0, top + 1.0)
    return tl.minimum(tl.maximum(level, bottom), top), (level >= bottom) & (level <= top)


@triton.jit(do_not_specialize=COUNTS)
def pointwise(
    x: tl.tensor,
    w: tl.tensor,
    result: tl.tensor,
    operand: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    positions: tl.tensor,
    aligned_channels: tl.tensor,
    aligned_outputs: tl.tensor,
    GRADIENT: tl.constexpr,
    RELU: tl.constexpr,
    CLAMPED: tl.constexpr,
    ALIGN: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """result[p, o] = sum over c of x[p, c] · w[o, c], w rounded to the type of x.

    GRADIENT: that of the operand from that of the result, x, of so many `aligned_channels`: w[c, o]
    instead; where RELU, 0 where the operand is not above 0; where CLAMPED, 0 where it is beyond
    the levels `low` to `high`, which are `scale` apart. All but w: (positions, their channels).
    """
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c, o = tl.arange(0, CHANNELS), tl.arange(0, OUTPUTS)
    channels, outputs = aligned_channels * ALIGN, aligned_outputs * ALIGN
    inside = (p < positions)[:, None] & (c < channels)[None, :]
    value = tl.load(x + p[:, None] * channels + c[None, :], mask=inside, other=0.0)
    if RELU and not GRADIENT:
        value = tl.where(value > 0, value, 0.0)
    line, step = (outputs, 1) if GRADIENT else (1, channels)
    at = c[:, None] * line + o[None, :] * step
    known = (c < channels)[:, None] & (o < outputs)[None, :]
    weight = tl.load(w + at, mask=known, other=0.0).to(x.dtype.element_ty)
    sums = _add_product(value, weight, tl.zeros((POSITIONS, OUTPUTS), tl.float32))
    at = p[:, None] * outputs + o[None, :]
    kept = (p < positions)[:, None] & (o < outputs)[None, :]
    if GRADIENT and (RELU or CLAMPED):
        given = tl.load(operand + at, mask=kept, other=0.0)
        if RELU:
            sums = tl.where(given > 0, sums, 0.0)
        if CLAMPED:
            _, unclamped = _clamped(given, scale, zero, low, high)
            sums = tl.where(unclamped, sums, 0.0)
    tl.store(result + at, sums.to(result.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=COUNTS)
def pointwise_weight_gradient(
    gradient: tl.tensor,
    x: tl.tensor,
    parts: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    positions: tl.tensor,
    aligned_channels: tl.tensor,
    aligned_outputs: tl.tensor,
    turns: tl.tensor,
    RELU: tl.constexpr,
    QUANTISED: tl.constexpr,
    ALIGN: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """parts[program, o, c] = sum of gradient[p, o] · x[p, c] over the program's positions, `turns`
    times POSITIONS; where QUANTISED, of the quantised x. float32; adding up is left to the caller.
    """
    c, o = tl.arange(0, CHANNELS), tl.arange(0, OUTPUTS)
    channels, outputs = aligned_channels * ALIGN, aligned_outputs * ALIGN
    sums = tl.zeros((OUTPUTS, CHANNELS), tl.float32)
    for turn in range(turns):
        p = (tl.program_id(0) * turns + turn) * POSITIONS + tl.arange(0, POSITIONS)
        within = (p < positions)[:, None]
        inside = within & (o < outputs)[None, :]
        signal = tl.load(gradient + p[:, None] * outputs + o[None, :], mask=inside, other=0.0)
        inside = within & (c < channels)[None, :]
        value = tl.load(x + p[:, None] * channels + c[None, :], mask=inside, other=0.0)
        if RELU:
            value = tl.where(value > 0, value, 0.0)
        if QUANTISED:
            level, _ = _clamped(value, scale, zero, low, high)
            value = (level * tl.load(scale)).to(signal.dtype)
        sums = _add_product(tl.trans(signal), value, sums)
    at = (tl.program_id(0) * outputs + o[:, None]) * channels + c[None, :]
    tl.store(parts + at, sums, mask=(o < outputs)[:, None] & (c < channels)[None, :])
