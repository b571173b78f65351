"""Adding rows or columns of bits: adders as named submodules, constants folded into them.

``total`` of an adder stays in its column, ``carry`` goes to the next; what would leave the topmost
column is dropped (sums are modulo 2^width). A one of the constant is taken in by the first half
adder of its column, which then costs no more than without it.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from amaranth.hdl import Module, Signal, Value

from .adders import FullAdder, HalfAdder, HalfAdderPlusOne

Columns = dict[int, list[Value]]
Rows = Sequence[Mapping[int, Value]]
Addition = Callable[[Module, Rows, int, int], dict[int, Value]]
"""The sum of rows and a constant modulo 2^width, as at most one bit a column."""


class AdderArray:
    """Places adders in a module; their names say column and number: ``full_adder_5_2``.

    ``ones`` are the columns whose constant one is still to be added.
    """

    def __init__(self, m: Module, constant: int) -> None:
        self._m = m
        self.ones = {column for column in range(constant.bit_length()) if constant >> column & 1}
        self._placed: dict[int, int] = defaultdict(int)

    def add(self, column: int, bits: Sequence[Value]) -> tuple[Value, Value]:
        """Sum and carry of two or three bits; of two, with the column's one if it has one."""
        assert len(bits) in (2, 3), bits
        adder: FullAdder | HalfAdder | HalfAdderPlusOne
        if len(bits) == 3:
            adder, kind = FullAdder(), "full_adder"
            self._m.d.comb += adder.c.eq(bits[2])
        elif column in self.ones:
            adder, kind = HalfAdderPlusOne(), "half_adder_plus_one"
            self.ones.remove(column)
        else:
            adder, kind = HalfAdder(), "half_adder"
        self._m.d.comb += [adder.a.eq(bits[0]), adder.b.eq(bits[1])]
        self._m.submodules[f"{kind}_{column}_{self._number(column)}"] = adder
        return adder.total, adder.carry

    def add_one(self, column: int, bit: Value) -> tuple[Value, Value]:
        """Sum and carry of a bit and the column's one: an inverter."""
        inverted = Signal(name=f"inverted_{column}_{self._number(column)}")
        self._m.d.comb += inverted.eq(~bit)
        self.ones.remove(column)
        return inverted, bit

    def _number(self, column: int) -> int:
        self._placed[column] += 1
        return self._placed[column] - 1


def carry_save_array(m: Module, rows: Rows, constant: int, width: int) -> dict[int, Value]:
    """The sum of rows and constant by column: a row of adders a row, then one ripple of carries.

    The classical array multiplier: n(n - 2) full adders and n half adders for n rows of n bits.
    """
    adders = AdderArray(m, constant)
    columns: Columns = {}
    for row in rows:
        columns = _add_row(adders, columns, row)
    return ripple(adders, columns, width)


def _add_row(adders: AdderArray, columns: Columns, row: Mapping[int, Value]) -> Columns:
    """Sum and carry (at most two bits a column) after one more row, without carries that ripple."""
    after: Columns = defaultdict(list)
    for column in sorted({*columns, *row}):
        bits = [*columns.get(column, []), *([row[column]] if column in row else [])]
        if column in row and len(bits) > 1:
            total, carry = adders.add(column, bits)
            after[column].insert(0, total)
            after[column + 1].append(carry)
        else:
            after[column] += bits
    return after


def dadda_tree(m: Module, rows: Rows, constant: int, width: int) -> dict[int, Value]:
    """Columns brought below each of Dadda's heights in turn with as few adders as that takes."""
    return dadda_sum(AdderArray(m, constant), by_column(rows), width)


def dadda_sum(adders: AdderArray, columns: Columns, width: int) -> dict[int, Value]:
    """``dadda_tree`` of columns: heights … 13, 9, 6, 4, 3, 2, then one ripple of carries."""
    tallest = max(map(len, columns.values()), default=0)
    for height in reversed(list(itertools.takewhile(lambda h: h < tallest, _dadda_heights()))):
        columns = _lowered(adders, columns, height, width)
    return ripple(adders, columns, width)


def _dadda_heights() -> "itertools.accumulate[int]":
    """2, 3, 4, 6, 9, 13, …: each half as much again as the one before, rounded down."""
    return itertools.accumulate(itertools.repeat(2), lambda height, _: height * 3 // 2)


def _lowered(adders: AdderArray, columns: Columns, height: int, width: int) -> Columns:
    """At most ``height`` bits a column; a half adder where one bit is too many."""
    after: Columns = defaultdict(list)
    for column in range(width):
        bits = [*columns.get(column, []), *after[column]]
        while len(bits) > height:
            taken = 2 if len(bits) == height + 1 else 3
            total, carry = adders.add(column, bits[:taken])
            bits = [*bits[taken:], total]
            after[column + 1].append(carry)
        after[column] = bits
    return after


def wallace_tree(m: Module, rows: Rows, constant: int, width: int) -> dict[int, Value]:
    """In every stage, threes of each column into full adders and a remaining pair into a half
    adder, until no column has more than two bits; then one ripple of carries."""
    adders = AdderArray(m, constant)
    columns = by_column(rows)
    while max(map(len, columns.values()), default=0) > 2:
        columns = _wallace_stage(adders, columns, width)
    return ripple(adders, columns, width)


def _wallace_stage(adders: AdderArray, columns: Columns, width: int) -> Columns:
    after: Columns = defaultdict(list)
    for column in range(width):
        bits = columns.get(column, [])
        for group in (bits[start : start + 3] for start in range(0, len(bits), 3)):
            if len(group) == 1:
                after[column] += group
                continue
            total, carry = adders.add(column, group)
            after[column].append(total)
            after[column + 1].append(carry)
    return after


def by_column(rows: Rows) -> Columns:
    """The bits of each column, in the order of the rows."""
    columns: Columns = defaultdict(list)
    for row in rows:
        for column, bit in row.items():
            columns[column].append(bit)
    return columns


def place_bits(columns: Columns, lowest: int, bits: Sequence[Value | int]) -> None:
    """Put a number's bits into columns from ``lowest`` on; constant zeros are left out."""
    for column, bit in enumerate(bits, lowest):
        if not (isinstance(bit, int) and bit == 0):
            columns.setdefault(column, []).append(bit)


def ripple(adders: AdderArray, columns: Columns, width: int) -> dict[int, Value]:
    """One bit a column: each column is added up, lowest first, its carries moving to the next.

    Exact for any number of bits in a column, and adds what is left of the constant.
    """
    total: dict[int, Value] = {}
    carried: list[Value] = []
    for column in range(width):
        bits = [*columns.get(column, []), *carried]
        bits, carried = _add_column(adders, column, bits)
        if bits or column in adders.ones:
            total[column] = bits[0] if bits else Value.cast(1)
    return total


def _add_column(
    adders: AdderArray, column: int, bits: list[Value]
) -> tuple[list[Value], list[Value]]:
    """At most one bit, and carries; a one of the constant is left only where there is no bit."""
    carries: list[Value] = []
    while len(bits) > 1:
        bit, carry = adders.add(column, bits[:3])
        bits = [*bits[3:], bit]
        carries.append(carry)
    if bits and column in adders.ones:
        bit, carry = adders.add_one(column, bits[0])
        bits = [bit]
        carries.append(carry)
    return bits, carries
