"""A multiplier that was imported: always a table, and gates where the source has them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..multipliers import FAMILIES, Multiplier
from ..multipliers.saved import named_by_digest
from ..netlist import Netlist
from ..simulation import truth_table

FAMILY = "imported"
MAX_WIDTH = 12


@dataclass(frozen=True, eq=False)
class Imported:
    """``table[a, b]``: int32, by bit pattern, row = first operand; ``origin`` says from where."""

    name: str
    signed: bool
    table: npt.NDArray[np.int32]
    origin: str
    netlist: Netlist | None = None

    def __post_init__(self) -> None:
        family = self.name.partition("_")[2].partition("_")[0]
        if family in FAMILIES:
            raise InputError(
                f"name of {self.origin} must not be that of a built-in family, as {self.name!r} is"
            )
        for value in (int(self.table.min()), int(self.table.max())):
            low, high = self._range
            if not low <= value <= high:
                raise InputError(
                    f"products of {self.name} ({self.origin}) must be {low} to {high}, not {value}"
                )

    @classmethod
    def of_gates(cls, netlist: Netlist, signed: bool, origin: str) -> "Imported":
        """Of a netlist with operands a and b and product p, which is sign-extended or cut to size.

        A product narrower than both operands together is extended, so that it means the same.
        """
        a, b = netlist.inputs
        if max(a.width, b.width) > MAX_WIDTH:
            raise InputError(
                f"operands of {netlist.name} must have at most {MAX_WIDTH} bits, not "
                f"{a.width} and {b.width}"
            )
        whole = _with_width(netlist, a.width + b.width, signed)
        return cls(netlist.name, signed, truth_table(whole, signed), origin, whole)

    @property
    def widths(self) -> tuple[int, int]:
        """Bits of the operands."""
        rows, columns = self.table.shape
        return rows.bit_length() - 1, columns.bit_length() - 1

    @property
    def _range(self) -> tuple[int, int]:
        bits = sum(self.widths)
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if self.signed else (0, (1 << bits) - 1)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the table as little-endian int32, row by row, in hexadecimal."""
        return hashlib.sha256(np.ascontiguousarray(self.table, "<i4").tobytes()).hexdigest()

    def multiplier(self) -> Multiplier:
        """The circuit, named by its digest as saved circuits are (``hw/multipliers/saved.py``).

        ``InputError`` for a mere table, of which no energy can be known.
        """
        if self.netlist is None:
            raise InputError(
                f"{self.name} must have gates to be built, not only a table ({self.origin}): "
                "what it costs cannot be known from its products"
            )
        return named_by_digest(FAMILY, self.netlist, self.signed, f"{self.name} of {self.origin}")


def _with_width(netlist: Netlist, width: int, signed: bool) -> Netlist:
    (port,) = netlist.outputs
    filler = port.nets[-1] if signed else 0
    nets = (*port.nets, *[filler] * width)[:width]
    return Netlist(
        netlist.name,
        netlist.inputs,
        (type(port)(port.name, nets),),
        netlist.gates,
        netlist.net_names,
        netlist.kinds,
    )
