"""The inner loops of row adding, compiled by numba without the interpreter's lock."""

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["add_rows"]

OPERANDS_AT_ONCE = 8


@numba.njit(nogil=True, cache=True, boundscheck=False)
def add_rows(
    images: NDArray[np.uint8],
    bases: NDArray[np.int64],
    offsets: NDArray[np.int64],
    table: NDArray[np.int32],
    weights: NDArray[np.uint8],
    sums: NDArray[np.int32],
) -> None:
    """sums[p, o] += sum over k of table[images[bases[p] + offsets[k]], weights[k, o]]."""
    outputs = weights.shape[1]
    # Operands beyond the last one of the sum read rows of zeros.
    rows = np.zeros((OPERANDS_AT_ONCE, table.shape[0], outputs), np.int32)
    at = np.zeros(OPERANDS_AT_ONCE, np.int64)
    for start in range(0, len(offsets), OPERANDS_AT_ONCE):
        count = min(OPERANDS_AT_ONCE, len(offsets) - start)
        for k in range(OPERANDS_AT_ONCE):
            at[k] = offsets[start + min(k, count - 1)]
            for a in range(table.shape[0]):
                for o in range(outputs):
                    rows[k, a, o] = table[a, weights[start + k, o]] if k < count else 0
        for p in range(len(bases)):
            base = bases[p]
            r0 = rows[0, images[base + at[0]]]
            r1 = rows[1, images[base + at[1]]]
            r2 = rows[2, images[base + at[2]]]
            r3 = rows[3, images[base + at[3]]]
            r4 = rows[4, images[base + at[4]]]
            r5 = rows[5, images[base + at[5]]]
            r6 = rows[6, images[base + at[6]]]
            r7 = rows[7, images[base + at[7]]]
            target = sums[p]
            for o in range(outputs):
                target[o] += ((r0[o] + r1[o]) + (r2[o] + r3[o])) + (
                    (r4[o] + r5[o]) + (r6[o] + r7[o])
                )
