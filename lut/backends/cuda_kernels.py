"""Triton kernels of emulated convolutions, and of the layout of their operands.

Shapes: x uint8 (N, H, W, C), padding added; positions are the N·H'·W' places of the result, in that
order, and the result is int32 (positions, O). Operands of one sum are numbered k = tap · channels +
channel; `offsets[k]` is where operand k lies in x, counted from the first operand of the position.
"""

import triton
import triton.language as tl

__all__ = [
    "depthwise_columns",
    "expand_images",
    "expand_weights",
    "factorised_convolution",
    "gathered_convolution",
    "index_weights",
    "lay_out_rows",
    "row_convolution",
]


@triton.jit
def _first_operands(
    position: tl.tensor,
    width: tl.tensor,
    places: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
) -> tl.tensor:
    """Where the first operand of each position lies in x; `places`: positions of one image."""
    place = position % places
    start = (position // places).to(tl.int64) * image
    return start + (place // width) * row_step + (place % width) * column_step


@triton.jit
def expand_weights(
    w: tl.tensor,
    v: tl.tensor,
    planes: tl.tensor,
    outputs: tl.tensor,
    channels: tl.tensor,
    taps: tl.tensor,
    step: tl.tensor,
    length: tl.tensor,
    PADDED_OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PLANES: tl.constexpr,
    SIDE_BY_SIDE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """planes int8 (groups, PADDED_OUTPUTS, PLANES / SIDE_BY_SIDE, length) = v[w], zero beyond w.

    w uint8 (groups · outputs, channels, taps); v int8 (PLANES, COLUMNS). Operand k of a sum is that
    of tap k // step, of channel k % step // SIDE_BY_SIDE.
    """
    row = tl.program_id(0)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    group, output = row // PADDED_OUTPUTS, row % PADDED_OUTPUTS
    tap, channel = k // step, k % step // SIDE_BY_SIDE
    inside = (tap < taps) & (channel < channels) & (output < outputs)
    at = ((group * outputs + output) * channels + channel) * taps + tap
    pattern = tl.load(w + at, mask=inside, other=0).to(tl.int32)
    pattern += k % step % SIDE_BY_SIDE * COLUMNS
    for part in range(PLANES // SIDE_BY_SIDE):
        factor = tl.load(v + part * SIDE_BY_SIDE * COLUMNS + pattern, mask=inside, other=0)
        place = (row.to(tl.int64) * (PLANES // SIDE_BY_SIDE) + part) * length + k
        tl.store(planes + place, factor, mask=k < length)


@triton.jit
def expand_images(
    x: tl.tensor,
    u: tl.tensor,
    planes: tl.tensor,
    count: tl.tensor,
    channels: tl.tensor,
    STEP: tl.constexpr,
    ROWS: tl.constexpr,
    PLANES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """planes int8 (places, STEP): u[plane, x] of one place, all planes of a channel side by side.

    x uint8 (places, channels); u int8 (PLANES, ROWS); count: places · STEP, less than 2**31.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = at % STEP
    channel = part // PLANES
    inside = (at < count) & (channel < channels)
    pattern = tl.load(x + at // STEP * channels + channel, mask=inside, other=0).to(tl.int32)
    factor = tl.load(u + part % PLANES * ROWS + pattern, mask=inside, other=0)
    tl.store(planes + at, factor, mask=at < count)


@triton.jit
def factorised_convolution(
    x: tl.tensor,
    u: tl.tensor,
    planes: tl.tensor,
    offsets: tl.tensor,
    result: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    places: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    group_step: tl.tensor,
    outputs: tl.tensor,
    groups: tl.tensor,
    LENGTH: tl.constexpr,
    PADDED_OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    WORDS: tl.constexpr,
    PER_WORD: tl.constexpr,
    VECTOR: tl.constexpr,
    EXPANDED: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Sum over k and planes of u[plane, x]·planes[output, plane, k]: int8 products, int32 sums.

    u (WORDS, ROWS): words of PER_WORD signed bytes, the first plane lowest. VECTOR: operands that
    lie side by side in x, from a multiple of it on. EXPANDED: x holds u[x] already, of one plane.
    """
    group = tl.program_id(2)
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    first = _first_operands(
        tl.minimum(position, positions - 1), width, places, image, row_step, column_step
    )
    operands = x + tl.multiple_of(first + group * group_step, VECTOR)
    step = tl.arange(0, DEPTH)
    row = (group * PADDED_OUTPUTS + output).to(tl.int64) * (WORDS * PER_WORD)
    sums = tl.zeros((POSITIONS, OUTPUTS), tl.int32)
    for turn in range(LENGTH // DEPTH * WORDS):
        word = turn % WORDS
        k = turn // WORDS * DEPTH + step
        offset = tl.max_contiguous(tl.multiple_of(tl.load(offsets + k), VECTOR), VECTOR)
        packed = tl.load(operands[:, None] + offset[None, :])
        if not EXPANDED:
            pattern = tl.reshape(packed.to(tl.int32), (POSITIONS * DEPTH,))
            values = tl.load(u + word * ROWS + tl.arange(0, ROWS))
            packed = tl.reshape(tl.gather(values, pattern, 0), (POSITIONS, DEPTH))
        for part in tl.static_range(PER_WORD):
            left = (packed >> (8 * part)).to(tl.int8)
            at = (row + word * PER_WORD + part) * LENGTH
            right = tl.load(planes + at[None, :] + k[:, None])
            sums = tl.dot(left, right, sums, out_dtype=tl.int32)
    place = position.to(tl.int64)[:, None] * (groups * outputs) + group * outputs + output[None, :]
    inside = (position < positions)[:, None] & (output < outputs)[None, :]
    tl.store(result + place, sums, mask=inside)


@triton.jit
def depthwise_columns(
    x: tl.tensor,
    table: tl.tensor,
    w: tl.tensor,
    offsets: tl.tensor,
    result: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    places: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    outputs: tl.tensor,
    per_channel: tl.tensor,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """One input channel for each output: sums of table[w, x], the table transposed.

    Neighbouring threads take neighbouring positions, so that they read one column of products.
    """
    position = tl.program_id(1) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    inside = (output < outputs)[:, None] & (position < positions)[None, :]
    first = _first_operands(
        tl.minimum(position, positions - 1), width, places, image, row_step, column_step
    )
    known = tl.minimum(output, outputs - 1)
    operands = x + first[None, :] + (known // per_channel)[:, None]
    sums = tl.zeros((OUTPUTS, POSITIONS), tl.int32)
    for tap in tl.static_range(TAPS):
        pattern = tl.load(operands + tl.load(offsets + tap)).to(tl.int32)
        weight = tl.load(w + known * TAPS + tap).to(tl.int32)
        sums += tl.load(table + (weight * ROWS)[:, None] + pattern).to(tl.int32)
    place = position.to(tl.int64)[None, :] * outputs + output[:, None]
    tl.store(result + place, sums, mask=inside)


@triton.jit
def index_weights(
    w: tl.tensor,
    index: tl.tensor,
    outputs: tl.tensor,
    channels: tl.tensor,
    taps: tl.tensor,
    length: tl.tensor,
    beyond: tl.tensor,
    ROWS: tl.constexpr,
    PADDED_OUTPUTS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """index int32 (groups, length, PADDED_OUTPUTS) = w · ROWS, beyond · ROWS outside w.

    w uint8 (groups · outputs, channels, taps).
    """
    row = tl.program_id(0)
    output = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    group, k = row // length, row % length
    tap, channel = k // channels, k % channels
    inside = (tap < taps) & (output < outputs)
    at = ((group * outputs + output) * channels + channel) * taps + tap
    pattern = tl.load(w + at, mask=inside, other=0).to(tl.int32)
    pattern = tl.where(inside, pattern, beyond)
    tl.store(
        index + row.to(tl.int64) * PADDED_OUTPUTS + output,
        pattern * ROWS,
        mask=output < PADDED_OUTPUTS,
    )


@triton.jit
def gathered_convolution(
    x: tl.tensor,
    table: tl.tensor,
    index: tl.tensor,
    offsets: tl.tensor,
    result: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    places: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    group_step: tl.tensor,
    outputs: tl.tensor,
    groups: tl.tensor,
    LENGTH: tl.constexpr,
    PADDED_OUTPUTS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Sum over k of table[w, x], the table transposed: one look-up a multiplication.

    index as made by `index_weights`, LENGTH a multiple of DEPTH. Neighbouring threads take
    neighbouring positions, so that they read one column of products.
    """
    group = tl.program_id(2)
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    operands = x + (
        _first_operands(
            tl.minimum(position, positions - 1), width, places, image, row_step, column_step
        )
        + group * group_step
    )
    columns = index + group.to(tl.int64) * LENGTH * PADDED_OUTPUTS + output
    sums = tl.zeros((OUTPUTS, POSITIONS), tl.int32)
    for start in range(0, LENGTH, DEPTH):
        for part in tl.static_range(DEPTH):
            k = start + part
            pattern = tl.load(operands + tl.load(offsets + k)).to(tl.int32)
            column = tl.load(columns + k * PADDED_OUTPUTS)
            sums += tl.load(table + column[:, None] + pattern[None, :]).to(tl.int32)
    place = position.to(tl.int64)[None, :] * (groups * outputs) + group * outputs + output[:, None]
    inside = (output < outputs)[:, None] & (position < positions)[None, :]
    tl.store(result + place, sums, mask=inside)


@triton.jit
def lay_out_rows(
    index: tl.tensor,
    table: tl.tensor,
    rows: tl.tensor,
    length: tl.tensor,
    ROWS: tl.constexpr,
    PADDED_OUTPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PATTERNS: tl.constexpr,
) -> None:
    """rows (groups, PADDED_OUTPUTS / OUTPUTS, length, ROWS, OUTPUTS) = table[w, pattern].

    index as made by `index_weights`; the table transposed.
    """
    row = tl.program_id(0)
    block = tl.program_id(1)
    pattern = tl.program_id(2) * PATTERNS + tl.arange(0, PATTERNS)
    output = tl.arange(0, OUTPUTS)
    group, k = row // length, row % length
    column = tl.load(index + row.to(tl.int64) * PADDED_OUTPUTS + block * OUTPUTS + output)
    inside = (pattern < ROWS)[:, None] & (output >= 0)[None, :]
    product = tl.load(table + column[None, :] + pattern[:, None], mask=inside, other=0)
    at = (group * (PADDED_OUTPUTS // OUTPUTS) + block).to(tl.int64) * length + k
    place = (at * ROWS + pattern[:, None]) * OUTPUTS + output[None, :]
    tl.store(rows + place, product, mask=inside)


@triton.jit
def row_convolution(
    x: tl.tensor,
    rows: tl.tensor,
    offsets: tl.tensor,
    result: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    places: tl.tensor,
    image: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    group_step: tl.tensor,
    outputs: tl.tensor,
    groups: tl.tensor,
    LENGTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
    POSITIONS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Sum over k of the row of products that x selects, as made by `lay_out_rows`."""
    group, block = tl.program_id(2), tl.program_id(1)
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.arange(0, OUTPUTS)
    operands = x + (
        _first_operands(
            tl.minimum(position, positions - 1), width, places, image, row_step, column_step
        )
        + group * group_step
    )
    products = rows + (group * BLOCKS + block).to(tl.int64) * LENGTH * ROWS * OUTPUTS
    sums = tl.zeros((POSITIONS, OUTPUTS), tl.int32)
    for start in range(0, LENGTH, DEPTH):
        for part in tl.static_range(DEPTH):
            k = start + part
            pattern = tl.load(operands + tl.load(offsets + k)).to(tl.int32)
            at = (k * ROWS + pattern) * OUTPUTS
            sums += tl.load(products + at[:, None] + output[None, :]).to(tl.int32)
    channel = block * OUTPUTS + output
    place = position.to(tl.int64)[:, None] * (groups * outputs) + group * outputs + channel[None, :]
    inside = (position < positions)[:, None] & (channel < outputs)[None, :]
    tl.store(result + place, sums, mask=inside)
