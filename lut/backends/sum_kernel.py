"""Triton kernel of sums over the first dimension: columns are shared by programs, rows are not."""

import triton
import triton.language as tl

__all__ = ["add_parts"]


@triton.jit(do_not_specialize=["rows"])
def add_parts(
    parts: tl.tensor,
    result: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """result[column] = sum of parts[:, column]; parts (rows, width)."""
    column = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    row, known = tl.arange(0, ROWS)[:, None], (column < width)[None, :]
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(0, rows, ROWS):
        at = (start + row).to(tl.int64) * width + column[None, :]
        sums += tl.load(parts + at, mask=known & (start + row < rows), other=0.0)
    tl.store(result + column, tl.sum(sums, 0), mask=column < width)
