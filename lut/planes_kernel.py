"""The look-up of float planes, compiled by numba without the interpreter's lock."""

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["look_up"]


@numba.njit(nogil=True, cache=True, boundscheck=False)
def look_up(
    patterns: NDArray[np.integer], u: NDArray[np.float32], planes: NDArray[np.float32]
) -> None:
    """planes[i] = u[patterns[i]]: patterns (n,), u (rows, R), planes (n, R)."""
    rank = u.shape[1]
    for i in range(len(patterns)):
        row = patterns[i]
        for r in range(rank):
            planes[i, r] = u[row, r]
