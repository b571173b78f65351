"""Triton kernels of emulated convolutions: operands laid out, convolved, rescaled.

Names of sizes: positions are the N·H'·W' places of the result, in that order; a place is one pixel
of the padded images. Images are laid out as (N, Hp, Wp, step) bytes, padding included, `step`
bytes a place. `step`s are multiples of 16. Rounding is that of ONNX ``QuantizeLinear``.
"""

import os

import triton
import triton.language as tl

__all__ = [
    "convolve_planes",
    "convolve_pointwise",
    "depthwise_columns",
    "depthwise_planes",
    "depthwise_quads",
    "expand_activations",
    "finish_sums",
    "lay_out_rows",
    "mix_columns",
    "mixed_pointwise",
    "observe_largest",
    "prepare_weights",
    "row_convolution",
    "through_quantiser",
]

# Sizes and steps that no access is aligned by: a kernel is not compiled anew for their values.
COUNTS = [
    "aligned_channels", "aligned_outputs", "begin", "beyond", "bias", "blocks", "channel_size",
    "channels", "column_step", "depth_blocks", "four_step", "group_blocks",
    "group_outputs", "group_step", "groups", "height", "high", "image", "image_step",
    "kernel_width", "last_channels", "last_planes", "left", "length", "low", "multipliers",
    "output_step", "outputs", "padded_rows", "padded_size", "padded_width",
    "places", "plane_output_step", "plane_step",
    "plane_tap_step", "positions", "programs", "quads", "rank", "row_quads", "row_step",
    "share", "size", "table_columns", "tap_column_step", "tap_row_step", "tap_step",
    "tap_words", "taps", "top", "turns", "wide", "width",
]  # fmt: skip
ROUNDING: tl.constexpr = tl.constexpr(12582912.0)  # 1.5 · 2**23: adding it rounds, half to even
LARGEST_FIXED: tl.constexpr = tl.constexpr(32639)  # 127 · 256 + 127: two signed bytes
INTERPRETED: tl.constexpr = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _ratio(value: tl.tensor, divisor: tl.tensor, reciprocal: tl.tensor) -> tl.tensor:
    """value / divisor, correctly rounded, for the correctly rounded reciprocal of the divisor.

    Two of Markstein's steps: the first makes a faithful quotient, the second the rounded one
    (Muller et al., Handbook of Floating-Point Arithmetic, 2nd ed., section 4.7). A third of the
    instructions of a division.
    """
    if INTERPRETED:  # whose fma rounds twice
        quotient = tl.div_rn(value, divisor)
    else:
        quotient = value * reciprocal
        quotient = tl.fma(tl.fma(-divisor, quotient, value), reciprocal, quotient)
        quotient = tl.fma(tl.fma(-divisor, quotient, value), reciprocal, quotient)
    return quotient


@triton.jit
def _levels(value: tl.tensor, scale: tl.tensor, low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """clamp(round(value / scale), low, high) as float32.

    Clamped first, among real values, which is the same: (low · scale) / scale rounds to low.
    """
    value = tl.minimum(tl.maximum(value, low * scale), high * scale)
    return (_ratio(value, scale, tl.div_rn(1.0, scale)) + ROUNDING) - ROUNDING


@triton.jit
def _one_of_four(
    a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor, WHICH: tl.constexpr
) -> tl.tensor:
    if WHICH == 0:
        one = a
    elif WHICH == 1:
        one = b
    elif WHICH == 2:
        one = c
    else:
        one = d
    return one


@triton.jit
def _dot4(x: tl.tensor, w: tl.tensor, sums: tl.tensor) -> tl.tensor:
    """sums + the four products of the signed bytes of x and w."""
    if INTERPRETED:
        for byte in tl.static_range(4):
            left = (x << (24 - 8 * byte)) >> 24
            sums += left * ((w << (24 - 8 * byte)) >> 24)
    else:
        sums = tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [x, w, sums], tl.int32, True, 1
        )
    return sums


