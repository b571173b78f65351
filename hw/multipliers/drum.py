"""DRUM: the k leading bits of each operand multiplied exactly, the lowest of them made a one.

An operand below 2^k is taken as it is. Of any other the k bits from its leading one on are kept and
the lowest of these is set, which is the mean of what is cut off. The relative error of an operand
is at most 2^(1-k), so that of a product is between -(2·2^(1-k)) and (1 + 2^(1-k))^2 - 1.
"""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component

from .circuit import magnitude_multiplier
from .gates import Bits, Gates
from .multiplier import Family, Parameter, Shape
from .reduction import AdderArray, Columns, dadda_sum, place_bits


def drum_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Segments of k bits, a k×k Dadda multiplier, a shift."""
    (kept,) = parameters

    def magnitudes(gates: Gates, m: Module, a: Bits, b: Bits) -> Bits:
        (x, x_shift), (y, y_shift) = (_segment(gates, bits, kept) for bits in (a, b))
        columns: Columns = {}
        for row, bit in enumerate(y):
            place_bits(columns, row, [gates.both(other, bit, "product") for other in x])
        total = dadda_sum(AdderArray(m, 0), columns, 2 * kept)
        product = [total.get(column, 0) for column in range(2 * kept)]
        return gates.shifted(product, gates.total(x_shift, y_shift), len(a) + len(b))

    return magnitude_multiplier(shape, magnitudes)


def _segment(gates: Gates, x: Bits, kept: int) -> tuple[Bits, Bits]:
    """The k bits that are multiplied, and by how much they were moved down."""
    leading = gates.leading_one(x)[kept:]
    cut = gates.some(leading, "cut")
    moved = [gates.inverted(cut, "whole"), *leading]
    segment = [
        gates.some(
            [gates.both(choice, x[place + by]) for by, choice in enumerate(moved)], "segment"
        )
        for place in range(kept)
    ]
    segment[0] = gates.either(x[0], cut, "unbiased")
    return segment, gates.encoded(moved)


FAMILY = Family(
    name="drum",
    summary="the k leading bits of each operand, the lowest set; signed by magnitudes",
    source="S. Hashemi, R. I. Bahar, S. Reda, IEEE/ACM Int. Conf. Computer-Aided Design (2015) 418",
    parameters=(
        Parameter("k", "bits kept", 2, lambda shape: min(shape.a_width, shape.b_width) - 1),
    ),
    component=drum_multiplier,
)
