"""Triton kernels of a mixture's gradient: products of gradients and rows of u, weighed by v[w].

Activations become levels once, and each level selects a row of `GROUP` planes of u, a vector of
the gradient's type: no byte is turned to a real number. Sums are those of the matrix units, in
float32. Programs write what their share of the positions adds, which the caller sums up in a fixed
order.
"""

import os

import triton
import triton.language as tl

from .cuda_kernels import _levels

__all__ = ["depthwise_mixture", "lay_out_channels", "pointwise_plane_sums", "weigh_plane_sums"]

COUNTS = [
    "blocks", "copy", "dilation", "unit_copy", "unit_length", "unit_margin",
    "unit_size", "unit_width", "height", "high", "last", "level_blocks", "lines", "low", "margin",
    "multipliers",
    "padded_width", "padding", "places", "planes", "positions", "quarter", "result_height",
    "result_width", "shares", "shift", "size", "stride", "turns", "width",
]  # fmt: skip
GROUP: tl.constexpr = tl.constexpr(8)
INTERPRETED: tl.constexpr = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _add_product(a: tl.tensor, b: tl.tensor, sums: tl.tensor) -> tl.tensor:
    """sums + a @ b, in float32."""
    if INTERPRETED:  # which has no products of bfloat16
        sums += tl.dot(a.to(tl.float32), b.to(tl.float32))
    else:
        sums = tl.dot(a, b, sums, input_precision="tf32x3")
    return sums


@triton.jit
def _signals(
    gradient: tl.tensor,
    place: tl.tensor,
    c: tl.tensor,
    places: tl.tensor,
    size: tl.tensor,
    padded_width: tl.tensor,
    result_height: tl.tensor,
    result_width: tl.tensor,
    channels: tl.tensor,
    stride: tl.tensor,
) -> tl.tensor:
    """(channels, places): the gradient of each place, zero where it has none."""
    image, row, column = place // size, place % size // padded_width, place % size % padded_width
    y, z = row // stride, column // stride
    known = (place >= 0) & (place < places) & (row % stride == 0) & (column % stride == 0)
    known = known & (y < result_height) & (z < result_width)
    source = (image * (result_height * result_width) + y * result_width + z)[:, None] * channels
    inside = known[:, None] & (c < channels)[None, :]
    return tl.trans(tl.load(gradient + source + c[None, :], mask=inside, other=0.0))


