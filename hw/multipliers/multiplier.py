"""What a multiplier is, and a family of them: the description everything else derives from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amaranth.lib.wiring import Component, In, Out, Signature

from ..errors import InputError
from ..netlist import Netlist

if TYPE_CHECKING:
    from .catalogue import MultiplierName


class MultiplierSignature(Signature):  # type: ignore[misc] # Amaranth has no types
    """Ports of every multiplier: operands ``a`` and ``b``, product ``p`` of both widths' sum."""

    def __init__(self, a_width: int, b_width: int) -> None:
        super().__init__({"a": In(a_width), "b": In(b_width), "p": Out(a_width + b_width)})


@dataclass(frozen=True)
class Shape:
    """Widths in bits of the operands, and whether they and the product are two's complement."""

    a_width: int
    b_width: int
    signed: bool

    @property
    def p_width(self) -> int:
        return self.a_width + self.b_width


@dataclass(frozen=True)
class Parameter:
    """An integer parameter of a family: a letter in the name, a range depending on the shape."""

    letter: str
    meaning: str
    low: int
    high: Callable[[Shape], int]

    def check(self, value: int, shape: Shape, family: str) -> None:
        if not self.low <= value <= self.high(shape):
            raise InputError(
                f"parameter {self.letter} of {family} ({self.meaning}) must be "
                f"{self.low} to {self.high(shape)}, not {value}"
            )


@dataclass(frozen=True)
class Family:
    """A way to build multipliers; ``component`` takes the parameters in their declared order.

    ``keeps_zero``: 0·x = x·0 = 0 for all of its members. ``check`` refuses parameters each of which
    is in range but that do not go together.
    """

    name: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...]
    component: Callable[[Shape, tuple[int, ...]], Component]
    keeps_zero: bool = True
    check: Callable[[Shape, tuple[int, ...]], None] | None = None


@dataclass(frozen=True)
class Multiplier:
    """A circuit of two operands with a product; operand ``a`` is the first, the row of its table.

    ``origin`` says where it came from: the family's source, or the file it was read from.
    """

    name: str
    family: str
    parameters: tuple[tuple[str, int], ...]
    a_width: int
    b_width: int
    signed: bool
    netlist: Netlist
    origin: str
    description: "MultiplierName | None" = None

    def __post_init__(self) -> None:
        widths = [port.width for port in self.netlist.inputs]
        if widths != [self.a_width, self.b_width] or len(self.netlist.outputs) != 1:
            raise InputError(
                f"ports of {self.name} must be operands of {self.a_width} and {self.b_width} bits "
                f"and one product, not operands of {widths} and {len(self.netlist.outputs)} outputs"
            )

    def component(self) -> Component:
        """A fresh Amaranth component of a built-in family's multiplier."""
        if self.description is None:
            raise InputError(
                f"{self.name} must be of a built-in family to have a component, not {self.family}"
            )
        return self.description.component()
