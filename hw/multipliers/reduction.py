"""Adding rows or columns of bits: adders as named submodules, constants folded into them.

``total_<column>`` of an adder stays in its column, ``carry`` goes to the next; what would leave the
topmost column is dropped (sums are modulo 2^width).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from amaranth.hdl import Module, Signal, Value

from .adders import FullAdder, HalfAdder, HalfAdderPlusOne

Columns = dict[int, list[Value]]


class AdderArray:
    """Places adders in a module; their names say column and number: ``full_adder_5_2``."""

    def __init__(self, m: Module, width: int) -> None:
        self._m = m
        self._width = width
        self._placed: dict[int, int] = defaultdict(int)

    def full_adder(self, column: int, a: Value, b: Value, c: Value) -> tuple[Value, Value]:
        """Sum and carry of three bits."""
        adder = FullAdder()
        self._m.d.comb += [adder.a.eq(a), adder.b.eq(b), adder.c.eq(c)]
        self._place("full_adder", column, adder)
        return adder.total, adder.carry

    def half_adder(self, column: int, a: Value, b: Value) -> tuple[Value, Value]:
        """Sum and carry of two bits."""
        adder = HalfAdder()
        self._m.d.comb += [adder.a.eq(a), adder.b.eq(b)]
        self._place("half_adder", column, adder)
        return adder.total, adder.carry

    def half_adder_plus_one(self, column: int, a: Value, b: Value) -> tuple[Value, Value]:
        """Sum and carry of two bits and a constant one."""
        adder = HalfAdderPlusOne()
        self._m.d.comb += [adder.a.eq(a), adder.b.eq(b)]
        self._place("half_adder_plus_one", column, adder)
        return adder.total, adder.carry

    def plus_one(self, column: int, a: Value) -> tuple[Value, Value]:
        """Sum and carry of a bit and a constant one: an inverter."""
        inverted = Signal(name=f"inverted_{column}_{self._number(column)}")
        self._m.d.comb += inverted.eq(~a)
        return inverted, a

    def _place(
        self, kind: str, column: int, adder: FullAdder | HalfAdder | HalfAdderPlusOne
    ) -> None:
        self._m.submodules[f"{kind}_{column}_{self._number(column)}"] = adder

    def _number(self, column: int) -> int:
        self._placed[column] += 1
        return self._placed[column] - 1


def carry_save_array(
    m: Module, rows: Sequence[Mapping[int, Value]], constant: int, width: int
) -> dict[int, Value]:
    """The sum of rows and constant by column: a row of adders a row, then one ripple of carries.

    The classical array multiplier: n(n - 2) full adders and n half adders for n rows of n bits.
    """
    adders = AdderArray(m, width)
    columns: Columns = {}
    for row in rows:
        columns = _add_row(adders, columns, row, width)
    return ripple(adders, columns, constant, width)


def _add_row(adders: AdderArray, columns: Columns, row: Mapping[int, Value], width: int) -> Columns:
    """Sum and carry (at most two bits a column) after one more row, without carries that ripple."""
    after: Columns = defaultdict(list)
    for column in sorted({*columns, *row}):
        bits = [*columns.get(column, []), *([row[column]] if column in row else [])]
        if column not in row or len(bits) == 1:
            after[column] += bits
            continue
        if len(bits) == 3:
            total, carry = adders.full_adder(column, *bits)
        else:
            total, carry = adders.half_adder(column, *bits)
        after[column].insert(0, total)
        after[column + 1].append(carry)
    return {column: bits for column, bits in after.items() if column < width}


def ripple(adders: AdderArray, columns: Columns, constant: int, width: int) -> dict[int, Value]:
    """One bit a column: each column is added up, lowest first, its carries moving to the next.

    Exact for any number of bits in a column and any constant.
    """
    total: dict[int, Value] = {}
    carried: list[Value] = []
    for column in range(width):
        bits = [*columns.get(column, []), *carried]
        bit, carried = _add_column(adders, column, bits, bool(constant >> column & 1))
        if bit is not None:
            total[column] = bit
    return total


def _add_column(
    adders: AdderArray, column: int, bits: list[Value], one: bool
) -> tuple[Value | None, list[Value]]:
    """The column's bit (None for a constant zero) and its carries into the next column."""
    carries: list[Value] = []
    while len(bits) + one > 1:
        if len(bits) >= 3:
            total, carry = adders.full_adder(column, *bits[:3])
            bits = [*bits[3:], total]
        elif len(bits) == 2 and one:
            total, carry = adders.half_adder_plus_one(column, *bits)
            bits, one = [total], False
        elif len(bits) == 2:
            total, carry = adders.half_adder(column, *bits)
            bits = [total]
        else:
            total, carry = adders.plus_one(column, bits[0])
            bits, one = [total], False
        carries.append(carry)
    if one:
        return Value.cast(1), carries
    return (bits[0] if bits else None), carries
