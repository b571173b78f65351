"""Triton kernels of emulated convolutions: operands laid out, convolved, rescaled.

Names of sizes: positions are the N·H'·W' places of the result, in that order; a place is one pixel
of the padded images. Images are laid out as (N, Hp, Wp, step) bytes, padding included, `step`
bytes a place. `step`s are multiples of 16. Rounding is that of ONNX ``QuantizeLinear``.
"""

import triton
import triton.language as tl

__all__ = [
    "convolve_planes",
    "depthwise_columns",
    "depthwise_planes",
    "expand_activations",
    "lay_out_rows",
    "observe_largest",
    "prepare_weights",
    "row_convolution",
    "through_quantiser",
]

ROUNDING: tl.constexpr = tl.constexpr(12582912.0)  # 1.5 · 2**23: adding it rounds, half to even


@triton.jit
def _levels(
    value: tl.tensor, scale: tl.tensor, zero: tl.tensor, low: tl.tensor, high: tl.tensor
) -> tl.tensor:
    """clamp(round(value / scale) + zero, low, high) as float32.

    Clamped before it is rounded, which is the same for whole bounds and keeps the sum exact.
    """
    ratio = tl.div_rn(value, scale)
    ratio = tl.minimum(tl.maximum(ratio, low - zero), high - zero)
    return ((ratio + ROUNDING) - ROUNDING) + zero


