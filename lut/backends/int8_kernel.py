"""The look-up of activation planes, compiled by numba without the interpreter's lock."""

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["expand_planes"]


@numba.njit(nogil=True, cache=True, boundscheck=False)
def expand_planes(
    patterns: NDArray[np.uint8],
    words: NDArray[np.int32],
    rest: NDArray[np.uint8],
    by_word: NDArray[np.int32],
    by_byte: NDArray[np.uint8],
) -> None:
    """words[k, patterns], then rest[k, patterns], side by side for each place.

    patterns (places, channels); words (W, 256), rest (K, 256); by_byte (places, (4·W + K) ·
    channels), of which by_word is the view as int32.
    """
    places, channels = patterns.shape
    for place in range(places):
        row = patterns[place]
        for k in range(len(words)):
            table = words[k]
            for c in range(channels):
                by_word[place, k * channels + c] = table[row[c]]
        for k in range(len(rest)):
            column = rest[k]
            first = (4 * len(words) + k) * channels
            for c in range(channels):
                by_byte[place, first + c] = column[row[c]]
