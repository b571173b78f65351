"""Bytes laid out channels last in a border, compiled by numba without the interpreter's lock."""

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["convert", "lay_out"]

BYTES, PAIRS, QUADS = (np.uint64(word) for word in (0x00FF00FF00FF00FF, 0xFFFF0000FFFF, 0xFFFFFFFF))
ONE, TWO, FOUR = np.uint64(8), np.uint64(16), np.uint64(32)  # bits of so many bytes


BLOCK_BYTES = 1 << 17  # of the result, in the second cache


@numba.njit(nogil=True, cache=True, boundscheck=False)
def lay_out(
    images: NDArray[np.uint64],
    padded: NDArray[np.uint64],
    padding: tuple[int, int],
    value: np.uint64,
) -> None:
    """Bytes of `images` in the middle of `padded`, of `value` around.

    Words of eight bytes, the first in the lowest bits: images (N, C, H, W / 8), padded
    (N, H + 2·pH, W + 2·pW, C / 8).
    """
    top, left = padding
    batch, _, height, words = images.shape
    rows = max(1, BLOCK_BYTES // (64 * words * padded.shape[3]))
    for n in range(batch):
        padded[n, :top] = value
        padded[n, top + height :] = value
        padded[n, top : top + height, :left] = value
        padded[n, top : top + height, left + 8 * words :] = value
        middle = padded[n, top : top + height, left : left + 8 * words]
        for start in range(0, height, rows):
            stop = min(height, start + rows)
            _lay_out_rows(images[n, :, start:stop], middle[start:stop])


@numba.njit(nogil=True, cache=True, boundscheck=False)
def convert(
    images: NDArray[np.uint64],
    floats: NDArray[np.float32],
    words: NDArray[np.uint64],
    values: NDArray[np.integer],
) -> None:
    """Bytes of `images` as numbers (N, H, W, C); `words` (rows, W, C / 8) and `values`
    (rows, W, C) are one memory, for a few rows at a time.
    """
    batch, height, width, channels = floats.shape
    for n in range(batch):
        for start in range(0, height, len(words)):
            stop = min(height, start + len(words))
            _lay_out_rows(images[n, :, start:stop], words[: stop - start])
            for y in range(start, stop):
                for x in range(width):
                    for c in range(channels):
                        floats[n, y, x, c] = values[y - start, x, c]


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _lay_out_rows(image: NDArray[np.uint64], result: NDArray[np.uint64]) -> None:
    """Eight channels after the other, so that the rows of each are read one after the other."""
    for k in range(result.shape[2]):
        for y in range(image.shape[1]):
            for j in range(image.shape[2]):
                a, b, c, d, e, f, g, h = _transposed(
                    image[8 * k, y, j],
                    image[8 * k + 1, y, j],
                    image[8 * k + 2, y, j],
                    image[8 * k + 3, y, j],
                    image[8 * k + 4, y, j],
                    image[8 * k + 5, y, j],
                    image[8 * k + 6, y, j],
                    image[8 * k + 7, y, j],
                )
                row, x = result[y], 8 * j
                row[x, k], row[x + 1, k], row[x + 2, k], row[x + 3, k] = a, b, c, d
                row[x + 4, k], row[x + 5, k], row[x + 6, k], row[x + 7, k] = e, f, g, h


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
