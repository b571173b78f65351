"""Triton kernels of exact depthwise convolutions, channels last: the result and both gradients.

Positions are the N·H'·W' places of the result, or of the operand in the gradient of the operand.
Every output channel has one input channel, its own. Where RELU, the operand is rectified first.
"""

import triton
import triton.language as tl

from .cuda_kernels import _levels

# Not compiled anew for their values.
COUNTS = [
    "positions", "size", "result_height", "result_width", "height", "width", "stride", "padding",
    "dilation", "turns", "low", "high",
]  # fmt: skip

__all__ = ["depthwise", "depthwise_operand_gradient", "depthwise_weight_gradient"]


@triton.jit(do_not_specialize=COUNTS)
def depthwise(
    x: tl.tensor,
    w: tl.tensor,
    result: tl.tensor,
    positions: tl.tensor,
    size: tl.tensor,
    result_width: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    stride: tl.tensor,
    padding: tl.tensor,
    dilation: tl.tensor,
    KERNEL: tl.constexpr,
    RELU: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """result[p, c] = sum over taps of w[c, tap] · x[image, row, column, c]; sums in float32.

    x: (N, H, W, C), contiguous; w: (C, taps); result: (positions, C). `size`: positions of
    one image.
    """
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known, row, column = c < channels, p % size // result_width, p % size % result_width
    image = (p // size) * (height * width)
    sums = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for down in range(KERNEL):
        y = row * stride - padding + down * dilation
        for right in tl.static_range(KERNEL):
            z = column * stride - padding + right * dilation
            inside = (p < positions) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            source = (image + y * width + z)[:, None] * channels + c[None, :]
            value = tl.load(x + source, mask=inside[:, None] & known[None, :], other=0.0)
            value = value.to(tl.float32)
            if RELU:
                value = tl.maximum(value, 0.0)
            tap = c * (KERNEL * KERNEL) + down * KERNEL + right
            sums += value * tl.load(w + tap, mask=known, other=0.0).to(tl.float32)[None, :]
    at = p[:, None] * channels + c[None, :]
    kept = (p < positions)[:, None] & known[None, :]
    tl.store(result + at, sums.to(result.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=COUNTS)
def depthwise_operand_gradient(
    gradient: tl.tensor,
    w: tl.tensor,
    x: tl.tensor,
    result: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    positions: tl.tensor,
    size: tl.tensor,
    width: tl.tensor,
    result_height: tl.tensor,
    result_width: tl.tensor,
    channels: tl.tensor,
    padding: tl.tensor,
    dilation: tl.tensor,
    STRIDE: tl.constexpr,
    KERNEL: tl.constexpr,
    RELU: tl.constexpr,
    CLAMPED: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """result[p, c] = sum over taps of w[c, tap] · gradient[image, row, column, c], for each
    position of the operand; where RELU, 0 where x is not above 0; where CLAMPED, 0 where x is
    beyond the levels `low` to `high`, which are `scale` apart.

    gradient: (N, H', W', C), contiguous; x and result: (positions, C).
    """
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known, row, column = c < channels, p % size // width, p % size % width
    kept = (p < positions)[:, None] & known[None, :]
    image = (p // size) * (result_height * result_width)
    sums = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for down in range(KERNEL):
        y = row + padding - down * dilation
        within = (p < positions) & (y >= 0) & (y % STRIDE == 0) & (y // STRIDE < result_height)
        for right in tl.static_range(KERNEL):
            z = column + padding - right * dilation
            inside = within & (z >= 0) & (z % STRIDE == 0) & (z // STRIDE < result_width)
            source = (image + y // STRIDE * result_width + z // STRIDE)[:, None] * channels
            value = tl.load(
                gradient + source + c[None, :], mask=inside[:, None] & known[None, :], other=0.0
            )
            tap = c * (KERNEL * KERNEL) + down * KERNEL + right
            weight = tl.load(w + tap, mask=known, other=0.0).to(tl.float32)
            sums += value.to(tl.float32) * weight[None, :]
    at = p[:, None] * channels + c[None, :]
    if RELU:
        sums = tl.where(tl.load(x + at, mask=kept, other=0.0) > 0, sums, 0.0)
    if CLAMPED:
        bottom, top = (low - tl.load(zero)) * 1.0, (high - tl.load(zero)) * 1.0
        value = tl.load(x + at, mask=kept, other=0.0).to(tl.float32)
        level = _levels(value, tl.load(scale), bottom - 1.0, top + 1.0)
        sums = tl.where((level >= bottom) & (level <= top), sums, 0.0)
    tl.store(result + at, sums.to(result.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=COUNTS)
def depthwise_weight_gradient(
    gradient: tl.tensor,
    x: tl.tensor,
    result: tl.tensor,
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
    RELU: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """result[program, row of taps, tap, c] = sum of gradient[p, c] · x[…, c] over the program's
    positions, `turns` times POSITIONS; float32. Adding up the programs is left to the caller.
    """
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known, tap_row = c < channels, tl.program_id(2)
    # Five rows at most: one sum each, as a sum over positions is dear.
    s0 = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    s1, s2, s3, s4 = s0, s0, s0, s0
    for turn in range(turns):
        p = (tl.program_id(0) * turns + turn) * POSITIONS + tl.arange(0, POSITIONS)
        within = p < positions
        at = p[:, None] * channels + c[None, :]
        signal = tl.load(gradient + at, mask=within[:, None] & known[None, :], other=0.0)
        signal = signal.to(tl.float32)
        y = p % size // result_width * stride - padding + tap_row * dilation
        within = within & (y >= 0) & (y < height)
        start = p // size * (height * width) + y * width
        for tap in tl.static_range(KERNEL):
            z = p % size % result_width * stride - padding + tap * dilation
            inside = within & (z >= 0) & (z < width)
            source = (start + z)[:, None] * channels + c[None, :]
            value = tl.load(x + source, mask=inside[:, None] & known[None, :], other=0.0)
            value = value.to(tl.float32)
            if RELU:
                value = tl.maximum(value, 0.0)
            if tap == 0:
                s0 += value * signal
            elif tap == 1:
                s1 += value * signal
            elif tap == 2:
                s2 += value * signal
            elif tap == 3:
                s3 += value * signal
            else:
                s4 += value * signal
    first = (tl.program_id(0) * KERNEL + tap_row) * KERNEL
    for tap in tl.static_range(KERNEL):
        if tap == 0:
            sums = s0
        elif tap == 1:
            sums = s1
        elif tap == 2:
            sums = s2
        elif tap == 3:
            sums = s3
        else:
            sums = s4
        tl.store(result + (first + tap) * channels + c, tl.sum(sums, 0), mask=known)