@triton.jit(do_not_specialize=COUNTS)
def lay_out_channels(
    gradient: tl.tensor,
    x: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    levels: tl.tensor,
    signals: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    places: tl.tensor,
    blocks: tl.tensor,
    level_blocks: tl.tensor,
    margin: tl.tensor,
    copy: tl.tensor,
    size: tl.tensor,
    padded_width: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    result_height: tl.tensor,
    result_width: tl.tensor,
    channels: tl.tensor,
    stride: tl.tensor,
    padding: tl.tensor,
    PADDED: tl.constexpr,
    STEP: tl.constexpr,
    PLACES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """signals (2, copy): of each channel the places of the padded images one after the other,
    `size` each, `places` in all, then zeros up to `blocks` · PLACES. levels, bytes (C,
    `level_blocks` · PLACES): where PADDED likewise, otherwise the places of the images without
    their padding, which fill whole blocks.

    x (N, H, W, C), gradient (N, H', W', C), contiguous. A value of the gradient lies at the place
    of its first tap, so that another tap is as many places further as the tap is from the first;
    all other places are zero. The first copy begins with `margin` zeros, the second with STEP more,
    which are the zeros at the end of the channel before; margin and copy in units of 16.
    """
    block = tl.program_id(0)
    place = block * PLACES + tl.arange(0, PLACES)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    kept = tl.broadcast_to((c < channels)[:, None], (CHANNELS, PLACES))
    if block < level_blocks:
        if PADDED:
            row, column = place % size // padded_width - padding, place % padded_width - padding
            within = (place < places) & (row >= 0) & (row < height) & (column >= 0)
            within = within & (column < width)
            start = place // size * (height * width) + row * width + column
        else:
            start, within = place, place >= 0
        source = start[:, None] * channels + c[None, :]
        inside = within[:, None] & (c < channels)[None, :]
        value = tl.load(x + source, mask=inside, other=0.0).to(tl.float32)
        point = tl.load(zero)
        level = _levels(value, tl.load(scale), (low - point) * 1.0, (high - point) * 1.0)
        pattern = tl.trans((level.to(tl.int32) + point).to(tl.int8))
        at = c[:, None] * (level_blocks * PLACES) + place[None, :]
        tl.store(levels + at, pattern, mask=kept)
    at = margin * 16 + c[:, None] * (blocks * PLACES) + place[None, :]
    signal = _signals(
        gradient, place, c, places, size, padded_width, result_height, result_width, channels,
        stride,
    )  # fmt: skip
    tl.store(signals + at, signal, mask=kept)
    # Loaded anew rather than stored at places that are no multiples of a vector.
    signal = _signals(
        gradient, place - STEP, c, places, size, padded_width, result_height, result_width,
        channels, stride,
    )  # fmt: skip
    tl.store(signals + copy * 16 + at, signal, mask=kept)
    if block + tl.program_id(1) == 0:
        for begin in range(0, margin * 16, PLACES):
            before = begin + tl.arange(0, PLACES)
            none = tl.zeros((PLACES,), signals.dtype.element_ty)
            tl.store(signals + before, none, mask=before < margin * 16)
            tl.store(signals + copy * 16 + before, none, mask=before < margin * 16)


@triton.jit
def _scale(
    largest: tl.tensor, given: tl.tensor, high: tl.tensor, smallest: tl.tensor, GIVEN: tl.constexpr
) -> tl.tensor:
    """Of weights, as `prepare_weights` has it; `given`: where that lies, if it is given."""
    return tl.load(given) if GIVEN else tl.maximum(tl.div_rn(largest, high * 1.0), smallest)


@triton.jit
def _weigh(
    sums: tl.tensor, v: tl.tensor, result: tl.tensor, multipliers: tl.tensor, step: tl.tensor
) -> None:
    """result[m] = sum of sums · v, by pointers, those of the next multiplier `step` further."""
    for start in range(0, multipliers, GROUP):
        m = start + tl.arange(0, GROUP)
        at = v[None, :, :] + (m * step)[:, None, None]
        factor = tl.load(at, mask=(m < multipliers)[:, None, None], other=0.0)
        total = tl.sum(tl.sum(factor * sums[None, :, :], 2), 1)
        tl.store(result + m, total, mask=m < multipliers)


@triton.jit(do_not_specialize=COUNTS)
def depthwise_mixture(
    levels: tl.tensor,
    signals: tl.tensor,
    u: tl.tensor,
    v: tl.tensor,
    w: tl.tensor,
    given: tl.tensor,
    x_scale: tl.tensor,
    parts: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    smallest: tl.tensor,
    unit_margin: tl.tensor,
    unit_copy: tl.tensor,
    unit_length: tl.tensor,
    unit_size: tl.tensor,
    unit_width: tl.tensor,
    shift: tl.tensor,
    dilation: tl.tensor,
    last: tl.tensor,
    turns: tl.tensor,
    quarter: tl.tensor,
    multipliers: tl.tensor,
    planes: tl.tensor,
    KERNEL: tl.constexpr,
    GIVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TAPS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    UNIT: tl.constexpr,
    STEP: tl.constexpr,
    PLACES: tl.constexpr,
) -> None:
    """parts[group of planes, channel, share, m]: what a channel's share of the places adds.

    levels, signals: as `lay_out_channels` leaves them, `last` · PLACES levels a channel; HEIGHT and
    WIDTH of images without padding, powers of two (0: levels lie as the signals do); the signals'
    margin, copy, channel, image and row in units of UNIT values; `shift`: places from the first of
    a padded image to the first within its padding, if levels lie without. u (groups, ROWS, GROUP)
    of the type of signals, a group in `quarter` · 4 values: so its rows are known to lie at
    multiples of 4 alone and are not copied 16 bytes at a time, which would pass by the first cache.
    v float32 (multipliers, COLUMNS, planes); w (C, taps), quantised by `given` or by its largest
    magnitude.
    """
    share, c, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    tap, plane = tl.arange(0, TAPS), tl.arange(0, GROUP)
    known = tap < KERNEL * KERNEL
    back = (tap // KERNEL * unit_width * UNIT + tap % KERNEL) * dilation - shift
    # What is beyond whole units is from 0 to STEP: the second copy, which lies as much further.
    beyond = back & (UNIT - 1)
    before = unit_margin + c * unit_length + beyond // STEP * unit_copy - (back - beyond) // UNIT
    signal_start, level_start = signals + (before * UNIT)[:, None], levels + c * last * PLACES
    row_start = u + group * quarter * 4 + plane[None, :]
    sums = tl.zeros((TAPS, GROUP), tl.float32)
    for turn in range(share * turns, tl.minimum(last, share * turns + turns)):
        place = turn * PLACES + tl.arange(0, PLACES)
        pattern = tl.load(level_start + place).to(tl.int32) & (ROWS - 1)
        row = tl.load(row_start + pattern[:, None] * GROUP)
        if WIDTH > 0:
            line = place // WIDTH
            units = line // HEIGHT * unit_size + line % HEIGHT * unit_width
            place = units * UNIT + place % WIDTH
        signal = tl.load(signal_start + place[None, :], mask=known[:, None], other=0.0)
        sums = _add_product(signal, row, sums)
    weight = tl.load(w + c * (KERNEL * KERNEL) + tap, mask=known, other=0.0).to(tl.float32)
    scale = _scale(tl.max(tl.abs(weight)), given + c, high, smallest, GIVEN)
    level = _levels(weight, scale, low * 1.0, high * 1.0).to(tl.int32) & (COLUMNS - 1)
    sums = tl.where(known[:, None], sums, 0.0) * (scale * tl.load(x_scale))
    result = parts + ((group * tl.num_programs(1) + c) * tl.num_programs(0) + share) * multipliers
    _weigh(
        sums, v + level[:, None] * planes + (group * GROUP + plane)[None, :], result, multipliers,
        COLUMNS * planes,
    )  # fmt: skip


@triton.jit
def _columns(rows: tl.tensor, POSITIONS: tl.constexpr, COLUMNS: tl.constexpr) -> tl.tensor:
    """(COLUMNS, POSITIONS) of values by pointers (POSITIONS, channels, planes)."""
    return tl.trans(tl.reshape(tl.load(rows), (POSITIONS, COLUMNS)))


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
    """parts[share, group of planes, half of it, c · GROUP / 2 + plane, o]: 1×1, no padding.

    gradient (positions, O), x (N, H, W, C), contiguous; u as for `depthwise_mixture`.
    """
    share, block, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c, o = block * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, OUTPUTS)
    point, step = tl.load(zero), tl.load(scale)
    bottom, top = (low - point) * 1.0, (high - point) * 1.0
    HALF: tl.constexpr = GROUP // 2
    row_start = u + group * ROWS * GROUP + tl.arange(0, HALF)[None, None, :]
    lower = tl.zeros((CHANNELS * HALF, OUTPUTS), tl.float32)
    upper = tl.zeros((CHANNELS * HALF, OUTPUTS), tl.float32)
    for turn in range(turns):
        p = (share * turns + turn) * POSITIONS + tl.arange(0, POSITIONS)
        within = (p < positions)[:, None]
        at = p[:, None] * outputs + o[None, :]
        signal = tl.load(gradient + at, mask=within & (o < outputs)[None, :], other=0.0)
        y, z = p % size // result_width * stride, p % size % result_width * stride
        source = (p // size * (height * width) + y * width + z)[:, None] * channels + c[None, :]
        value = tl.load(x + source, mask=within & (c < channels)[None, :], other=0.0)
        level = _levels(value.to(tl.float32), step, bottom, top)
        pattern = (level.to(tl.int32) + point) & (ROWS - 1)
        row = row_start + pattern[:, :, None] * GROUP
        lower = _add_product(_columns(row, POSITIONS, CHANNELS * HALF), signal, lower)
        upper = _add_product(_columns(row + HALF, POSITIONS, CHANNELS * HALF), signal, upper)
    line = block * CHANNELS * HALF + tl.arange(0, CHANNELS * HALF)
    start = (share * tl.num_programs(2) + group) * (channels * GROUP)
    kept = (line < channels * HALF)[:, None] & (o < outputs)[None, :]
    at = parts + (start + line)[:, None] * outputs + o[None, :]
    tl.store(at, lower, mask=kept)
    tl.store(at + channels * HALF * outputs, upper, mask=kept)


@triton.jit(do_not_specialize=COUNTS)
def weigh_plane_sums(
    sums: tl.tensor,
    v: tl.tensor,
    w: tl.tensor,
    given: tl.tensor,
    x_scale: tl.tensor,
    parts: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    smallest: tl.tensor,
    shares: tl.tensor,
    lines: tl.tensor,
    channels: tl.tensor,
    outputs: tl.tensor,
    multipliers: tl.tensor,
    planes: tl.tensor,
    GIVEN: tl.constexpr,
    COLUMNS: tl.constexpr,
    SHARES: tl.constexpr,
    LINES: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """parts[program, m]: what LINES lines of the plane sums of a 1×1 layer add, all shares of them.

    sums (shares, lines, O): as `pointwise_plane_sums` leaves them; v as for `depthwise_mixture`;
    w (O, C), quantised by `given` or by the largest magnitude of each output.
    """
    line = tl.program_id(0) * LINES + tl.arange(0, LINES)
    o, share = tl.arange(0, OUTPUTS), tl.arange(0, SHARES)
    inside = (line < lines)[:, None] & (o < outputs)[None, :]
    at = (line[:, None] * outputs + o[None, :])[None, :, :]
    total = tl.zeros((SHARES, LINES, OUTPUTS), tl.float32)
    for start in range(0, shares, SHARES):
        place = (start + share)[:, None, None]
        within = inside[None, :, :] & (place < shares)
        total += tl.load(sums + place * (lines * outputs) + at, mask=within, other=0.0)
    largest = tl.zeros((OUTPUTS,), tl.float32)
    if not GIVEN:
        for start in range(0, channels, 16):
            c = start + tl.arange(0, 16)
            within = (c < channels)[:, None] & (o < outputs)[None, :]
            weight = tl.load(w + c[:, None] + o[None, :] * channels, mask=within, other=0.0)
            largest = tl.maximum(largest, tl.max(tl.abs(weight.to(tl.float32)), 0))
    scale = _scale(largest, given + tl.minimum(o, outputs - 1), high, smallest, GIVEN)
    HALF: tl.constexpr = GROUP // 2
    c, plane = line // HALF % channels, line // (HALF * channels) * HALF + line % HALF
    weight = tl.load(w + c[:, None] + o[None, :] * channels, mask=inside, other=0.0)
    level = _levels(weight.to(tl.float32), scale[None, :], low * 1.0, high * 1.0)
    column = level.to(tl.int32) & (COLUMNS - 1)
    scaled = tl.sum(total, 0) * (scale * tl.load(x_scale))[None, :]
    result = parts + tl.program_id(0) * multipliers
    start = v + tl.where(inside, column * planes + plane[:, None], 0)
    _weigh(scaled, start, result, multipliers, COLUMNS * planes)
