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
def _byte(word: tl.tensor, place: tl.constexpr) -> tl.tensor:
    """The signed byte of a word, the lowest being 0, as float32."""
    return ((word << (24 - 8 * place)) >> 24).to(tl.float32)


@triton.jit
def _product(factor: tl.tensor, signal: tl.tensor) -> tl.tensor:
    """factor' · signal, summed in float32; factors are bytes, exact in bfloat16."""
    if INTERPRETED:  # which has no products of bfloat16
        product = tl.dot(tl.trans(factor), signal.to(tl.float32))
    else:
        product = tl.dot(tl.trans(factor.to(tl.bfloat16)), signal.to(tl.bfloat16))
    return product


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
    contiguous; u int32 (words, ROWS), four signed bytes each. Two words a program.
    """
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known, point = c < channels, tl.load(zero)
    tap, pair = tl.program_id(2) % (KERNEL * KERNEL), tl.program_id(2) // (KERNEL * KERNEL)
    first = pair * 8
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
        word = tl.load(u + 2 * pair * ROWS + pattern)
        s0 += signal * _byte(word, 0)
        s1 += signal * _byte(word, 1)
        s2 += signal * _byte(word, 2)
        s3 += signal * _byte(word, 3)
        if first + 4 < planes:
            word = tl.load(u + (2 * pair + 1) * ROWS + pattern)
            s4 += signal * _byte(word, 0)
            s5 += signal * _byte(word, 1)
            s6 += signal * _byte(word, 2)
            s7 += signal * _byte(word, 3)
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
    """parts[program, plane, c, o]: 1×1, no padding; a word of planes and CHANNELS channels a
    program.

    gradient (positions, O), x (N, H, W, C), contiguous; u int32 (words, ROWS), four signed bytes
    each.
    """
    first, block = tl.program_id(1), tl.program_id(2)
    c, o = block * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, OUTPUTS)
    point, step = tl.load(zero), tl.load(scale)
    bottom, top = (low - point) * 1.0, (high - point) * 1.0
    s0 = tl.zeros((CHANNELS, OUTPUTS), tl.float32)
    s1, s2, s3 = s0, s0, s0
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
        word = tl.load(u + first * ROWS + pattern)
        s0 += _product(_byte(word, 0), signal)
        s1 += _product(_byte(word, 1), signal)
        s2 += _product(_byte(word, 2), signal)
        s3 += _product(_byte(word, 3), signal)
    row, kept = (tl.program_id(0) * planes + 4 * first) * channels, (c < channels)[:, None]
    at = parts + (row + c)[:, None] * outputs + o[None, :]
    kept = kept & (o < outputs)[None, :]
    tl.store(at, s0, mask=kept)
    tl.store(at + channels * outputs, s1, mask=kept & (4 * first + 1 < planes))
    tl.store(at + 2 * channels * outputs, s2, mask=kept & (4 * first + 2 < planes))
    tl.store(at + 3 * channels * outputs, s3, mask=kept & (4 * first + 3 < planes))
