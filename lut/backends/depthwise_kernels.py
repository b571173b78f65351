"""Triton kernels of exact depthwise convolutions, channels last: the result and both gradients.

A strip is four neighbouring places of a row, of the result, or of the operand in the gradient of
the operand: what several of them read is read once. Every output channel has one input channel,
its own; channels are counted in units of ALIGN. Where RELU, the operand is rectified first.
"""

import triton
import triton.language as tl

from .cuda_kernels import _levels, _one_of_four

# Not compiled anew for their values.
COUNTS = [
    "strips", "row_strips", "result_height", "result_width", "height", "width", "padding",
    "aligned_channels", "turns", "low", "high",
]  # fmt: skip

__all__ = ["depthwise", "depthwise_operand_gradient", "depthwise_weight_gradient"]


@triton.jit
def _row(
    first: tl.tensor, step: tl.tensor, known: tl.tensor, COUNT: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Up to five rows of values, `step` apart, as float32."""
    a = tl.load(first, mask=known, other=0.0).to(tl.float32)
    b, c, d, e = a, a, a, a
    if COUNT > 1:
        b = tl.load(first + step, mask=known, other=0.0).to(tl.float32)
    if COUNT > 2:
        c = tl.load(first + 2 * step, mask=known, other=0.0).to(tl.float32)
    if COUNT > 3:
        d = tl.load(first + 3 * step, mask=known, other=0.0).to(tl.float32)
    if COUNT > 4:
        e = tl.load(first + 4 * step, mask=known, other=0.0).to(tl.float32)
    return a, b, c, d, e


@triton.jit
def _values(
    x: tl.tensor,
    start: tl.tensor,
    column: tl.tensor,
    width: tl.tensor,
    within: tl.tensor,
    c: tl.tensor,
    known: tl.tensor,
    channels: tl.tensor,
    RELU: tl.constexpr,
) -> tl.tensor:
    """Channels of places `column` of rows that begin at place `start`, as float32; zero outside."""
    inside = (within & (column >= 0) & (column < width))[:, None] & known[None, :]
    source = (start + column)[:, None] * channels + c[None, :]
    value = tl.load(x + source, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        value = tl.maximum(value, 0.0)
    return value


@triton.jit
def _tap(
    sums: tl.tensor,
    value: tl.tensor,
    a: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    d: tl.tensor,
    e: tl.tensor,
    DISTANCE: tl.constexpr,
    DILATION: tl.constexpr,
    KERNEL: tl.constexpr,
) -> tl.tensor:
    """sums + value · weight of the tap that lies DISTANCE from the first, if there is one."""
    if DISTANCE >= 0 and DISTANCE % DILATION == 0 and DISTANCE // DILATION < KERNEL:
        if DISTANCE // DILATION == 0:
            sums += value * a
        elif DISTANCE // DILATION == 1:
            sums += value * b
        elif DISTANCE // DILATION == 2:
            sums += value * c
        elif DISTANCE // DILATION == 3:
            sums += value * d
        else:
            sums += value * e
    return sums


@triton.jit(do_not_specialize=COUNTS)
def depthwise(
    x: tl.tensor,
    w: tl.tensor,
    result: tl.tensor,
    strips: tl.tensor,
    row_strips: tl.tensor,
    result_height: tl.tensor,
    result_width: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    aligned_channels: tl.tensor,
    padding: tl.tensor,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    KERNEL: tl.constexpr,
    RELU: tl.constexpr,
    ALIGN: tl.constexpr,
    STRIPS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """result[p, c] = sum over taps of w[tap, c] · x[image, row, column, c]; sums in float32.

    x: (N, H, W, C), contiguous; w: (taps, C); result: (N, H', W', C).
    """
    strip = tl.program_id(0) * STRIPS + tl.arange(0, STRIPS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    channels = aligned_channels * ALIGN
    known, line, column = c < channels, strip // row_strips, strip % row_strips * 4
    image, row = line // result_height, line % result_height
    s0 = tl.zeros((STRIPS, CHANNELS), tl.float32)
    s1, s2, s3 = s0, s0, s0
    for down in range(KERNEL):
        w0, w1, w2, w3, w4 = _row(w + down * KERNEL * channels + c, channels, known, KERNEL)
        y = row * STRIDE - padding + down * DILATION
        within = (strip < strips) & (y >= 0) & (y < height)
        for beyond in tl.static_range(3 * STRIDE + (KERNEL - 1) * DILATION + 1):
            if beyond % 2 == 0 or STRIDE % 2 == 1 or DILATION % 2 == 1:
                z, line_start = column * STRIDE - padding + beyond, (image * height + y) * width
                value = _values(x, line_start, z, width, within, c, known, channels, RELU)
                s0 = _tap(s0, value, w0, w1, w2, w3, w4, beyond, DILATION, KERNEL)
                s1 = _tap(s1, value, w0, w1, w2, w3, w4, beyond - STRIDE, DILATION, KERNEL)
                s2 = _tap(s2, value, w0, w1, w2, w3, w4, beyond - 2 * STRIDE, DILATION, KERNEL)
                s3 = _tap(s3, value, w0, w1, w2, w3, w4, beyond - 3 * STRIDE, DILATION, KERNEL)
    at = result + (line * result_width + column)[:, None] * channels + c[None, :]
    for place in tl.static_range(4):
        sums = _one_of_four(s0, s1, s2, s3, place)
        kept = ((strip < strips) & (column + place < result_width))[:, None] & known[None, :]
        tl.store(at + place * channels, sums.to(result.dtype.element_ty), mask=kept)


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
    strips: tl.tensor,
    row_strips: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    result_height: tl.tensor,
    result_width: tl.tensor,
    aligned_channels: tl.tensor,
    padding: tl.tensor,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    KERNEL: tl.constexpr,
    RELU: tl.constexpr,
    CLAMPED: tl.constexpr,
    ALIGN: tl.constexpr,
    STRIPS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """result[p, c] = sum over taps of w[tap, c] · gradient[image, row, column, c], for each
    position of the operand; where RELU, 0 where x is not above 0; where CLAMPED, 0 where x is
    beyond the levels `low` to `high`, which are `scale` apart.

    gradient: (N, H', W', C), contiguous; w: (taps, C); x and result: (N, H, W, C).
    """
    strip = tl.program_id(0) * STRIPS + tl.arange(0, STRIPS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    channels = aligned_channels * ALIGN
    known, line, column = c < channels, strip // row_strips, strip % row_strips * 4
    image, row = line // height, line % height
    LAST: tl.constexpr = (KERNEL - 1) * DILATION
    s0 = tl.zeros((STRIPS, CHANNELS), tl.float32)
    s1, s2, s3 = s0, s0, s0
    for down in range(KERNEL):
        w0, w1, w2, w3, w4 = _row(w + down * KERNEL * channels + c, channels, known, KERNEL)
        y = row + padding - down * DILATION
        within = (strip < strips) & (y >= 0) & (y % STRIDE == 0) & (y // STRIDE < result_height)
        for beyond in tl.static_range(LAST + 4):
            z = column + padding - LAST + beyond
            whole, line_start = within & (z >= 0) & (z % STRIDE == 0), y // STRIDE * result_width
            line_start += image * (result_height * result_width)
            value = _values(
                gradient, line_start, z // STRIDE, result_width, whole, c, known, channels, False
            )
            s0 = _tap(s0, value, w0, w1, w2, w3, w4, LAST - beyond, DILATION, KERNEL)
            s1 = _tap(s1, value, w0, w1, w2, w3, w4, LAST + 1 - beyond, DILATION, KERNEL)
            s2 = _tap(s2, value, w0, w1, w2, w3, w4, LAST + 2 - beyond, DILATION, KERNEL)
            s3 = _tap(s3, value, w0, w1, w2, w3, w4, LAST + 3 - beyond, DILATION, KERNEL)
    first = (line * width + column)[:, None] * channels + c[None, :]
    for place in tl.static_range(4):
        sums, at = _one_of_four(s0, s1, s2, s3, place), first + place * channels
        kept = ((strip < strips) & (column + place < width))[:, None] & known[None, :]
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
    strips: tl.tensor,
    row_strips: tl.tensor,
    result_height: tl.tensor,
    result_width: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    aligned_channels: tl.tensor,
    padding: tl.tensor,
    turns: tl.tensor,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    KERNEL: tl.constexpr,
    RELU: tl.constexpr,
    ALIGN: tl.constexpr,
    STRIPS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """result[program, row of taps, tap, c] = sum of gradient[p, c] · x[…, c] over the program's
    strips, `turns` times STRIPS; float32. Adding up the programs is left to the caller.
    """
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    channels = aligned_channels * ALIGN
    known, tap_row = c < channels, tl.program_id(2)
    # Five taps at most: one sum each, as a sum over positions is dear.
    s0 = tl.zeros((STRIPS, CHANNELS), tl.float32)
    s1, s2, s3, s4 = s0, s0, s0, s0
    for turn in range(turns):
        strip = (tl.program_id(0) * turns + turn) * STRIPS + tl.arange(0, STRIPS)
        line, column = strip // row_strips, strip % row_strips * 4
        image, row = line // result_height, line % result_height
        first = gradient + (line * result_width + column)[:, None] * channels + c[None, :]
        y = row * STRIDE - padding + tap_row * DILATION
        within = (strip < strips) & (y >= 0) & (y < height)
        there = within[:, None] & known[None, :]
        last = (result_width - column)[:, None]
        g0 = tl.load(first, mask=there, other=0.0).to(tl.float32)
        g1 = tl.load(first + channels, mask=there & (last > 1), other=0.0).to(tl.float32)
        g2 = tl.load(first + 2 * channels, mask=there & (last > 2), other=0.0).to(tl.float32)
        g3 = tl.load(first + 3 * channels, mask=there & (last > 3), other=0.0).to(tl.float32)
        for beyond in tl.static_range(3 * STRIDE + (KERNEL - 1) * DILATION + 1):
            if beyond % 2 == 0 or STRIDE % 2 == 1 or DILATION % 2 == 1:
                z, line_start = column * STRIDE - padding + beyond, (image * height + y) * width
                value = _values(x, line_start, z, width, within, c, known, channels, RELU)
                s0 = _tap(s0, value, g0, g1, g2, g3, g3, beyond, STRIDE, 4)
                if KERNEL > 1:
                    s1 = _tap(s1, value, g0, g1, g2, g3, g3, beyond - DILATION, STRIDE, 4)
                if KERNEL > 2:
                    s2 = _tap(s2, value, g0, g1, g2, g3, g3, beyond - 2 * DILATION, STRIDE, 4)
                if KERNEL > 3:
                    s3 = _tap(s3, value, g0, g1, g2, g3, g3, beyond - 3 * DILATION, STRIDE, 4)
                if KERNEL > 4:
                    s4 = _tap(s4, value, g0, g1, g2, g3, g3, beyond - 4 * DILATION, STRIDE, 4)
    at = result + (tl.program_id(0) * KERNEL + tap_row) * KERNEL * channels + c
    tl.store(at, tl.sum(s0, 0), mask=known)
    for tap in tl.static_range(1, KERNEL):
        tl.store(at + tap * channels, tl.sum(_one_of_four(s1, s2, s3, s4, tap - 1), 0), mask=known)
