"""Multipliers whose low columns are added by approximate 4:2 compressors of two outputs.

An exact 4:2 compressor takes and gives a carry besides; these take four bits of a column and give
sum and carry alone, at most 3 for 4:
  momeni         sum = (x1 XNOR x2) OR (x3 XNOR x4), carry = (x1 OR x2)(x3 OR x4). Wrong for 4 of 16
                 inputs: 0000 gives 1 (so 0·x is not 0), 0011 and 1100 give 1, 1111 gives 3
  venkatachalam  sum = (x1 XOR x2) OR (x3 XOR x4) OR x1·x2·x3·x4, carry = x1·x2 OR x3·x4. Wrong for
                 5 of 16: one of each pair gives 1, 1111 gives 3
  saturating     only 1111 is wrong: 3
Reduction, in stages until no column has more than two bits: from column 0 up, bits in order; fours
into compressors (columns below k), then threes into full adders, the one or two left pass on to the
end of their column; sums are appended to their column and carries to the next one, as they arise.
Then one ripple of carries. Partial products are in rows by bits of b; signed by magnitudes.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

from amaranth.hdl import Module
from amaranth.lib.wiring import Component

from .circuit import magnitude_multiplier
from .gates import Bit, Bits, Gates
from .multiplier import Family, Parameter, Shape
from .reduction import AdderArray, Columns, place_bits, ripple

Compressor = Callable[[Gates, Bits], tuple[Bit, Bit]]
"""Sum and carry of four bits of a column."""


def momeni(gates: Gates, x: Bits) -> tuple[Bit, Bit]:
    equal = [gates.inverted(gates.differ(*pair), "equal") for pair in _pairs(x)]
    ones = [gates.either(*pair) for pair in _pairs(x)]
    return gates.some(equal, "sum"), gates.every(ones, "carry")


def venkatachalam(gates: Gates, x: Bits) -> tuple[Bit, Bit]:
    full = [gates.both(*pair) for pair in _pairs(x)]
    single = [gates.differ(*pair) for pair in _pairs(x)]
    total = gates.either(gates.some(single), gates.every(full), "sum")
    return total, gates.some(full, "carry")


def saturating(gates: Gates, x: Bits) -> tuple[Bit, Bit]:
    full = [gates.both(*pair) for pair in _pairs(x)]
    ones = [gates.either(*pair) for pair in _pairs(x)]
    single = [gates.differ(*pair) for pair in _pairs(x)]
    total = gates.either(gates.differ(single[0], single[1]), gates.every(full), "sum")
    return total, gates.either(gates.some(full), gates.every(ones), "carry")


def _pairs(x: Bits) -> tuple[tuple[Bit, Bit], tuple[Bit, Bit]]:
    return (x[0], x[1]), (x[2], x[3])


def compressor_multiplier(
    compress: Compressor, shape: Shape, parameters: tuple[int, ...]
) -> Component:
    """Approximate in the k lowest columns."""
    (approximate,) = parameters

    def magnitudes(gates: Gates, m: Module, a: Bits, b: Bits) -> Bits:
        columns: Columns = {}
        for row, bit in enumerate(b):
            place_bits(columns, row, [gates.both(other, bit, "product") for other in a])
        width = len(a) + len(b)
        while max(map(len, columns.values())) > 2:
            columns = _stage(gates, compress, columns, approximate)
        total = ripple(AdderArray(m, 0), columns, width)
        return [total.get(column, 0) for column in range(width)]

    return magnitude_multiplier(shape, magnitudes)


def _stage(gates: Gates, compress: Compressor, columns: Columns, approximate: int) -> Columns:
    after: Columns = defaultdict(list)
    for column in sorted(columns):
        bits = list(columns[column])
        while len(bits) > 2:
            if column < approximate and len(bits) > 3:
                total, carry = compress(gates, bits[:4])
                bits = bits[4:]
            else:
                total, carry = gates.added(*bits[:3])
                bits = bits[3:]
            after[column].append(total)
            after[column + 1].append(carry)
        after[column] += bits
    return after


def _family(name: str, source: str, compress: Compressor, keeps_zero: bool) -> Family:
    return Family(
        name=f"compressor_{name}",
        summary=f"{name} 4:2 compressors in the k lowest columns; signed by magnitudes",
        source=source,
        parameters=(Parameter("k", "approximate columns", 1, lambda shape: shape.p_width),),
        component=partial(compressor_multiplier, compress),
        keeps_zero=keeps_zero,
    )


MOMENI = _family(
    "momeni",
    "A. Momeni et al., IEEE Trans. Comput. 64 (2015) 984, design 2",
    momeni,
    keeps_zero=False,
)
VENKATACHALAM = _family(
    "venkatachalam",
    "S. Venkatachalam, S.-B. Ko, IEEE Trans. VLSI Syst. 25 (2017) 1782, the 4:2 compressor",
    venkatachalam,
    keeps_zero=True,
)
SATURATING = _family(
    "saturating",
    "Z. Yang, J. Han, F. Lombardi, IEEE Int. Symp. Defect and Fault Tolerance (2015) 183, "
    "the design with one wrong row",
    saturating,
    keeps_zero=True,
)