@triton.jit
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
    channels: tl.tensor,
    group_blocks: tl.tensor,
    group_channels: tl.tensor,
    step: tl.tensor,
    QUANTISE: tl.constexpr,
    LOOK_UP: tl.constexpr,
    ROWS: tl.constexpr,
    COUNT: tl.constexpr,
    PER_WORD: tl.constexpr,
    PLACES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """planes int8: u[x] at place · step + group · group_step + plane · group_channels + channel.

    x: real (QUANTISE; scale and zero point by pointer) or bit patterns. `u`: (words, ROWS) of
    PER_WORD signed bytes; without LOOK_UP the pattern itself is the only plane. `channels`: of a
    group, padded to `group_channels`; the bytes of padded channels are arbitrary.
    """
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    group = tl.program_id(1) // group_blocks
    channel = tl.program_id(1) % group_blocks * CHANNELS + tl.arange(0, CHANNELS)
    image = place // padded_size
    row = place % padded_size // padded_width
    column = place % padded_width - left
    row = row - top
    known = (place < places) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    at = image.to(tl.int64) * image_step + row * row_step + column * column_step
    at = at[:, None] + ((group * channels + channel) * channel_step)[None, :]
    inside = known[:, None] & (channel < channels)[None, :]
    if QUANTISE:
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        point = tl.load(zero).to(tl.float32)
        level = _levels(value, tl.load(scale), point, low.to(tl.float32), high.to(tl.float32))
        pattern = level.to(tl.int32) & (ROWS - 1)
    else:
        border = tl.load(zero)
        pattern = tl.load(x + at, mask=inside, other=0).to(tl.int32)
        pattern = tl.where(known[:, None], pattern, border) & (ROWS - 1)
    target = planes + place.to(tl.int64)[:, None] * step
    target += (group * (COUNT * group_channels) + channel)[None, :]
    kept = (place < places)[:, None] & (channel < group_channels)[None, :]
    if LOOK_UP:
        flat = tl.reshape(pattern, (PLACES * CHANNELS,))
        for word in tl.static_range((COUNT + PER_WORD - 1) // PER_WORD):
            values = tl.load(u + word * ROWS + tl.arange(0, ROWS))
            packed = tl.reshape(tl.gather(values, flat, 0), (PLACES, CHANNELS))
            for part in tl.static_range(PER_WORD):
                if word * PER_WORD + part < COUNT:
                    plane = word * PER_WORD + part
                    byte = (packed >> (8 * part)).to(tl.int8)
                    tl.store(target + plane * group_channels, byte, mask=kept)
    else:
        tl.store(target, pattern.to(tl.int8), mask=kept)


@triton.jit
def prepare_weights(
    w: tl.tensor,
    given: tl.tensor,
    v: tl.tensor,
    planes: tl.tensor,
    rest: tl.tensor,
    patterns: tl.tensor,
    real: tl.tensor,
    scales: tl.tensor,
    sums: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    smallest: tl.tensor,
    channels: tl.tensor,
    taps: tl.tensor,
    output_step: tl.tensor,
    channel_step: tl.tensor,
    tap_step: tl.tensor,
    group_outputs: tl.tensor,
    padded_outputs: tl.tensor,
    group_channels: tl.tensor,
    last_channels: tl.tensor,
    plane_output_step: tl.tensor,
    plane_tap_step: tl.tensor,
    plane_step: tl.tensor,
    count: tl.tensor,
    QUANTISE: tl.constexpr,
    GIVEN: tl.constexpr,
    COLUMNS: tl.constexpr,
    PLANES: tl.constexpr,
    PATTERNS: tl.constexpr,
    REAL: tl.constexpr,
    TAPS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """One output channel of w: scale, integer levels, and v[w] as planes.

    w: real (QUANTISE) or bit patterns, (O, channels, taps) by the steps given. scales (O,): largest
    magnitude / high, at least `smallest`; or GIVEN. patterns: uint8 (O, channels, taps); real:
    scale · level as its own type, by w's steps; sums int32 (O,): of levels. PLANES 1: v[w] at
    row · plane_output_step + tap · plane_tap_step + plane · plane_step + channel, zero for channels
    from the last up to `group_channels`, in the last plane up to `last_channels`; rows are outputs,
    those of a group padded; 2: likewise, `planes` + `rest` being the float v[w]; 0: none.
    """
    output = tl.program_id(0)
    tap, lane = tl.arange(0, TAPS)[:, None], tl.arange(0, CHANNELS)[None, :]
    source = output.to(tl.int64) * output_step
    scale = 1.0
    if QUANTISE:
        if GIVEN:
            scale = tl.load(given + output)
        else:
            largest = 0.0
            for start in range(0, channels, CHANNELS):
                inside = (tap < taps) & (start + lane < channels)
                at = source + (start + lane) * channel_step + tap * tap_step
                value = tl.load(w + at, mask=inside, other=0.0).to(tl.float32)
                largest = tl.maximum(largest, tl.max(tl.abs(value)))
            scale = tl.maximum(tl.div_rn(largest, high.to(tl.float32)), smallest)
        tl.store(scales + output, scale)
    total = 0
    target = output // group_outputs * padded_outputs + output % group_outputs
    target = target.to(tl.int64) * plane_output_step + tap * plane_tap_step
    for start in range(0, last_channels, CHANNELS):
        channel = start + lane
        inside = (tap < taps) & (channel < channels)
        at = source + channel * channel_step + tap * tap_step
        if QUANTISE:
            value = tl.load(w + at, mask=inside, other=0.0).to(tl.float32)
            level = _levels(value, scale, 0.0, low.to(tl.float32), high.to(tl.float32))
            pattern = level.to(tl.int32)
            total += tl.sum(pattern)
            pattern = pattern & (COLUMNS - 1)
            if REAL:
                tl.store(real + at, (level * scale).to(real.dtype.element_ty), mask=inside)
        else:
            pattern = tl.load(w + at, mask=inside, other=0).to(tl.int32)
        if PATTERNS:
            at = (output * channels + channel) * taps + tap
            tl.store(patterns + at, pattern.to(tl.uint8), mask=inside)
        if PLANES > 0:
            for plane in range(count):
                width = tl.where(plane == count - 1, last_channels, group_channels)
                kept = (tap < taps) & (channel < width)
                place = target + channel + plane * plane_step
                factor = tl.load(v + plane * COLUMNS + pattern, mask=inside, other=0)
                if PLANES == 2:
                    leading = factor.to(planes.dtype.element_ty)
                    left = (factor - leading.to(tl.float32)).to(planes.dtype.element_ty)
                    tl.store(planes + place, leading, mask=kept)
                    tl.store(rest + place, left, mask=kept)
                else:
                    tl.store(planes + place, factor, mask=kept)
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
    outputs: tl.tensor,
    step: tl.tensor,
    start: tl.tensor,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
) -> None:
    """result[position, start + output] = sums, rescaled where SCALED; output < outputs."""
    known = output < outputs
    if AFFINE:
        correction = tl.load(w_sums + start + output, mask=known, other=0) * tl.load(zero)
        sums = sums - correction[None, :].to(sums.dtype)
    if SCALED:
        scale = tl.load(x_scale) * tl.load(w_scales + start + output, mask=known, other=0.0)
        sums = sums.to(tl.float32) * scale[None, :]
    place = position.to(tl.int64)[:, None] * step + start + output[None, :]
    inside = (position < positions)[:, None] & known[None, :]
    tl.store(result + place, sums.to(result.dtype.element_ty), mask=inside)


@triton.jit
def convolve_planes(
    x: tl.tensor,
    w: tl.tensor,
    rest: tl.tensor,
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
    outputs: tl.tensor,
    padded_outputs: tl.tensor,
    step: tl.tensor,
    MIXED: tl.constexpr,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Sums over taps and the bytes of a place: int8 products and int32 sums, or MIXED.

    w: (groups, padded_outputs, taps · depth_blocks · DEPTH), int8; MIXED: real, with `rest` to be
    added, float32 sums.
    """
    blocks = padded_outputs // OUTPUTS
    group = tl.program_id(1)
    position = tl.program_id(0) // blocks * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(0) % blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, size, image, row_step, column_step
    )
    k = tl.arange(0, DEPTH)
    length = taps * depth_blocks * DEPTH
    left = x + tl.multiple_of(first + group * group_step, 16)[:, None] + k[None, :]
    row = (group * padded_outputs + output) * length
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
    _store(
        sums, result, x_scale, w_scales, zero, w_sums, position, output, positions, outputs,
        step, group * outputs, SCALED, AFFINE,
    )  # fmt: skip


@triton.jit
def depthwise_planes(
    x: tl.tensor,
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
    plane_step: tl.tensor,
    count: tl.tensor,
    outputs: tl.tensor,
    per_channel: tl.tensor,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    MIXED: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """One input channel an output: sums over taps and planes of x · w, w (taps, count, outputs).

    w int8, or float32 where MIXED.
    """
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    known = tl.minimum(output, outputs - 1)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, size, image, row_step, column_step
    )
    left = x + first[:, None] + (known // per_channel)[None, :]
    if MIXED:
        sums = tl.zeros((POSITIONS, OUTPUTS), tl.float32)
    else:
        sums = tl.zeros((POSITIONS, OUTPUTS), tl.int32)
    for tap in range(taps):
        offset = tap // kernel_width * tap_row_step + tap % kernel_width * tap_column_step
        for plane in range(count):
            a = tl.load(left + offset + plane * plane_step)
            b = tl.load(w + (tap * count + plane) * outputs + known)
            if MIXED:
                sums += a.to(tl.float32) * b[None, :]
            else:
                sums += a.to(tl.int32) * b.to(tl.int32)[None, :]
    _store(
        sums, result, x_scale, w_scales, zero, w_sums, position, output, positions, outputs,
        outputs, 0, SCALED, AFFINE,
    )  # fmt: skip


@triton.jit
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
    outputs: tl.tensor,
    per_channel: tl.tensor,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    MIXED: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """One input channel an output: sums of table[w, x], the table transposed, (columns, ROWS).

    The table holds integers, or float32 where MIXED. The columns of a tap lie side by side in shared memory, one a lane: look-ups meet no bank twice.
    """
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    known = tl.minimum(output, outputs - 1)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, size, image, row_step, column_step
    )
    left = x + first[:, None] + (known // per_channel)[None, :]
    if MIXED:
        sums = tl.zeros((POSITIONS, OUTPUTS), tl.float32)
    else:
        sums = tl.zeros((POSITIONS, OUTPUTS), tl.int32)
    for tap in range(taps):
        offset = tap // kernel_width * tap_row_step + tap % kernel_width * tap_column_step
        weight = tl.load(w + known * taps + tap).to(tl.int32)
        # 32 bits each: neighbouring lanes then never share a bank.
        columns = tl.load(table + weight[None, :] * ROWS + tl.arange(0, ROWS)[:, None])
        columns = columns.to(sums.dtype)
        pattern = tl.load(left + offset).to(tl.int32)
        sums += tl.gather(columns, pattern, 0)
    _store(
        sums, result, x_scale, w_scales, zero, w_sums, position, output, positions, outputs,
        outputs, 0, SCALED, AFFINE,
    )  # fmt: skip


@triton.jit
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
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PATTERNS: tl.constexpr,
) -> None:
    """rows (groups, blocks, length, ROWS, OUTPUTS) = table[w, pattern], zero beyond w.

    w uint8 (groups · outputs, channels, taps); the table transposed. Operand k of a sum, counted
    from `begin`, is that of tap k // group_channels, of channel k % group_channels.
    """
    group, k = tl.program_id(0) // length, tl.program_id(0) % length
    block = tl.program_id(1)
    pattern = tl.program_id(2) * PATTERNS + tl.arange(0, PATTERNS)
    output = block * OUTPUTS + tl.arange(0, OUTPUTS)
    tap, channel = (begin + k) // group_channels, (begin + k) % group_channels
    inside = (output < outputs) & (channel < channels) & (tap < taps)
    at = ((group * outputs + output) * channels + channel) * taps + tap
    weight = tl.load(w + at, mask=inside, other=0).to(tl.int32)
    product = tl.load(
        table + weight[None, :] * ROWS + pattern[:, None],
        mask=inside[None, :] & (pattern < ROWS)[:, None],
        other=0,
    )
    place = ((group * blocks + block) * length + k) * ROWS + pattern[:, None]
    tl.store(
        rows + place.to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :],
        product,
        mask=(pattern < ROWS)[:, None],
    )


@triton.jit
def row_convolution(
    x: tl.tensor,
    rows: tl.tensor,
    before: tl.tensor,
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
    tap_words: tl.tensor,
    outputs: tl.tensor,
    blocks: tl.tensor,
    step: tl.tensor,
    ADD: tl.constexpr,
    SCALED: tl.constexpr,
    AFFINE: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """Adds the row of products that each operand selects, as made by `lay_out_rows`.

    x: int64 words of eight channels, all steps in words; word `begin` of a sum is the first of
    `length`. ADD: to `before`, int32 like the result.
    """
    group = tl.program_id(1)
    block = tl.program_id(0) % blocks
    position = tl.program_id(0) // blocks * POSITIONS + tl.arange(0, POSITIONS)
    lane = tl.arange(0, OUTPUTS)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, size, image, row_step, column_step
    )
    left = x + first + group * group_step
    products = rows + (group * blocks + block).to(tl.int64) * length * 8 * ROWS * OUTPUTS
    output = block * OUTPUTS + lane
    if ADD:
        place = position.to(tl.int64)[:, None] * step + group * outputs + output[None, :]
        inside = (position < positions)[:, None] & (output < outputs)[None, :]
        sums = tl.load(before + place, mask=inside, other=0)
    else:
        sums = tl.zeros((POSITIONS, OUTPUTS), tl.int32)
    for turn in range(length):
        word = begin + turn
        tap = word // tap_words
        offset = tap // kernel_width * tap_row_step + tap % kernel_width * tap_column_step
        packed = tl.load(left + offset + word % tap_words)
        for part in tl.static_range(8):
            pattern = (packed >> (8 * part)).to(tl.int32) & (ROWS - 1)
            at = (turn * 8 + part) * (ROWS * OUTPUTS) + pattern * OUTPUTS
            at = tl.multiple_of(at, OUTPUTS)
            sums += tl.load(products + at[:, None] + lane[None, :]).to(tl.int32)
    _store(
        sums, result, x_scale, w_scales, zero, w_sums, position, output, positions, outputs,
        step, group * outputs, SCALED, AFFINE,
    )  # fmt: skip


@triton.jit
def observe_largest(
    x: tl.tensor,
    scratch: tl.tensor,
    low_value: tl.tensor,
    high_value: tl.tensor,
    batches: tl.tensor,
    kept: tl.tensor,
    scale: tl.tensor,
    momentum: tl.tensor,
    levels: tl.tensor,
    smallest: tl.tensor,
    count: tl.tensor,
    programs: tl.tensor,
    turns: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Moving average of the largest magnitude of x, and the scale that maps it to `levels`,
    in `kept` and `scale`.

    scratch: int32 (2,), zero before and after: the largest magnitude's bits, and programs done.
    The last program writes the result.
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
        tl.atomic_xchg(scratch + 1, 0)
        seen = tl.load(batches)
        before = tl.load(high_value)
        weight = tl.where(seen == 0, 1.0, momentum)
        after = before + weight * (newest - before)
        tl.store(high_value, after)
        tl.store(low_value, -after)
        tl.store(batches, seen + 1)
        newest_scale = tl.maximum(tl.div_rn(after, levels), smallest)
        tl.store(kept, newest_scale)
        tl.store(scale, newest_scale)


@triton.jit
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
    size = tl.load(scale)
    point = tl.load(zero).to(tl.float32)
    bottom, top = low.to(tl.float32) - point, high.to(tl.float32) - point
    ratio = tl.div_rn(value, size)
    level = tl.minimum(tl.maximum(ratio, bottom - 1.0), top + 1.0)
    level = (level + ROUNDING) - ROUNDING
    if MASKED:
        known = tl.load(gradient + at, mask=inside, other=0.0)
        unclamped = (level >= bottom) & (level <= top)
        tl.store(masked + at, tl.where(unclamped, known, 0.0), mask=inside)
    if QUANTISED:
        level = tl.minimum(tl.maximum(level, bottom), top)
        tl.store(quantised + at, (level * size).to(quantised.dtype.element_ty), mask=inside)
