"""The recursive multiplier of 2×2-bit blocks, those of the lowest diagonals approximate.

Operands are cut into digits of two bits; block (i, j) multiplies digits i and j, and all blocks are
added exactly with their weights 4^(i+j), which is what the recursion comes to. Kulkarni's block
gives 3·3 = 7 in three bits instead of 9 in four; the d lowest diagonals i + j < d are made of it.
The product is never above the exact one; a block in error lacks 2·4^(i+j).
"""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component

from .circuit import magnitude_multiplier
from .gates import Bits, Gates, padded
from .multiplier import Family, Parameter, Shape
from .reduction import AdderArray, Columns, dadda_sum, place_bits


def recursive_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Approximate blocks on the d lowest diagonals, exact ones above."""
    (diagonals,) = parameters

    def magnitudes(gates: Gates, m: Module, a: Bits, b: Bits) -> Bits:
        columns: Columns = {}
        for i in range(0, len(a), 2):
            for j in range(0, len(b), 2):
                block = approximate_block if (i + j) // 2 < diagonals else exact_block
                digits = padded(a[i : i + 2], 2), padded(b[j : j + 2], 2)
                place_bits(columns, i + j, block(gates, *digits))
        total = dadda_sum(AdderArray(m, 0), columns, len(a) + len(b))
        return [total.get(column, 0) for column in range(len(a) + len(b))]

    return magnitude_multiplier(shape, magnitudes)


def exact_block(gates: Gates, a: Bits, b: Bits) -> Bits:
    """a·b of two bits each, four bits."""
    corners = gates.both(a[0], b[0]), gates.both(a[1], b[1])
    crossed = gates.both(a[1], b[0]), gates.both(a[0], b[1])
    carry = gates.both(*crossed, "carry")
    high = gates.differ(corners[1], carry, "high")
    return [corners[0], gates.differ(*crossed), high, gates.both(corners[1], carry, "top")]


def approximate_block(gates: Gates, a: Bits, b: Bits) -> Bits:
    """a·b of two bits each in three bits, but 3·3 = 7."""
    crossed = gates.both(a[1], b[0]), gates.both(a[0], b[1])
    return [gates.both(a[0], b[0]), gates.either(*crossed), gates.both(a[1], b[1])]


def _diagonals(shape: Shape) -> int:
    return (shape.a_width + 1) // 2 + (shape.b_width + 1) // 2 - 1


FAMILY = Family(
    name="recursive",
    summary="2×2-bit blocks, those of the d lowest diagonals with 3·3 = 7; signed by magnitudes",
    source="P. Kulkarni, P. Gupta, M. Ercegovac, Int. Conf. VLSI Design (2011) 346",
    parameters=(Parameter("d", "approximate diagonals", 1, _diagonals),),
    component=recursive_multiplier,
)
