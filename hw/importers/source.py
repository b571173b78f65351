"""What is to be imported, and what only its user can know of it."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..liberty import CellLibrary
from ..netlist import Netlist, Port


@dataclass(frozen=True)
class Source:
    """``place`` is a path, or ``module:Class``; what is None is found out, or asked for.

    ``operands`` names the two inputs, the first operand first (for a table: which is ``row`` and
    which ``column``); ``product`` names the output; ``top`` the module or function; ``cells`` the
    library whose cells a Verilog file may use.
    """

    place: str
    name: str | None = None
    signed: bool | None = None
    operands: tuple[str, str] | None = None
    product: str | None = None
    top: str | None = None
    cells: CellLibrary | None = None

    def text(self, what: str) -> str:
        """The file's text."""
        return self.data(what).decode("latin-1")

    def data(self, what: str) -> bytes:
        """The file's bytes; ``InputError`` where there is no such file."""
        try:
            return Path(self.place).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise InputError(f"{self.place} must be {what}, but there is no such file") from None

    def called(self, found: str) -> str:
        """The name given, else the one found, as a plain name."""
        name = self.name or found
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise InputError(f"name of {self.place} must be letters, digits and _, not {name!r}")
        return name

    def is_signed(self, name: str, found: bool | None = None) -> bool:
        """As given, as found, or as a name like ``mul8s_…`` says; else asked for."""
        known = self.signed if self.signed is not None else found
        if known is None:
            match = re.match(r"mul\d+(?:x\d+)?([su])_", name)
            if match is None:
                raise InputError(
                    f"operands of {name} must be said to be signed or unsigned: the file does not"
                )
            known = match[1] == "s"
        return known

    def ordered(self, found: list[str], what: str) -> tuple[str, str]:
        """The two inputs, the first operand first.

        As given; else in the order found if that is the alphabetical one too. Where the two orders
        differ, as in half of EvoApproxLib's functions (B, A), the user must say.
        """
        if self.operands is not None:
            if sorted(self.operands) != sorted(found):
                raise InputError(
                    f"operands of {what} must be {' and '.join(found)} in some order, "
                    f"not {','.join(self.operands)}"
                )
            return self.operands
        if len(found) != 2:
            raise InputError(f"{what} must have two operands, not {', '.join(found) or 'none'}")
        if [name.lower() for name in found] != sorted(name.lower() for name in found):
            raise InputError(
                f"operand order of {what} must be given: it declares {found[0]}, {found[1]}, so "
                f"either may be the first (operands {found[0]},{found[1]} or {found[1]},{found[0]})"
            )
        return found[0], found[1]

    def row_first(self, table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The table with the first operand along the rows; asked for where it matters."""
        if self.operands is None:
            if table.shape[0] == table.shape[1] and np.array_equal(table, table.T):
                return table
            raise InputError(
                f"operand order of {self.place} must be given: its table is not symmetric, and "
                "either operand may be the row (operands row,column or column,row)"
            )
        if sorted(self.operands) != ["column", "row"]:
            raise InputError(
                f"operands of {self.place} must be row,column or column,row, "
                f"not {','.join(self.operands)}"
            )
        return table if self.operands[0] == "row" else table.T


def as_multiplier_ports(
    netlist: Netlist, name: str, operands: tuple[str, str], product: str
) -> Netlist:
    """The netlist with its ports called a, b and p, in that order."""
    a, b = (netlist.input(operand) for operand in operands)
    p = netlist.output(product)
    return Netlist(
        name,
        (Port("a", a.nets), Port("b", b.nets)),
        (Port("p", p.nets),),
        netlist.gates,
        {},
        netlist.kinds,
    )
