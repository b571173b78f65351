"""Depthwise layers by look-ups, compiled by numba without the interpreter's lock."""

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["add_by_pattern", "add_looked_up"]


@numba.njit(nogil=True, cache=True, boundscheck=False)
def add_looked_up(
    patterns: NDArray[np.uint8],
    tables: NDArray[np.number],
    sums: NDArray[np.number],
    taps: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    channels: tuple[int, int],
) -> None:
    """sums[n, y, x, c] += tables[tap, c, pattern] over all taps, for channels low … high - 1.

    patterns (N, H, W, C); tables (taps, C, 256); sums (N, H', W', C).
    """
    low, high = channels
    batch, height, width, _ = sums.shape
    for n in range(batch):
        for tap in range(taps[0] * taps[1]):
            table = tables[tap]  # in the first cache for a whole image
            down, right = tap // taps[1] * dilation[0], tap % taps[1] * dilation[1]
            for y in range(height):
                row, result = patterns[n, y * stride[0] + down], sums[n, y]
                for x in range(width):
                    place = row[x * stride[1] + right]
                    for c in range(low, high):
                        result[x, c] += table[c, place[c]]


@numba.njit(nogil=True, cache=True, boundscheck=False)
def add_by_pattern(
    patterns: NDArray[np.uint8],
    sums: NDArray[np.float64],
    gradient: NDArray[np.float32],
    taps: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    channels: tuple[int, int],
) -> None:
    """sums[tap, c, pattern] += gradient[n, y, x, c]: the transpose of `add_looked_up`."""
    low, high = channels
    batch, height, width, _ = gradient.shape
    for n in range(batch):
        for tap in range(taps[0] * taps[1]):
            table = sums[tap]
            down, right = tap // taps[1] * dilation[0], tap % taps[1] * dilation[1]
            for y in range(height):
                row, signal = patterns[n, y * stride[0] + down], gradient[n, y]
                for x in range(width):
                    place = row[x * stride[1] + right]
                    for c in range(low, high):
                        table[c, place[c]] += signal[x, c]
