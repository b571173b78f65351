"""Radix-4 Booth multipliers: exact, and with the approximate encoder in the low columns.

Digit j of b is d = -2·b_{2j+1} + b_{2j} + b_{2j-1}, one of -2 … 2, and its row is d·a: 0, a or 2a,
inverted where d < 0, with a one added in the row's lowest column. A row's sign bit has weight -2^n,
and is added as its inverse with -2^n in one constant. Unsigned operands get a zero above them.

The approximate encoder leaves ±2a out of the bits of columns below c: a bit there is (b_{2j} XOR
b_{2j-1})(b_{2j+1} XOR a_i), four of 32 cases wrong. A row's sign bit is such a bit, too, and stands
for all above it. The one of a negative row is still added, so that 0·b is not always 0, although
a·0 is. Up to c = a_width no product is above the exact one, and a row lacks less than 2^c. Unsigned
products that fall below zero wrap around.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from amaranth.hdl import Module, Value
from amaranth.lib.wiring import Component

from .circuit import CircuitMultiplier
from .gates import Bit, Bits, Gates
from .multiplier import Family, Parameter, Shape
from .reduction import AdderArray, Columns, dadda_sum, place_bits


@dataclass(frozen=True)
class Digit:
    """A Booth digit's lines: ±1, ±2, and below zero."""

    one: Bit
    two: Bit
    negative: Bit


def booth_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Rows of Booth digits, added by a Dadda tree; approximate below the column given, if any."""
    approximate = parameters[0] if parameters else 0

    def circuit(m: Module, a: Value, b: Value) -> Mapping[int, Bit]:
        gates = Gates(m)
        x = list(a) if shape.signed else [*a, 0]
        y = [*b, 0] if not shape.signed else list(b)
        columns: Columns = {}
        constant = 0
        for lowest in range(0, len(y), 2):
            digit = _digit(gates, y, lowest)
            row = _row(gates, x, digit, approximate - lowest)
            row[-1] = gates.inverted(row[-1], "sign")
            constant -= 1 << (lowest + len(row) - 1)
            place_bits(columns, lowest, row)
            place_bits(columns, lowest, [digit.negative])
        columns = {column: bits for column, bits in columns.items() if column < shape.p_width}
        ones = AdderArray(m, constant % (1 << shape.p_width))
        return dadda_sum(ones, columns, shape.p_width)

    return CircuitMultiplier(shape, circuit)


def _digit(gates: Gates, y: Bits, lowest: int) -> Digit:
    """The digit at bits ``lowest`` and the one above; beyond the top, the top bit."""
    high, middle = y[min(lowest + 1, len(y) - 1)], y[lowest]
    low = y[lowest - 1] if lowest else 0
    one = gates.differ(middle, low, "one")
    if high is middle:  # 0 or -1: one bit of its own, and its sign
        return Digit(one, 0, gates.both(high, gates.inverted(low), "negative"))
    two = gates.both(gates.differ(high, middle), gates.inverted(one), "two")
    negative = gates.both(high, gates.inverted(gates.both(middle, low)), "negative")
    return Digit(one, two, negative)


def _row(gates: Gates, x: Bits, digit: Digit, approximate: int) -> Bits:
    """d·a but for the one of a negative row, two's complement; x's top bit is its sign."""
    row = []
    for at in range(len(x) + 1):
        bit = x[min(at, len(x) - 1)]
        if at < approximate:
            signed = gates.differ(bit, digit.negative, "signed")
            row.append(gates.both(digit.one, signed, "row"))
            continue
        single = gates.both(digit.one, bit, "single")
        double = gates.both(digit.two, x[at - 1] if at else 0, "double")
        row.append(gates.differ(gates.either(single, double, "selected"), digit.negative, "row"))
    return row


EXACT = Family(
    name="booth",
    summary="exact: radix-4 Booth digits, a Dadda tree",
    source="O. L. MacSorley, Proc. IRE 49 (1961) 67",
    parameters=(),
    component=booth_multiplier,
)
APPROXIMATE = Family(
    name="booth_approximate",
    summary="radix-4 Booth digits, ±2a left out of the columns below c",
    source="W. Liu et al., IEEE Trans. Comput. 66 (2017) 1435, encoder R4ABE1",
    parameters=(Parameter("c", "approximate columns", 1, lambda shape: shape.p_width),),
    component=booth_multiplier,
    keeps_zero=False,
)
