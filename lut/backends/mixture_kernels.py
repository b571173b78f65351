"""Triton kernels of a mixture's gradient: sums of gradient · u[x] for each plane u of the basis.

Activations are quantised inside, by `_levels`, and rows of u looked up; nothing of the size of
planes · activations is in memory. Programs write partial sums, which the caller adds up.
"""

import os

import triton
import triton.language as tl

from .cuda_kernels import _levels

__all__ = ["depthwise_plane_sums", "pointwise_plane_sums"]

COUNTS = [
    "positions", "size", "result_width", "height", "width", "stride", "padding", "dilation",
    "turns", "low", "high", "planes",
]  # fmt: skip
INTERPRETED: tl.constexpr = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _plane(
    u: tl.tensor, plane: tl.tensor, pattern: tl.tensor, planes: tl.tensor, ROWS: tl.constexpr
) -> tl.tensor:
    """u[plane] of patterns, float32; zero beyond the last plane."""
    return tl.load(u + plane * ROWS + pattern, mask=plane < planes, other=0.0)


@triton.jit(do_not_specialize=COUNTS)
def depthwise_plane_sums(
    gradient: tl.tensor,
    x: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    u: tl.tensor,
    parts: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    planes: tl.tensor,
    positions: tl.tensor,
    size: tl.tensor,
    result_width: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    stride: tl.tensor,
    padding: tl.tensor,
    dilation: tl.tensor,
    turns: tl.tensor,
    KERNEL: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """parts[program, tap, plane, c]: a channel each. gradient (positions, C), x (N, H, W, C),
    contiguous; u float32 (planes, ROWS). Eight planes a program.
    """
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known, point = c < channels, tl.load(zero)
    tap, first = tl.program_id(2) % (KERNEL * KERNEL), tl.program_id(2) // (KERNEL * KERNEL) * 8
    bottom, top, step = (low - point) * 1.0, (high - point) * 1.0, tl.load(scale)
    s0 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    s1, s2, s3, s4, s5, s6, s7 = s0, s0, s0, s0, s0, s0, s0
    for turn in range(turns):
        p = (tl.program_id(0) * turns + turn) * POSITIONS + tl.arange(0, POSITIONS)
        within = p < positions
        at = p[:, None] * channels + c[None, :]
        signal = tl.load(gradient + at, mask=within[:, None] & known[None, :], other=0.0)
        signal = signal.to(tl.float32)
        y = p % size // result_width * stride - padding + tap // KERNEL * dilation
        z = p % size % result_width * stride - padding + tap % KERNEL * dilation
        inside = within & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        source = (p // size * (height * width) + y * width + z)[:, None] * channels + c[None, :]
        value = tl.load(x + source, mask=inside[:, None] & known[None, :], other=0.0)
        level = _levels(value.to(tl.float32), step, bottom, top).to(tl.int32) + point
        pattern = tl.where(inside[:, None], level, point) & (ROWS - 1)
        s0 += signal * _plane(u, first, pattern, planes, ROWS)
        s1 += signal * _plane(u, first + 1, pattern, planes, ROWS)
        s2 += signal * _plane(u, first + 2, pattern, planes, ROWS)
        s3 += signal * _plane(u, first + 3, pattern, planes, ROWS)
        s4 += signal * _plane(u, first + 4, pattern, planes, ROWS)
        s5 += signal * _plane(u, first + 5, pattern, planes, ROWS)
        s6 += signal * _plane(u, first + 6, pattern, planes, ROWS)
        s7 += signal * _plane(u, first + 7, pattern, planes, ROWS)
    row = parts + ((tl.program_id(0) * (KERNEL * KERNEL) + tap) * planes + first) * channels + c
    tl.store(row, tl.sum(s0, 0), mask=known & (first < planes))
    tl.store(row + channels, tl.sum(s1, 0), mask=known & (first + 1 < planes))
    tl.store(row + 2 * channels, tl.sum(s2, 0), mask=known & (first + 2 < planes))
    tl.store(row + 3 * channels, tl.sum(s3, 0), mask=known & (first + 3 < planes))
    tl.store(row + 4 * channels, tl.sum(s4, 0), mask=known & (first + 4 < planes))
    tl.store(row + 5 * channels, tl.sum(s5, 0), mask=known & (first + 5 < planes))
    tl.store(row + 6 * channels, tl.sum(s6, 0), mask=known & (first + 6 < planes))
    tl.store(row + 7 * channels, tl.sum(s7, 0), mask=known & (first + 7 < planes))


@triton.jit(do_not_specialize=COUNTS)
def pointwise_plane_sums(
    gradient: tl.tensor,
    x: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    u: tl.tensor,
    parts: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    planes: tl.tensor,
    positions: tl.tensor,
    size: tl.tensor,
    result_width: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    outputs: tl.tensor,
    stride: tl.tensor,
    turns: tl.tensor,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """parts[program, plane, c, o]: 1×1, no padding; one plane and CHANNELS channels a program.

    gradient (positions, O), x (N, H, W, C), contiguous; u float32 (planes, ROWS).
    """
    plane, block = tl.program_id(1), tl.program_id(2)
    c, o = block * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, OUTPUTS)
    point, step = tl.load(zero), tl.load(scale)
    bottom, top = (low - point) * 1.0, (high - point) * 1.0
    sums = tl.zeros((CHANNELS, OUTPUTS), tl.float32)
    for turn in range(turns):
        p = (tl.program_id(0) * turns + turn) * POSITIONS + tl.arange(0, POSITIONS)
        within = p < positions
        at = p[:, None] * outputs + o[None, :]
        signal = tl.load(gradient + at, mask=within[:, None] & (o < outputs)[None, :], other=0.0)
        y, z = p % size // result_width * stride, p % size % result_width * stride
        source = (p // size * (height * width) + y * width + z)[:, None] * channels + c[None, :]
        inside = within[:, None] & (c < channels)[None, :]
        value = tl.load(x + source, mask=inside, other=0.0).to(tl.float32)
        pattern = (_levels(value, step, bottom, top).to(tl.int32) + point) & (ROWS - 1)
        factor = _plane(u, plane, pattern, planes, ROWS)
        if INTERPRETED:  # which has no products of bfloat16
            sums += tl.dot(tl.trans(factor), signal.to(tl.float32))
        else:
            sums += tl.dot(tl.trans(factor.to(tl.bfloat16)), signal.to(tl.bfloat16))
    row = (tl.program_id(0) * planes + plane) * channels
    at = (row + c)[:, None] * outputs + o[None, :]
    tl.store(parts + at, sums, mask=(c < channels)[:, None] & (o < outputs)[None, :])
