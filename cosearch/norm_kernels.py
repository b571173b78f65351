"""Triton kernels of weighted sums of batch norms: statistics, sums and gradients.

Terms z_j and the result are (positions, C), contiguous: images, channels last. The first NORMED
terms are normalised by their batch's statistics, without gain and shift; the others are as they
are. ``y = base + sum_j weights[j] · term_j``, rectified where RELU. Sums are float32.
"""

import triton
import triton.language as tl

# Not compiled anew for their values.
COUNTS = ["positions", "turns", "programs", "momentum", "eps"]

__all__ = ["batch_statistics", "partial_moments", "partial_products", "term_gradients", "weigh"]


@triton.jit(do_not_specialize=COUNTS)
def partial_moments(
    terms: tl.tensor,
    parts: tl.tensor,
    positions: tl.tensor,
    channels: tl.tensor,
    turns: tl.tensor,
    NORMED: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """parts[program, j, :, c]: sum and sum of squares of term j over the program's positions."""
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    for j in tl.static_range(NORMED):
        total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
        squares = tl.zeros((POSITIONS, CHANNELS), tl.float32)
        for turn in range(turns):
            p = (tl.program_id(0) * turns + turn) * POSITIONS + tl.arange(0, POSITIONS)
            inside = (p < positions)[:, None] & (c < channels)[None, :]
            at = p[:, None] * channels + c[None, :]
            value = tl.load(terms[j] + at, mask=inside, other=0.0).to(tl.float32)
            total += value
            squares += value * value
        row = (tl.program_id(0) * NORMED + j) * 2 * channels + c
        tl.store(parts + row, tl.sum(total, 0), mask=c < channels)
        tl.store(parts + row + channels, tl.sum(squares, 0), mask=c < channels)


@triton.jit(do_not_specialize=COUNTS)
def batch_statistics(
    parts: tl.tensor,
    means: tl.tensor,
    variances: tl.tensor,
    statistics: tl.tensor,
    positions: tl.tensor,
    channels: tl.tensor,
    programs: tl.tensor,
    momentum: tl.tensor,
    eps: tl.tensor,
    NORMED: tl.constexpr,
    PROGRAMS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """statistics[j, :, c]: mean and 1 / standard deviation; running means and variances move."""
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known, program = c < channels, tl.arange(0, PROGRAMS)
    count = positions * 1.0
    for j in tl.static_range(NORMED):
        at = ((program * NORMED + j) * 2 * channels)[:, None] + c[None, :]
        inside = (program < programs)[:, None] & known[None, :]
        mean = tl.sum(tl.load(parts + at, mask=inside, other=0.0), 0) / count
        squares = tl.sum(tl.load(parts + at + channels, mask=inside, other=0.0), 0) / count
        variance = tl.maximum(squares - mean * mean, 0.0)
        at = j * 2 * channels + c
        tl.store(statistics + at, mean, mask=known)
        tl.store(statistics + at + channels, 1.0 / tl.sqrt(variance + eps), mask=known)
        unbiased = variance * (count / (count - 1.0))
        before = tl.load(means[j] + c, mask=known, other=0.0)
        tl.store(means[j] + c, before + momentum * (mean - before), mask=known)
        before = tl.load(variances[j] + c, mask=known, other=0.0)
        tl.store(variances[j] + c, before + momentum * (unbiased - before), mask=known)


@triton.jit
def _term(
    term: tl.tensor,
    statistics: tl.tensor,
    at: tl.tensor,
    c: tl.tensor,
    inside: tl.tensor,
    channels: tl.tensor,
    j: tl.constexpr,
    NORMED: tl.constexpr,
) -> tl.tensor:
    """Term j, normalised where it is to be, float32."""
    value = tl.load(term + at, mask=inside, other=0.0).to(tl.float32)
    if j < NORMED:
        known = c < channels
        mean = tl.load(statistics + j * 2 * channels + c, mask=known, other=0.0)
        scale = tl.load(statistics + (j * 2 + 1) * channels + c, mask=known, other=0.0)
        value = (value - mean[None, :]) * scale[None, :]
    return value


@triton.jit(do_not_specialize=COUNTS)
def weigh(
    terms: tl.tensor,
    base: tl.tensor,
    result: tl.tensor,
    weights: tl.tensor,
    statistics: tl.tensor,
    positions: tl.tensor,
    channels: tl.tensor,
    TERMS: tl.constexpr,
    NORMED: tl.constexpr,
    BASED: tl.constexpr,
    RELU: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """result = base (where BASED) + sum_j weights[j] · term_j."""
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (p < positions)[:, None] & (c < channels)[None, :]
    at = p[:, None] * channels + c[None, :]
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    if BASED:
        total = tl.load(base + at, mask=inside, other=0.0).to(tl.float32)
    for j in tl.static_range(TERMS):
        value = _term(terms[j], statistics, at, c, inside, channels, j, NORMED)
        total += tl.load(weights + j) * value
    if RELU:
        total = tl.maximum(total, 0.0)
    tl.store(result + at, total.to(result.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=COUNTS)
def partial_products(
    terms: tl.tensor,
    signal: tl.tensor,
    statistics: tl.tensor,
    parts: tl.tensor,
    positions: tl.tensor,
    channels: tl.tensor,
    turns: tl.tensor,
    TERMS: tl.constexpr,
    NORMED: tl.constexpr,
    RELU: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """parts[program, j, c] = sum of signal · term_j; of the signal alone at j = TERMS.

    RELU: for one term of weight one; the signal counts where it is above zero.
    """
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = c < channels
    for j in tl.static_range(TERMS + 1):
        total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
        for turn in range(turns):
            p = (tl.program_id(0) * turns + turn) * POSITIONS + tl.arange(0, POSITIONS)
            inside = (p < positions)[:, None] & known[None, :]
            at = p[:, None] * channels + c[None, :]
            value = tl.load(signal + at, mask=inside, other=0.0).to(tl.float32)
            if RELU:
                own = _term(terms[0], statistics, at, c, inside, channels, 0, NORMED)
                value = tl.where(own > 0, value, 0.0)
            if j < TERMS:
                value *= _term(terms[j], statistics, at, c, inside, channels, j, NORMED)
            total += value
        row = (tl.program_id(0) * (TERMS + 1) + j) * channels + c
        tl.store(parts + row, tl.sum(total, 0), mask=known)


@triton.jit(do_not_specialize=COUNTS)
def term_gradients(
    terms: tl.tensor,
    signal: tl.tensor,
    results: tl.tensor,
    weights: tl.tensor,
    statistics: tl.tensor,
    products: tl.tensor,
    positions: tl.tensor,
    channels: tl.tensor,
    TERMS: tl.constexpr,
    NORMED: tl.constexpr,
    RELU: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """results[j]: gradient of term j before it is normalised; products as `partial_products` adds
    them up, (TERMS + 1, C).

    With g the gradient of the normalised term z: ``(g - mean(g) - z · mean(g · z)) / deviation``.
    """
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known, count = c < channels, positions * 1.0
    inside = (p < positions)[:, None] & known[None, :]
    at = p[:, None] * channels + c[None, :]
    value = tl.load(signal + at, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        positive = _term(terms[0], statistics, at, c, inside, channels, 0, NORMED) > 0
        value = tl.where(positive, value, 0.0)
    mean = tl.load(products + TERMS * channels + c, mask=known, other=0.0) / count
    for j in tl.static_range(TERMS):
        scale = tl.load(weights + j)
        if j < NORMED:
            own = _term(terms[j], statistics, at, c, inside, channels, j, NORMED)
            along = tl.load(products + j * channels + c, mask=known, other=0.0) / count
            through = value - mean[None, :] - own * along[None, :]
            deviation = tl.load(statistics + (j * 2 + 1) * channels + c, mask=known, other=0.0)
            through = through * (scale * deviation)[None, :]
        else:
            through = value * scale
        tl.store(results[j] + at, through.to(results[j].dtype.element_ty), mask=inside)
