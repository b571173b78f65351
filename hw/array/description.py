"""What a systolic array is made of: rows, tiles of columns, and the multipliers of each tile.

Plain Python: neither Amaranth nor a netlist is needed to describe an array.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import InputError, unknown_name

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIGN_MAGNITUDE = "_sign_magnitude"


def module_name(multiplier: str) -> str:
    """The Verilog module of a multiplier: ``cosearch_<name>``.

    A sign-magnitude multiplier is the wrapper ``cosearch_<unsigned name>_signed``. Raises
    InputError when that is no plain Verilog name.
    """
    unsigned = multiplier.removesuffix(_SIGN_MAGNITUDE)
    name = f"cosearch_{unsigned}{'' if unsigned == multiplier else '_signed'}"
    if not _IDENTIFIER.fullmatch(name):
        raise InputError(
            f"a multiplier's name must be letters, digits and underscores to name a Verilog "
            f"module, not {multiplier!r}"
        )
    return name


@dataclass(frozen=True)
class ArrayMultiplier:
    """One multiplier as the array sees it: ports ``a`` (activation), ``b`` (weight), ``p``.

    ``signed``: the product is two's complement, otherwise it is unsigned; ``p`` has the bits of
    both operands together. Bit patterns of operands are passed on as they are.
    """

    name: str
    a_width: int
    b_width: int
    signed: bool

    def __post_init__(self) -> None:
        module_name(self.name)
        if min(self.a_width, self.b_width) < 1:
            raise InputError(
                f"operands of {self.name} must be at least 1 bit wide, "
                f"not {self.a_width} and {self.b_width}"
            )

    @property
    def module(self) -> str:
        return module_name(self.name)

    @property
    def p_width(self) -> int:
        return self.a_width + self.b_width

    @property
    def largest_product(self) -> int:
        """No product's absolute value is larger, whatever the circuit computes."""
        return 1 << (self.p_width - 1) if self.signed else (1 << self.p_width) - 1


@dataclass(frozen=True)
class ArrayTile:
    """Columns side by side whose multiply-accumulate units hold the same multipliers.

    One multiplier: chosen when the array is generated. Several: the array's ``select`` input says
    which of them, by position in ``multipliers``, computes.
    """

    columns: int
    multipliers: tuple[ArrayMultiplier, ...]

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise InputError(f"a tile must have at least 1 column, not {self.columns}")
        names = [multiplier.name for multiplier in self.multipliers]
        if not names or len(set(names)) != len(names):
            raise InputError(f"multipliers of a tile must be one or several distinct, not {names}")

    @property
    def select_width(self) -> int:
        return (len(self.multipliers) - 1).bit_length()


@dataclass(frozen=True)
class ArrayDescription:
    """An array of ``rows`` x (columns of all tiles) multiply-accumulate units.

    accumulator_width: bits of the partial sums, two's complement. product_register: a register
    between multiplier and adder, which costs one clock of latency. ``select`` is shared: a tile
    with fewer multipliers than another takes its last one for a value beyond its own.
    """

    rows: int
    tiles: tuple[ArrayTile, ...]
    accumulator_width: int = 32
    product_register: bool = True

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InputError(f"rows of an array must be at least 1, not {self.rows}")
        if not self.tiles:
            raise InputError("tiles of an array must be at least 1, not 0")
        widths = {(m.a_width, m.b_width) for m in self.multipliers}
        if len(widths) != 1:
            raise InputError(
                f"operands of an array's multipliers must be equally wide, not {sorted(widths)}"
            )
        for multiplier in self.multipliers:
            if not multiplier.p_width <= self.accumulator_width <= 64:
                raise InputError(
                    f"accumulator_width must be {multiplier.p_width} to 64 for {multiplier.name}, "
                    f"not {self.accumulator_width}"
                )

    @classmethod
    def uniform(
        cls,
        rows: int,
        columns: int,
        multipliers: Iterable[ArrayMultiplier],
        *,
        accumulator_width: int = 32,
        product_register: bool = True,
    ) -> "ArrayDescription":
        """One tile: every unit holds all of the multipliers."""
        tile = ArrayTile(columns, tuple(multipliers))
        return cls(rows, (tile,), accumulator_width, product_register)

    @property
    def columns(self) -> int:
        return sum(tile.columns for tile in self.tiles)

    @property
    def multipliers(self) -> tuple[ArrayMultiplier, ...]:
        """The distinct multipliers of all tiles, in order."""
        return tuple(dict.fromkeys(m for tile in self.tiles for m in tile.multipliers))

    @property
    def a_width(self) -> int:
        return self.multipliers[0].a_width

    @property
    def b_width(self) -> int:
        return self.multipliers[0].b_width

    @property
    def select_width(self) -> int:
        """Bits of the ``select`` input; 0: there is none."""
        return max(tile.select_width for tile in self.tiles)

    @property
    def latency(self) -> int:
        """Clocks from a position's activations at the inputs to its sums at the outputs."""
        return self.rows + self.columns - 1 + int(self.product_register)

    def largest_fan_in(self, multiplier: str) -> int:
        """The most products whose sum cannot overflow the accumulator, whatever they are."""
        limit = (1 << (self.accumulator_width - 1)) - 1
        return limit // self._named(multiplier).largest_product

    def columns_with(self, multiplier: str) -> tuple[int, ...]:
        """The columns in which that multiplier computes when ``select_value`` is its."""
        self._named(multiplier)
        value, first = self.select_value(multiplier), 0
        found: list[int] = []
        for tile in self.tiles:
            if tile.multipliers[min(value, len(tile.multipliers) - 1)].name == multiplier:
                found += range(first, first + tile.columns)
            first += tile.columns
        return tuple(found)

    def select_value(self, multiplier: str) -> int:
        """What ``select`` must be: the multiplier's place in the first tile that has it."""
        self._named(multiplier)
        for tile in self.tiles:
            names = [m.name for m in tile.multipliers]
            if multiplier in names:
                return names.index(multiplier)
        raise AssertionError(multiplier)

    def _named(self, name: str) -> ArrayMultiplier:
        for multiplier in self.multipliers:
            if multiplier.name == name:
                return multiplier
        raise unknown_name("multiplier of the array", name, [m.name for m in self.multipliers])
