"""Triton kernels that part the channels of an image, and that put them together, shuffled or not.

Images are (positions, C), channels last. The whole has the first `seen` channels and the `rest`
behind them; with PARTIAL groups of `group` channels each, channel g · group + i of these two lies
in the whole at PARTIAL · i + g. Counts of channels are in units of ALIGN, so that accesses are
wide. PARTIAL is a power of two.
"""

import triton
import triton.language as tl

# Not compiled anew for their values.
COUNTS = ["positions", "aligned_seen", "aligned_rest", "aligned_group", "aligned_step"]

__all__ = ["join_channels", "split_channels"]


@triton.jit(do_not_specialize=COUNTS)
def split_channels(
    whole: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    positions: tl.tensor,
    aligned_seen: tl.tensor,
    aligned_rest: tl.tensor,
    aligned_group: tl.tensor,
    aligned_step: tl.tensor,
    PARTIAL: tl.constexpr,
    ALIGN: tl.constexpr,
    STEP_ALIGN: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """first (positions, seen) and second (positions, rest) from the whole.

    `aligned_step`: from a position of the whole to the next, in units of STEP_ALIGN.
    """
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    place = p.to(tl.int64)
    c = tl.program_id(1) * (PARTIAL * CHANNELS) + tl.arange(0, PARTIAL * CHANNELS)
    group = aligned_group * ALIGN
    at = (place * (aligned_step * STEP_ALIGN))[:, None] + c[None, :]
    inside = (p < positions)[:, None] & (c < group * PARTIAL)[None, :]
    value = tl.load(whole + at, mask=inside)
    value = value.reshape(POSITIONS, CHANNELS, PARTIAL).permute(0, 2, 1)
    i = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    s = ((tl.arange(0, PARTIAL) * group)[:, None] + i[None, :])[None, :, :]
    known = (p < positions)[:, None, None] & (i < group)[None, None, :]
    seen, rest = aligned_seen * ALIGN, aligned_rest * ALIGN
    tl.store(first + (place * seen)[:, None, None] + s, value, mask=known & (s < seen))
    tl.store(second + (place * rest)[:, None, None] + (s - seen), value, mask=known & (s >= seen))


@triton.jit(do_not_specialize=COUNTS)
def join_channels(
    first: tl.tensor,
    second: tl.tensor,
    whole: tl.tensor,
    positions: tl.tensor,
    aligned_seen: tl.tensor,
    aligned_rest: tl.tensor,
    aligned_group: tl.tensor,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    PARTIAL: tl.constexpr,
    ALIGN: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """The whole, contiguous, from first (positions, seen) and second (positions, rest); zeros in
    the place of one that is not there (FIRST, SECOND).
    """
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    place = p.to(tl.int64)
    i = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    group = aligned_group * ALIGN
    s = ((tl.arange(0, PARTIAL) * group)[:, None] + i[None, :])[None, :, :]
    known = (p < positions)[:, None, None] & (i < group)[None, None, :]
    seen, rest = aligned_seen * ALIGN, aligned_rest * ALIGN
    value = tl.zeros((POSITIONS, PARTIAL, CHANNELS), whole.dtype.element_ty)
    if FIRST:
        at = (place * seen)[:, None, None] + s
        value = tl.load(first + at, mask=known & (s < seen), other=0.0)
    if SECOND:
        at = (place * rest)[:, None, None] + (s - seen)
        behind = tl.load(second + at, mask=known & (s >= seen), other=0.0)
        value = tl.where(s < seen, value, behind)
    value = value.permute(0, 2, 1).reshape(POSITIONS, CHANNELS * PARTIAL)
    c = tl.program_id(1) * (PARTIAL * CHANNELS) + tl.arange(0, PARTIAL * CHANNELS)
    at = (place * (group * PARTIAL))[:, None] + c[None, :]
    inside = (p < positions)[:, None] & (c < group * PARTIAL)[None, :]
    tl.store(whole + at, value, mask=inside)