@triton.jit(do_not_specialize=COUNTS)
def expand_activations(
    x: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    u: tl.tensor,
    planes: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    places: tl.tensor,
    padded_width: tl.tensor,
    padded_size: tl.tensor,
    top: tl.tensor,
    left: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    image_step: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    channel_step: tl.tensor,
    aligned_channels: tl.tensor,
    group_blocks: tl.tensor,
    group_channels: tl.tensor,
    step: tl.tensor,
    QUANTISE: tl.constexpr,
    PLAIN: tl.constexpr,
    ROWS: tl.constexpr,
    COUNT: tl.constexpr,
    ORDER: tl.constexpr,
    ALIGN: tl.constexpr,
    PLACES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """planes: u[x] of all planes of all places, padding included.

    x: real (QUANTISE; scale and zero point by pointer) or bit patterns; its steps and its channels
    (of a group) are in units of ALIGN, but for the step of a channel. u: int32 (words, ROWS), four
    signed bytes each, the first plane lowest; PLAIN: the pattern itself is the only plane. ORDER
    "bytes": (place, group, words of four planes, channel), then the planes left over, int8 each;
    "words": int32 (place, word, channel); "channels": PLAIN alone, bytes (channel, place). Channels
    of a group are padded to `group_channels`, where contents are arbitrary; `step`: items of a
    place, or sixteenths of those of a channel. `planes` int32, but int8 where PLAIN.
    """
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    group = tl.program_id(1) // group_blocks
    channel = tl.program_id(1) % group_blocks * CHANNELS + tl.arange(0, CHANNELS)
    channels = aligned_channels * ALIGN
    image = place // padded_size
    inner = place % padded_size
    row = inner // padded_width - top
    column = inner % padded_width - left
    known = (place < places) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    at = image.to(tl.int64) * image_step + row * row_step + column * column_step
    at = (at * ALIGN)[:, None] + ((group * channels + channel) * channel_step)[None, :]
    inside = known[:, None] & (channel < channels)[None, :]
    point = tl.load(zero)
    if QUANTISE:
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        level = _levels(value, tl.load(scale), (low - point) * 1.0, (high - point) * 1.0)
        pattern = (level.to(tl.int32) + point) & (ROWS - 1)
    else:
        pattern = tl.load(x + at, mask=inside, other=0).to(tl.int32)
        pattern = tl.where(known[:, None], pattern, point) & (ROWS - 1)
    kept = (place < places)[:, None] & (channel < group_channels)[None, :]
    if ORDER == "channels":
        target = place[:, None] + (channel.to(tl.int64) * (step * 16))[None, :]
        kept = (place < step * 16)[:, None] & (channel < group_channels)[None, :]
        tl.store(planes + target, pattern.to(tl.int8), mask=kept)
    else:
        start = place.to(tl.int64) * step
        if ORDER == "bytes":
            start += group * (COUNT * group_channels)
        if PLAIN:
            target = start[:, None] + channel[None, :]
            tl.store(planes + target, pattern.to(tl.int8), mask=kept)
        else:
            flat = tl.reshape(pattern, (PLACES * CHANNELS,))
            wide = start // 4 if ORDER == "bytes" else start
            wide = tl.multiple_of(wide, 4)
            for word in tl.static_range((COUNT + 3) // 4):
                values = tl.load(u + word * ROWS + tl.arange(0, ROWS))
                packed = tl.reshape(tl.gather(values, flat, 0), (PLACES, CHANNELS))
                at = word * group_channels
                if ORDER == "words" or COUNT - 4 * word >= 4:
                    target = wide[:, None] + (at + channel)[None, :]
                    tl.store(planes + target, packed, mask=kept)
                else:
                    narrow = planes.to(tl.pointer_type(tl.int8), bitcast=True)
                    for part in tl.static_range(COUNT - 4 * word):
                        byte = (packed >> (8 * part)).to(tl.int8)
                        target = tl.multiple_of(start, 16)[:, None] + channel[None, :]
                        target += 4 * at + part * group_channels
                        tl.store(narrow + target, byte, mask=kept)


@triton.jit
def _mixed_factors(
    v: tl.tensor,
    mixture: tl.tensor,
    pattern: tl.tensor,
    inside: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    COLUMNS: tl.constexpr,
    MULTIPLIERS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Mixed v[w] of four planes, those from `count` on zero: all is loaded before any is stored."""
    f0 = tl.zeros(pattern.shape, tl.float32)
    f1, f2, f3 = f0, f0, f0
    for m in tl.static_range(MULTIPLIERS):
        weight = tl.load(mixture + m)
        factors = v + (m * count + first) * COLUMNS + pattern
        f0 += weight * tl.load(factors, mask=inside, other=0.0)
        f1 += weight * tl.load(factors + COLUMNS, mask=inside & (first + 1 < count), other=0.0)
        f2 += weight * tl.load(factors + 2 * COLUMNS, mask=inside & (first + 2 < count), other=0.0)
        f3 += weight * tl.load(factors + 3 * COLUMNS, mask=inside & (first + 3 < count), other=0.0)
    return f0, f1, f2, f3


@triton.jit
def _fixed_unit(
    mixture: tl.tensor, basis_unit: tl.tensor, MULTIPLIERS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The unit of mixed factors, a power of two, and its reciprocal: `basis_unit`, which suffices
    where the weights' magnitudes add up to 1, times what they add up to, rounded up to a power of
    two; less than a part in 2**16 of it is taken for rounding.
    """
    total = 0.0
    for m in tl.static_range(MULTIPLIERS):
        total += tl.abs(tl.load(mixture + m))
    total = tl.maximum(total * (1.0 - 1.0 / 65536), 1e-20)
    bits = (total.to(tl.int32, bitcast=True) + 0x7FFFFF) & 0x7F800000
    unit = bits.to(tl.float32, bitcast=True) * basis_unit
    return unit, tl.div_rn(1.0, unit)


@triton.jit
def _fixed_words(
    v: tl.tensor,
    mixture: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    units: tl.tensor,
    COLUMNS: tl.constexpr,
    MULTIPLIERS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Mixed v of four planes and every column, times `units` and rounded, as 256 · high + low:
    int32 (COLUMNS,) each, four signed bytes, the first plane lowest.
    """
    column = tl.arange(0, COLUMNS)
    f0, f1, f2, f3 = _mixed_factors(
        v, mixture, column, column >= 0, first, count, COLUMNS, MULTIPLIERS
    )
    high, low = tl.zeros((COLUMNS,), tl.int32), tl.zeros((COLUMNS,), tl.int32)
    for lane in tl.static_range(4):
        factor = _one_of_four(f0, f1, f2, f3, lane) * units
        factor = tl.minimum(tl.maximum(factor, -1.0 * LARGEST_FIXED), 1.0 * LARGEST_FIXED)
        fixed = ((factor + ROUNDING) - ROUNDING).to(tl.int32)
        high |= (((fixed + 128) >> 8) & 255) << (8 * lane)
        low |= (fixed & 255) << (8 * lane)
    return high, low


@triton.jit
def _looked_up(words: tl.tensor, pattern: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """words[pattern], zero where not inside."""
    flat = tl.reshape(pattern, (pattern.shape[0] * pattern.shape[1],))
    return tl.where(inside, tl.reshape(tl.gather(words, flat, 0), pattern.shape), 0)


@triton.jit(do_not_specialize=COUNTS)
def prepare_weights(
    w: tl.tensor,
    given: tl.tensor,
    v: tl.tensor,
    v_words: tl.tensor,
    mixture: tl.tensor,
    planes: tl.tensor,
    rest: tl.tensor,
    unit: tl.tensor,
    patterns: tl.tensor,
    real: tl.tensor,
    scales: tl.tensor,
    sums: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    smallest: tl.tensor,
    basis_unit: tl.tensor,
    aligned_channels: tl.tensor,
    taps: tl.tensor,
    output_step: tl.tensor,
    tap_step: tl.tensor,
    channel_step: tl.tensor,
    group_outputs: tl.tensor,
    padded_outputs: tl.tensor,
    group_channels: tl.tensor,
    last_channels: tl.tensor,
    last_planes: tl.tensor,
    wide: tl.tensor,
    plane_output_step: tl.tensor,
    plane_tap_step: tl.tensor,
    four_step: tl.tensor,
    plane_step: tl.tensor,
    planes_count: tl.tensor,
    QUANTISE: tl.constexpr,
    GIVEN: tl.constexpr,
    COLUMNS: tl.constexpr,
    MULTIPLIERS: tl.constexpr,
    PLANES: tl.constexpr,
    PATTERNS: tl.constexpr,
    REAL: tl.constexpr,
    ALIGN: tl.constexpr,
    PLANE_ALIGN: tl.constexpr,
    TAPS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """One output channel of w: scale, integer levels, and v[w] as planes.

    w: real (QUANTISE) or bit patterns, (O, channels, taps) by the steps given; channels and steps
    but that of a channel in units of ALIGN. scales (O,): largest magnitude / high, at least
    `smallest`; or GIVEN. patterns: uint8 (O, channels, taps); real: scale · level as its own type,
    by w's steps; sums int32 (O,): of levels. PLANES 1: v[w] at row · plane_output_step + tap ·
    plane_tap_step + plane // 4 · four_step, and there, for planes below `wide`, at channel · 4 +
    plane % 4 (from v_words, int32, of four planes each), else at plane % 4 · plane_step + channel;
    zero for channels from the last up to `group_channels`, from plane `last_planes` on up to
    `last_channels`; rows are outputs, those of a group padded; steps and numbers of channels here
    in units of PLANE_ALIGN. 2: likewise, `planes` + `rest` being the float v[w], weighed by
    `mixture` and summed over MULTIPLIERS, of v (MULTIPLIERS, planes, COLUMNS); 3: without the
    `rest`; 4: likewise, but the float v[w] is `unit` · (256 · high + low), int8, an output's row of
    high before that of low (`unit`: float32 (1,), as ``_fixed_unit`` says); 0: none.
    """
    output = tl.program_id(0)
    tap, column = tl.arange(0, TAPS)[:, None], tl.arange(0, CHANNELS)[None, :]
    channels = aligned_channels * ALIGN
    source = (output.to(tl.int64) * output_step + tap * tap_step) * ALIGN
    scale = 1.0
    if QUANTISE:
        if GIVEN:
            scale = tl.load(given + output)
        else:
            largest = 0.0
            for start in range(0, channels, CHANNELS):
                inside = (tap < taps) & (start + column < channels)
                at = source + (start + column) * channel_step
                value = tl.load(w + at, mask=inside, other=0.0).to(tl.float32)
                largest = tl.maximum(largest, tl.max(tl.abs(value)))
            scale = tl.maximum(tl.div_rn(largest, high * 1.0), smallest)
        tl.store(scales + output, scale)
    total = 0
    row = output // group_outputs * padded_outputs + output % group_outputs
    target = row.to(tl.int64) * plane_output_step + tap * plane_tap_step
    if PLANES == 4:
        part_step = plane_output_step // 2
        chosen, units = _fixed_unit(mixture, basis_unit, MULTIPLIERS)
        tl.store(unit, chosen, mask=output == 0)
    for start in range(0, last_channels * PLANE_ALIGN, CHANNELS):
        channel = start + column
        inside = (tap < taps) & (channel < channels)
        at = source + channel * channel_step
        if QUANTISE:
            value = tl.load(w + at, mask=inside, other=0.0).to(tl.float32)
            level = _levels(value, scale, low * 1.0, high * 1.0)
            pattern = level.to(tl.int32)
            total += tl.sum(pattern)
            pattern = pattern & (COLUMNS - 1)
            if REAL:
                tl.store(real + at, (level * scale).to(real.dtype.element_ty), mask=inside)
        else:
            pattern = tl.load(w + at, mask=inside, other=0).to(tl.int32)
        if PATTERNS:
            index = (output * channels + channel) * taps + tap
            tl.store(patterns + index, pattern.to(tl.uint8), mask=inside)
        if PLANES == 1:
            for word in range(wide // 4):
                width = tl.where(4 * word >= last_planes, last_channels, group_channels)
                packed = tl.load(v_words + word * COLUMNS + pattern, mask=inside, other=0)
                place = (target + word * four_step) * (PLANE_ALIGN // 4) + channel
                words = planes.to(tl.pointer_type(tl.int32), bitcast=True)
                kept = (tap < taps) & (channel < width * PLANE_ALIGN)
                tl.store(words + place, packed, mask=kept)
            for plane in range(wide, planes_count):
                width = tl.where(plane >= last_planes, last_channels, group_channels)
                factor = tl.load(v + plane * COLUMNS + pattern, mask=inside, other=0)
                place = target + plane // 4 * four_step + plane % 4 * plane_step
                kept = (tap < taps) & (channel < width * PLANE_ALIGN)
                tl.store(planes + place * PLANE_ALIGN + channel, factor, mask=kept)
        if PLANES == 4:
            for first in range(0, wide, 4):  # whole words
                width = tl.where(first >= last_planes, last_channels, group_channels)
                kept = (tap < taps) & (channel < width * PLANE_ALIGN)
                highs, lows = _fixed_words(
                    v, mixture, first, planes_count, units, COLUMNS, MULTIPLIERS
                )
                place = (target + first // 4 * four_step) * (PLANE_ALIGN // 4) + channel
                words = planes.to(tl.pointer_type(tl.int32), bitcast=True)
                tl.store(words + place, _looked_up(highs, pattern, inside), mask=kept)
                place += part_step * (PLANE_ALIGN // 4)
                tl.store(words + place, _looked_up(lows, pattern, inside), mask=kept)
            for first in range(wide, planes_count, 4):  # at most four planes
                highs, lows = _fixed_words(
                    v, mixture, first, planes_count, units, COLUMNS, MULTIPLIERS
                )
                highs = _looked_up(highs, pattern, inside)
                lows = _looked_up(lows, pattern, inside)
                for lane in tl.static_range(4):
                    plane = first + lane
                    width = tl.where(plane >= last_planes, last_channels, group_channels)
                    kept = (tap < taps) & (channel < width * PLANE_ALIGN) & (plane < planes_count)
                    place = target + first // 4 * four_step + lane * plane_step
                    place = place * PLANE_ALIGN + channel
                    tl.store(planes + place, (highs >> (8 * lane)).to(tl.int8), mask=kept)
                    place += part_step * PLANE_ALIGN
                    tl.store(planes + place, (lows >> (8 * lane)).to(tl.int8), mask=kept)
        if PLANES == 2 or PLANES == 3:
            for first in range(0, planes_count, 4):
                f0, f1, f2, f3 = _mixed_factors(
                    v, mixture, pattern, inside, first, planes_count, COLUMNS, MULTIPLIERS
                )
                for lane in tl.static_range(4):
                    plane, factor = first + lane, _one_of_four(f0, f1, f2, f3, lane)
                    width = tl.where(plane >= last_planes, last_channels, group_channels)
                    kept = (tap < taps) & (channel < width * PLANE_ALIGN) & (plane < planes_count)
                    narrow = channel + lane * plane_step * PLANE_ALIGN
                    spot = tl.where(plane < wide, channel * 4 + lane, narrow)
                    place = (target + first // 4 * four_step) * PLANE_ALIGN + spot
                    leading = factor.to(planes.dtype.element_ty)
                    tl.store(planes + place, leading, mask=kept)
                    if PLANES == 2:
                        left = (factor - leading.to(tl.float32)).to(planes.dtype.element_ty)
                        tl.store(rest + place, left, mask=kept)
    if QUANTISE:
        tl.store(sums + output, total)


@triton.jit
def _first_operands(
    position: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
) -> tl.tensor:
    """Where the first operand of each position lies; `size`: positions of one image."""
    place = position % size
    start = (position // size) * image
    return start + (place // width) * row_step + (place % width) * column_step


@triton.jit
def _store(
    sums: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    position: tl.tensor,
    output: tl.tensor,
    positions: tl.tensor,
    aligned_outputs: tl.tensor,
    groups: tl.tensor,
    group: tl.tensor,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    ALIGN: tl.constexpr,
) -> None:
    """result[position, group, output] = sums, rescaled where SCALED; ALIGN · aligned outputs."""
    outputs = aligned_outputs * ALIGN
    start = group * outputs
    known = output < outputs
    if AFFINE:
        correction = tl.load(w_sums + start + output, mask=known, other=0) * tl.load(zero)
        sums = sums - correction[None, :].to(sums.dtype)
    if SCALED:
        scale = tl.load(x_scale) * tl.load(w_scales + start + output, mask=known, other=0.0)
        sums = sums.to(tl.float32) * scale[None, :]
    place = position.to(tl.int64) * (groups * aligned_outputs) * ALIGN + start
    place = place[:, None] + output[None, :]
    inside = (position < positions)[:, None] & known[None, :]
    tl.store(result + place, sums.to(result.dtype.element_ty), mask=inside)


@triton.jit
def _joined(high: tl.tensor, low: tl.tensor) -> tl.tensor:
    """256 · high + low as float32, of int32; rounded once where |low| is below 2**24 - 2**16."""
    coarse = (high & -256).to(tl.float32)
    return coarse * 256.0 + (((high & 255) << 8) + low).to(tl.float32)


@triton.jit(do_not_specialize=COUNTS)
def convolve_planes(
    x: tl.tensor,
    w: tl.tensor,
    rest: tl.tensor,
    unit: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    group_step: tl.tensor,
    kernel_width: tl.tensor,
    tap_row_step: tl.tensor,
    tap_column_step: tl.tensor,
    taps: tl.tensor,
    depth_blocks: tl.tensor,
    padded_rows: tl.tensor,
    aligned_outputs: tl.tensor,
    groups: tl.tensor,
    MIXED: tl.constexpr,
    FIXED: tl.constexpr,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    ALIGN: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Sums over taps and the bytes of a place: int8 products and int32 sums, or MIXED.

    w: (groups, padded_rows, taps · depth_blocks · DEPTH), int8, a row an output; MIXED: real,
    float32 sums, with `rest` to be added; FIXED: two rows an output, `unit` · (256 · the first +
    the second). OUTPUTS: rows of a program.
    """
    blocks = padded_rows // OUTPUTS
    group = tl.program_id(1)
    position = tl.program_id(0) // blocks * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(0) % blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, size, image, row_step, column_step
    )
    k = tl.arange(0, DEPTH)
    length = taps * depth_blocks * DEPTH
    left = x + tl.multiple_of(first + group * group_step, 16)[:, None] + k[None, :]
    row = (group * padded_rows + output) * length
    right = tl.multiple_of(row, 16)[None, :] + k[:, None]
    if MIXED:
        sums = tl.zeros((POSITIONS, OUTPUTS), tl.float32)
    else:
        sums = tl.zeros((POSITIONS, OUTPUTS), tl.int32)
    for turn in range(taps * depth_blocks):
        tap = turn // depth_blocks
        offset = tap // kernel_width * tap_row_step + tap % kernel_width * tap_column_step
        offset += turn % depth_blocks * DEPTH
        a = tl.load(left + tl.multiple_of(offset, 16))
        b = tl.load(w + right + turn * DEPTH)
        if MIXED:
            a = a.to(b.dtype)
            sums = tl.dot(a, b, sums)
            sums = tl.dot(a, tl.load(rest + right + turn * DEPTH), sums)
        else:
            sums = tl.dot(a, b, sums, out_dtype=tl.int32)
    if FIXED:
        high, low = tl.split(tl.reshape(sums, (POSITIONS, OUTPUTS // 2, 2)))
        sums = _joined(high, low) * tl.load(unit)
        output = tl.program_id(0) % blocks * (OUTPUTS // 2) + tl.arange(0, OUTPUTS // 2)
    _store(
        sums, result, x_scale, w_scales, zero, w_sums, position, output, positions,
        aligned_outputs, groups, group, SCALED, AFFINE, ALIGN,
    )  # fmt: skip


@triton.jit
def _word_products(
    pattern: tl.tensor,
    u: tl.tensor,
    w: tl.tensor,
    plane_step: tl.tensor,
    sums: tl.tensor,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
) -> tl.tensor:
    """sums + the products of the first PARTS planes of a word of `u`."""
    flat = tl.reshape(pattern, (pattern.shape[0] * pattern.shape[1],))
    packed = tl.reshape(tl.gather(tl.load(u + tl.arange(0, ROWS)), flat, 0), pattern.shape)
    for part in tl.static_range(PARTS):
        at = tl.multiple_of(part * plane_step, 16)
        byte = (packed >> (8 * part)).to(tl.int8)
        sums = tl.dot(byte, tl.load(w + at), sums, out_dtype=tl.int32)
    return sums


@triton.jit(do_not_specialize=COUNTS)
def convolve_pointwise(
    x: tl.tensor,
    u: tl.tensor,
    w: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    channel_step: tl.tensor,
    aligned_channels: tl.tensor,
    group_channels: tl.tensor,
    padded_outputs: tl.tensor,
    aligned_outputs: tl.tensor,
    QUANTISE: tl.constexpr,
    PLAIN: tl.constexpr,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    CHANNEL_ALIGN: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    COUNT: tl.constexpr,
    UNROLLED: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """A 1×1 convolution without padding, its operands quantised and looked up on the way.

    x: real (QUANTISE, by `x_scale`) or bit patterns, steps as for `expand_activations`; u int32
    (words, ROWS). w: (padded_outputs, COUNT · group_channels), plane after plane, int8.
    group_channels: a multiple of DEPTH. UNROLLED: all planes in one turn of the loop.
    """
    blocks = padded_outputs // OUTPUTS
    position = tl.program_id(0) // blocks * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(0) % blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    known = tl.minimum(position, positions - 1)
    place = known % size
    first = (known // size).to(tl.int64) * image
    first += place // width * row_step + place % width * column_step
    k = tl.arange(0, DEPTH)
    left = x + (first * CHANNEL_ALIGN)[:, None] + (k * channel_step)[None, :]
    length = COUNT * group_channels
    right = tl.multiple_of(output * length, 16)[None, :] + k[:, None]
    channels = aligned_channels * CHANNEL_ALIGN
    point = tl.load(zero)
    if QUANTISE:
        scale = tl.load(x_scale)
    sums = tl.zeros((POSITIONS, OUTPUTS), tl.int32)
    for start in range(0, group_channels, DEPTH):
        inside = (start + k < channels)[None, :]
        value = tl.load(left + start * channel_step, mask=inside, other=0)
        if QUANTISE:
            level = _levels(value.to(tl.float32), scale, (low - point) * 1.0, (high - point) * 1.0)
            pattern = (level.to(tl.int32) + point) & (ROWS - 1)
        else:
            pattern = value.to(tl.int32) & (ROWS - 1)
        if PLAIN:
            a = pattern.to(tl.int8)
            sums = tl.dot(a, tl.load(w + right + start), sums, out_dtype=tl.int32)
        elif UNROLLED:
            for word in tl.static_range((COUNT + 3) // 4):
                at = right + (4 * word * group_channels + start)
                sums = _word_products(
                    pattern, u + word * ROWS, w + at, group_channels, sums, ROWS,
                    min(4, COUNT - 4 * word),
                )  # fmt: skip
        else:
            for word in range(COUNT // 4):
                at = right + tl.multiple_of(4 * word * group_channels + start, 16)
                sums = _word_products(
                    pattern, u + word * ROWS, w + at, group_channels, sums, ROWS, 4,
                )  # fmt: skip
            if COUNT % 4 > 0:
                at = right + (COUNT // 4 * 4 * group_channels + start)
                sums = _word_products(
                    pattern, u + COUNT // 4 * ROWS, w + at, group_channels, sums, ROWS, COUNT % 4,
                )  # fmt: skip
    _store(
        sums, result, x_scale, w_scales, zero, w_sums, position, output, positions,
        aligned_outputs, 1, 0, SCALED, AFFINE, ALIGN,
    )  # fmt: skip


@triton.jit
def _row_products(
    pattern: tl.tensor,
    u: tl.tensor,
    w: tl.tensor,
    rest: tl.tensor,
    sums: tl.tensor,
    SPLIT: tl.constexpr,
) -> tl.tensor:
    """sums + the products of the four planes of each row of `u` with w (+ rest), by pointers."""
    b = tl.load(w)
    row = tl.load(u + pattern[:, :, None] * 4 + tl.arange(0, 4)[None, None, :])
    a = tl.reshape(row, (pattern.shape[0], 4 * pattern.shape[1]))
    sums = tl.dot(a, b, sums)
    if SPLIT:
        sums = tl.dot(a, tl.load(rest), sums)
    return sums


@triton.jit(do_not_specialize=COUNTS)
def mixed_pointwise(
    x: tl.tensor,
    u: tl.tensor,
    w: tl.tensor,
    rest: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    channel_step: tl.tensor,
    aligned_channels: tl.tensor,
    group_channels: tl.tensor,
    padded_outputs: tl.tensor,
    aligned_outputs: tl.tensor,
    AFFINE: tl.constexpr,
    SPLIT: tl.constexpr,
    CHANNEL_ALIGN: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    WORDS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """As `convolve_pointwise` of mixed planes, which are looked up as real numbers, four at a time:
    bytes are turned to such slowly.

    u (WORDS, ROWS, 4) of the type of w: (padded_outputs, WORDS · group_channels · 4).
    """
    blocks = padded_outputs // OUTPUTS
    position = tl.program_id(0) // blocks * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(0) % blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    known = tl.minimum(position, positions - 1)
    place = known % size
    first = (known // size).to(tl.int64) * image
    first += place // width * row_step + place % width * column_step
    c, k = tl.arange(0, DEPTH), tl.arange(0, 4 * DEPTH)
    left = x + (first * CHANNEL_ALIGN)[:, None] + (c * channel_step)[None, :]
    right = tl.multiple_of(output * (4 * WORDS * group_channels), 16)[None, :] + k[:, None]
    channels, point, scale = aligned_channels * CHANNEL_ALIGN, tl.load(zero), tl.load(x_scale)
    bottom, top = (low - point) * 1.0, (high - point) * 1.0
    sums = tl.zeros((POSITIONS, OUTPUTS), tl.float32)
    for start in range(0, group_channels, DEPTH):
        inside = (start + c < channels)[None, :]
        value = tl.load(left + start * channel_step, mask=inside, other=0)
        level = _levels(value.to(tl.float32), scale, bottom, top)
        pattern = (level.to(tl.int32) + point) & (ROWS - 1)
        if WORDS <= 4:
            for word in tl.static_range(WORDS):
                at = right + tl.multiple_of(4 * (word * group_channels + start), 16)
                rows = u + word * (4 * ROWS)
                sums = _row_products(pattern, rows, w + at, rest + at, sums, SPLIT)
        else:
            for word in range(WORDS):
                at = right + tl.multiple_of(4 * (word * group_channels + start), 16)
                rows = u + word * (4 * ROWS)
                sums = _row_products(pattern, rows, w + at, rest + at, sums, SPLIT)
    _store(
        sums, result, x_scale, w_scales, zero, w_sums, position, output, positions,
        aligned_outputs, 1, 0, True, AFFINE, ALIGN,
    )  # fmt: skip


@triton.jit(do_not_specialize=COUNTS)
def depthwise_planes(
    x: tl.tensor,
    w: tl.tensor,
    unit: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    kernel_width: tl.tensor,
    tap_row_step: tl.tensor,
    tap_column_step: tl.tensor,
    taps: tl.tensor,
    group_channels: tl.tensor,
    padded_outputs: tl.tensor,
    aligned_outputs: tl.tensor,
    per_channel: tl.tensor,
    FIXED: tl.constexpr,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    ALIGN: tl.constexpr,
    WORDS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """One input channel an output: sums over taps and planes of x · w.

    WORDS: x int32 (places, WORDS, group_channels) of four planes each, w int32 (taps, WORDS,
    padded_outputs); 0: one plane, x int8 (places, group_channels), w int8 (taps, padded_outputs).
    FIXED: w has two words side by side, `unit` · (256 · the first + the second). Steps but that of
    a group are in units of 16.
    """
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, size, image, row_step, column_step
    )
    left = x + (first * 16)[:, None] + (output // per_channel)[None, :]
    sums = tl.zeros((POSITIONS, OUTPUTS), tl.int32)
    low = sums
    PARTS: tl.constexpr = 2 if FIXED else 1
    right = w + output * PARTS
    for row in range(taps // kernel_width):
        for column in range(kernel_width):
            source = left + (row * tap_row_step + column * tap_column_step) * 16
            if WORDS == 0:
                b = tl.load(right).to(tl.int32)
                sums += tl.load(source).to(tl.int32) * b[None, :]
                right += padded_outputs
            else:
                for word in tl.static_range(WORDS):
                    b = tl.load(right)
                    a = tl.load(source + tl.multiple_of(word * group_channels, 16))
                    sums = _dot4(a, tl.broadcast_to(b[None, :], (POSITIONS, OUTPUTS)), sums)
                    if FIXED:
                        b = tl.load(right + 1)
                        low = _dot4(a, tl.broadcast_to(b[None, :], (POSITIONS, OUTPUTS)), low)
                    right += padded_outputs * PARTS
    if FIXED:
        sums = _joined(sums, low) * tl.load(unit)
    _store(
        sums, result, x_scale, w_scales, zero, w_sums, position, output, positions,
        aligned_outputs, 1, 0, SCALED, AFFINE, ALIGN,
    )  # fmt: skip


@triton.jit(do_not_specialize=COUNTS)
def mix_columns(
    u: tl.tensor,
    v: tl.tensor,
    mixture: tl.tensor,
    table: tl.tensor,
    rank: tl.tensor,
    multipliers: tl.tensor,
    table_columns: tl.tensor,
    ROWS: tl.constexpr,
    MULTIPLIERS: tl.constexpr,
    FACTORS: tl.constexpr,
) -> None:
    """table[column, row] = sum over r of u[r, row] · (sum over m of mixture[m] · v[m, column, r]).

    All float32; v (multipliers, table_columns, rank). Exact for one multiplier of weight 1.
    """
    column = tl.program_id(0)
    row, m, r = tl.arange(0, ROWS), tl.arange(0, MULTIPLIERS), tl.arange(0, FACTORS)
    weight = tl.load(mixture + m, mask=m < multipliers, other=0.0)[:, None]
    first = v + (m * table_columns + column)[:, None] * rank
    sums = tl.zeros((ROWS,), tl.float32)
    for start in range(0, rank, FACTORS):
        known = start + r < rank
        inside = (m < multipliers)[:, None] & known[None, :]
        factor = tl.load(first + (start + r)[None, :], mask=inside, other=0.0)
        rows = u + (start + r)[:, None] * ROWS + row[None, :]
        activation = tl.load(rows, mask=known[:, None], other=0.0)
        sums += tl.sum(tl.sum(weight * factor, 0)[:, None] * activation, 0)
    tl.store(table + column * ROWS + row, sums)


@triton.jit(do_not_specialize=COUNTS)
def depthwise_columns(
    x: tl.tensor,
    table: tl.tensor,
    w: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    kernel_width: tl.tensor,
    tap_row_step: tl.tensor,
    tap_column_step: tl.tensor,
    taps: tl.tensor,
    channel_size: tl.tensor,
    aligned_outputs: tl.tensor,
    per_channel: tl.tensor,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    ALIGN: tl.constexpr,
    MIXED: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """One input channel an output: sums of table[w, x], the table transposed, (columns, ROWS).

    x: bytes (channels, channel_size), images one after the other. The table holds integers, or
    float32 where MIXED. Neighbouring threads take neighbouring positions, so that they read one
    column of products.
    """
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    known = tl.minimum(output, aligned_outputs * ALIGN - 1)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, size, image, row_step, column_step
    )
    left = x + ((known // per_channel) * channel_size)[:, None] + first[None, :]
    if MIXED:
        sums = tl.zeros((OUTPUTS, POSITIONS), tl.float32)
    else:
        sums = tl.zeros((OUTPUTS, POSITIONS), tl.int32)
    for tap in range(taps):
        offset = tap // kernel_width * tap_row_step + tap % kernel_width * tap_column_step
        weight = tl.load(w + known * taps + tap).to(tl.int32)
        pattern = tl.load(left + offset).to(tl.int32)
        sums += tl.load(table + (weight * ROWS)[:, None] + pattern).to(sums.dtype)
    _store(
        tl.trans(sums), result, x_scale, w_scales, zero, w_sums, position, output, positions,
        aligned_outputs, 1, 0, SCALED, AFFINE, ALIGN,
    )  # fmt: skip


@triton.jit
def _pattern(
    a: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    d: tl.tensor,
    PLACE: tl.constexpr,
    ROWS: tl.constexpr,
) -> tl.tensor:
    """A byte of four words, the lowest being 0, of which ROWS - 1 is the largest."""
    if PLACE < 4:
        word = a
    elif PLACE < 8:
        word = b
    elif PLACE < 12:
        word = c
    else:
        word = d
    return (word >> (8 * (PLACE % 4))) & (ROWS - 1)


@triton.jit(do_not_specialize=COUNTS)
def depthwise_quads(
    x: tl.tensor,
    table: tl.tensor,
    w: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    quads: tl.tensor,
    row_quads: tl.tensor,
    image_step: tl.tensor,
    row_step: tl.tensor,
    channel_size: tl.tensor,
    aligned_outputs: tl.tensor,
    per_channel: tl.tensor,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    ALIGN: tl.constexpr,
    MIXED: tl.constexpr,
    ROWS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    QUADS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """As `depthwise_columns`, four neighbouring positions at a time: their operands are read in
    words, int32, in which all steps and sizes of x count. Square kernels.

    quads: in all; row_quads: of a row of the result, the last of which may reach beyond it.
    """
    quad = tl.program_id(0) * QUADS + tl.arange(0, QUADS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    known = tl.minimum(output, aligned_outputs * ALIGN - 1)
    inside = tl.minimum(quad, quads - 1)
    line, column = inside // row_quads, inside % row_quads
    rows = size // width
    first = line // rows * image_step + line % rows * (STRIDE * row_step) + column * STRIDE
    left = x + ((known // per_channel) * channel_size)[:, None] + first[None, :]
    LAST: tl.constexpr = 3 * STRIDE + (KERNEL - 1) * DILATION
    s0 = tl.zeros((OUTPUTS, QUADS), tl.float32 if MIXED else tl.int32)
    s1, s2, s3 = s0, s0, s0
    for down in range(KERNEL):
        source = left + down * DILATION * row_step
        a = tl.load(source)
        b, c, d = a, a, a
        if LAST >= 4:
            b = tl.load(source + 1)
        if LAST >= 8:
            c = tl.load(source + 2)
        if LAST >= 12:
            d = tl.load(source + 3)
        for tap in tl.static_range(KERNEL):
            weight = tl.load(w + known * (KERNEL * KERNEL) + down * KERNEL + tap).to(tl.int32)
            products = table + (weight * ROWS)[:, None]
            p0 = _pattern(a, b, c, d, tap * DILATION, ROWS)
            p1 = _pattern(a, b, c, d, tap * DILATION + STRIDE, ROWS)
            p2 = _pattern(a, b, c, d, tap * DILATION + 2 * STRIDE, ROWS)
            p3 = _pattern(a, b, c, d, tap * DILATION + 3 * STRIDE, ROWS)
            s0 += tl.load(products + p0).to(s0.dtype)
            s1 += tl.load(products + p1).to(s0.dtype)
            s2 += tl.load(products + p2).to(s0.dtype)
            s3 += tl.load(products + p3).to(s0.dtype)
    sums = tl.reshape(tl.join(tl.join(s0, s2), tl.join(s1, s3)), (OUTPUTS, 4 * QUADS))
    quad = tl.program_id(0) * QUADS + tl.arange(0, 4 * QUADS) // 4
    column = quad % row_quads * 4 + tl.arange(0, 4 * QUADS) % 4
    position = tl.where(column < width, quad // row_quads * width + column, positions)
    _store(
        tl.trans(sums), result, x_scale, w_scales, zero, w_sums, position, output, positions,
        aligned_outputs, 1, 0, SCALED, AFFINE, ALIGN,
    )  # fmt: skip


@triton.jit(do_not_specialize=COUNTS)
def lay_out_rows(
    w: tl.tensor,
    table: tl.tensor,
    rows: tl.tensor,
    begin: tl.tensor,
    length: tl.tensor,
    group_channels: tl.tensor,
    channels: tl.tensor,
    taps: tl.tensor,
    outputs: tl.tensor,
    blocks: tl.tensor,
    beyond: tl.tensor,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PATTERNS: tl.constexpr,
) -> None:
    """rows (groups, blocks, length, ROWS, OUTPUTS) = table[w, pattern]; that of zero beyond w.

    w uint8 (groups · outputs, channels, taps); the table transposed, its row `beyond` zero
    products. Operand k of a sum, counted from `begin`, is that of tap k // group_channels, of
    channel k % group_channels.
    """
    group, k = tl.program_id(0) // length, tl.program_id(0) % length
    block = tl.program_id(1)
    pattern = tl.program_id(2) * PATTERNS + tl.arange(0, PATTERNS)
    output = block * OUTPUTS + tl.arange(0, OUTPUTS)
    tap, channel = (begin + k) // group_channels, (begin + k) % group_channels
    inside = (output < outputs) & (channel < channels) & (tap < taps)
    at = ((group * outputs + output) * channels + channel) * taps + tap
    weight = tl.load(w + at, mask=inside, other=0).to(tl.int32)
    column = tl.where(inside, weight, beyond)
    product = tl.load(table + column[None, :] * ROWS + pattern[:, None])
    place = ((group * blocks + block) * length + k) * ROWS + pattern[:, None]
    tl.store(rows + place.to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :], product)


@triton.jit(do_not_specialize=COUNTS)
def row_convolution(
    x: tl.tensor,
    rows: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    group_step: tl.tensor,
    kernel_width: tl.tensor,
    tap_row_step: tl.tensor,
    tap_column_step: tl.tensor,
    begin: tl.tensor,
    length: tl.tensor,
    share: tl.tensor,
    tap_words: tl.tensor,
    blocks: tl.tensor,
    aligned_outputs: tl.tensor,
    groups: tl.tensor,
    bias: tl.tensor,
    ADD: tl.constexpr,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    ALIGN: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """Adds the row of products that each operand selects, as made by `lay_out_rows`.

    x: int64 words of eight channels, all steps in words; word `begin` of a sum is the first of the
    `length` in `rows`, of which a program takes a `share`. ADD: to the result, atomically. PAIRS:
    products are unsigned 16-bit numbers, too large by `bias`, read as words of two. Whole words and
    their upper halves are summed, modulo 2**32; the difference is the sum of the lower halves.
    """
    group = tl.program_id(1)
    block = tl.program_id(0) % blocks
    position = tl.program_id(0) // blocks * POSITIONS + tl.arange(0, POSITIONS)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, size, image, row_step, column_step
    )
    left = x + first + group * group_step
    ITEMS: tl.constexpr = OUTPUTS // 2 if PAIRS else OUTPUTS
    lane = tl.arange(0, ITEMS)
    products = rows + (group * blocks + block).to(tl.int64) * length * 8 * ROWS * ITEMS
    sums = tl.zeros((POSITIONS, ITEMS), tl.int32)
    upper = tl.zeros((POSITIONS, ITEMS), tl.int32)
    start = tl.program_id(2) * share
    stop = tl.minimum(length, start + share)
    for turn in range(start, stop):
        word = begin + turn
        tap = word // tap_words
        offset = tap // kernel_width * tap_row_step + tap % kernel_width * tap_column_step
        packed = tl.load(left + offset + word % tap_words)
        for part in tl.static_range(8):
            pattern = (packed >> (8 * part)).to(tl.int32) & (ROWS - 1)
            at = (turn * 8 + part) * (ROWS * ITEMS) + pattern * ITEMS
            row = tl.load(products + at[:, None] + lane[None, :])
            sums += row
            if PAIRS:
                upper += (row >> 16) & 0xFFFF
    if PAIRS:
        excess = bias * 8 * (stop - start)
        sums = tl.join(sums - (upper << 16) - excess, upper - excess)
        sums = tl.reshape(sums, (POSITIONS, OUTPUTS))
    output = block * OUTPUTS + tl.arange(0, OUTPUTS)
    if ADD:
        outputs = aligned_outputs * ALIGN
        place = position.to(tl.int64)[:, None] * (groups * outputs)
        place += group * outputs + output[None, :]
        inside = (position < positions)[:, None] & (output < outputs)[None, :]
        tl.atomic_add(result + place, sums, mask=inside, sem="relaxed")
    else:
        _store(
            sums, result, x_scale, w_scales, zero, w_sums, position, output, positions,
            aligned_outputs, groups, group, SCALED, AFFINE, ALIGN,
        )  # fmt: skip


@triton.jit(do_not_specialize=COUNTS)
def finish_sums(
    sums: tl.tensor,
    result: tl.tensor,
    x_scale: tl.tensor,
    w_scales: tl.tensor,
    zero: tl.tensor,
    w_sums: tl.tensor,
    positions: tl.tensor,
    aligned_outputs: tl.tensor,
    AFFINE: tl.constexpr,
    ALIGN: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """result = rescaled sums, both (positions, outputs)."""
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    outputs = aligned_outputs * ALIGN
    place = (position.to(tl.int64) * aligned_outputs * ALIGN)[:, None] + output[None, :]
    inside = (position < positions)[:, None] & (output < outputs)[None, :]
    _store(
        tl.load(sums + place, mask=inside, other=0), result, x_scale, w_scales, zero, w_sums,
        position, output, positions, aligned_outputs, 1, 0, True, AFFINE, ALIGN,
    )  # fmt: skip


@triton.jit(do_not_specialize=COUNTS)
def observe_largest(
    x: tl.tensor,
    scratch: tl.tensor,
    low_values: tl.tensor,
    high_values: tl.tensor,
    batches: tl.tensor,
    kept: tl.tensor,
    scales: tl.tensor,
    momentum: tl.tensor,
    levels: tl.tensor,
    smallest: tl.tensor,
    count: tl.tensor,
    programs: tl.tensor,
    turns: tl.tensor,
    OBSERVERS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Moving averages of the largest magnitude of x, of each of several observers, and the scale
    that maps it to `levels`, in `kept` and `scales`.

    low_values to kept: tuples. scratch: int32 (2,), zero before and after: the largest magnitude's
    bits, and programs done. The last program writes the result.
    """
    largest = tl.zeros((BLOCK,), tl.float32)
    start = tl.program_id(0).to(tl.int64) * turns * BLOCK
    for turn in range(turns):
        at = start + turn * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(x + at, mask=at < count, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(value))
    bits = tl.max(largest).to(tl.int32, bitcast=True)
    tl.atomic_max(scratch, bits)
    done = tl.atomic_add(scratch + 1, 1)
    if done == programs - 1:
        newest = tl.atomic_xchg(scratch, 0).to(tl.float32, bitcast=True)
        tl.store(scratch + 1, 0)
        for i in tl.static_range(OBSERVERS):
            seen = tl.load(batches[i])
            before = tl.load(high_values[i])
            after = tl.where(seen == 0, newest, before + momentum * (newest - before))
            tl.store(high_values[i], after)
            tl.store(low_values[i], -after)
            tl.store(batches[i], seen + 1)
            newest_scale = tl.maximum(tl.div_rn(after, levels), smallest)
            tl.store(kept[i], newest_scale)
            tl.store(scales + i, newest_scale)


@triton.jit(do_not_specialize=COUNTS)
def through_quantiser(
    x: tl.tensor,
    gradient: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    quantised: tl.tensor,
    masked: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    count: tl.tensor,
    QUANTISED: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """quantised = scale · (level of x - zero point); masked = gradient where x is not clamped."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    size, point = tl.load(scale), tl.load(zero)
    bottom, top = (low - point) * 1.0, (high - point) * 1.0
    level = _levels(value, size, bottom - 1.0, top + 1.0)
    if MASKED:
        known = tl.load(gradient + at, mask=inside, other=0.0)
        unclamped = (level >= bottom) & (level <= top)
        tl.store(masked + at, tl.where(unclamped, known, 0.0), mask=inside)
    if QUANTISED:
        level = tl.minimum(tl.maximum(level, bottom), top)
        tl.store(quantised + at, (level * size).to(quantised.dtype.element_ty), mask=inside)
