"""Bytes laid out channels last in a border, compiled by numba without the interpreter's lock."""

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["lay_out"]

BYTES, PAIRS, QUADS = (np.uint64(word) for word in (0x00FF00FF00FF00FF, 0xFFFF0000FFFF, 0xFFFFFFFF))
ONE, TWO, FOUR = np.uint64(8), np.uint64(16), np.uint64(32)  # bits of so many bytes


@numba.njit(nogil=True, cache=True, boundscheck=False)
def lay_out(
    images: NDArray[np.uint64],
    padded: NDArray[np.uint64],
    padding: tuple[int, int],
    value: np.uint64,
    rows: tuple[int, int],
) -> None:
    """Rows low … high - 1 of all images: bytes of `images` in the middle, of `value` around.

    Words of eight bytes, the first in the lowest bits: images (N, C, H, W / 8), padded
    (N, H + 2·pH, W + 2·pW, C / 8).
    """
    top, left = padding
    _, _, height, words = images.shape
    for row in range(rows[0], rows[1]):
        n, y = row // padded.shape[1], row % padded.shape[1] - top
        result = padded[n, y + top]
        if y < 0 or y >= height:
            result[:] = value
            continue
        result[:left] = value
        result[left + 8 * words :] = value
        for k in range(padded.shape[3]):
            first = 8 * k
            for j in range(words):
                a, b, c, d, e, f, g, h = _transposed(
                    images[n, first, y, j],
                    images[n, first + 1, y, j],
                    images[n, first + 2, y, j],
                    images[n, first + 3, y, j],
                    images[n, first + 4, y, j],
                    images[n, first + 5, y, j],
                    images[n, first + 6, y, j],
                    images[n, first + 7, y, j],
                )
                x = left + 8 * j
                result[x, k], result[x + 1, k], result[x + 2, k], result[x + 3, k] = a, b, c, d
                result[x + 4, k], result[x + 5, k], result[x + 6, k], result[x + 7, k] = e, f, g, h


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _transposed(
    a: np.uint64,
    b: np.uint64,
    c: np.uint64,
    d: np.uint64,
    e: np.uint64,
    f: np.uint64,
    g: np.uint64,
    h: np.uint64,
) -> tuple[np.uint64, ...]:
    """Byte i of word j of the result is byte j of word i.

    Quarters of the 8×8 matrix change places, then those of each quarter, in registers (Warren,
    Hacker's Delight, 7-3).
    """
    a, e = _exchanged(a, e, QUADS, FOUR)
    b, f = _exchanged(b, f, QUADS, FOUR)
    c, g = _exchanged(c, g, QUADS, FOUR)
    d, h = _exchanged(d, h, QUADS, FOUR)
    a, c = _exchanged(a, c, PAIRS, TWO)
    b, d = _exchanged(b, d, PAIRS, TWO)
    e, g = _exchanged(e, g, PAIRS, TWO)
    f, h = _exchanged(f, h, PAIRS, TWO)
    a, b = _exchanged(a, b, BYTES, ONE)
    c, d = _exchanged(c, d, BYTES, ONE)
    e, f = _exchanged(e, f, BYTES, ONE)
    g, h = _exchanged(g, h, BYTES, ONE)
    return a, b, c, d, e, f, g, h


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _exchanged(
    low: np.uint64, high: np.uint64, mask: np.uint64, bits: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """The upper parts of `low` change places with the lower parts, under `mask`, of `high`."""
    moved = ((low >> bits) ^ high) & mask
    return low ^ (moved << bits), high ^ moved
