"""The look-up of activation planes, compiled by numba without the interpreter's lock."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core.registry import cpu_target
from numpy.typing import NDArray

__all__ = ["expand_planes", "expand_planes_in_vectors", "has_byte_permutations"]

BYTES = 64  # of a vector


def has_byte_permutations() -> bool:
    """Whether numba compiles for a processor that looks up bytes in registers (VPERMI2B of
    AVX-512 VBMI)."""
    *_, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512vbmi" in features.split(",")


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


@numba.njit(nogil=True, cache=True, boundscheck=False)
def expand_planes_in_vectors(
    patterns: NDArray[np.uint8], tables: NDArray[np.uint8], planes: NDArray[np.uint8]
) -> None:
    """tables[k, patterns] side by side for each place, a vector at a time; where
    `has_byte_permutations`.

    patterns (places, channels), tables (K, 256), planes (places, K · channels), each contiguous.
    What a vector writes beyond its channels, a later one replaces; so the last places are looked up
    one by one.
    """
    places, channels = patterns.shape
    count = len(tables)
    within = max(0, places - 1 - (BYTES + channels - 1) // channels)
    source, target, table = patterns.ctypes.data, planes.ctypes.data, tables.ctypes.data
    for _ in range(within):
        for k in range(count):
            for c in range(0, channels, BYTES):
                _look_up(source + c, table + 256 * k, target + c)  # type: ignore[call-arg]
            target += channels
        source += channels
    for place in range(within, places):
        for k in range(count):
            for c in range(channels):
                planes[place, k * channels + c] = tables[k, patterns[place, c]]


@numba.extending.intrinsic
def _look_up(typing_context: Any, source: Any, table: Any, target: Any) -> Any:
    """64 bytes at `target` = the table's at the indices at `source`; all three are addresses."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), BYTES)
        first, entries, result = (
            builder.inttoptr(address, vector.as_pointer()) for address in arguments
        )
        index = builder.load(first, align=1)
        quarters = [
            builder.load(builder.gep(entries, [ir.IntType(32)(quarter)]), align=1)
            for quarter in range(4)
        ]
        permuted = numba.core.cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector] * 3),
            "llvm.x86.avx512.vpermi2var.qi.512",
        )
        low, high = (
            builder.call(permuted, [one, index, other])
            for one, other in (quarters[:2], quarters[2:])
        )
        upper = builder.icmp_signed("<", index, ir.Constant(vector, None))
        builder.store(builder.select(upper, high, low), result, align=1)
        return context.get_dummy_value()

    address = numba.types.intp
    return numba.types.void(address, address, address), generate
