"""Gates placed one by one in a module, and small circuits of them: adders, shifters, multiplexers.

A bit is a one-bit signal or a constant 0 or 1; constants are folded, so a circuit that is written
for any width has no gate with a constant input. Numbers are lists of bits, lowest first.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from amaranth.hdl import Module, Mux, Signal, Value

Bit: TypeAlias = Value | int
Bits: TypeAlias = list[Bit]


class Gates:
    """Places gates in ``m``; their signals are named after what they mean, and numbered."""

    def __init__(self, m: Module) -> None:
        self._m = m
        self._placed: dict[str, int] = defaultdict(int)

    def place(self, value: Value, name: str) -> Value:
        """A signal of its own for a one-bit expression of one operator."""
        signal = Signal(name=f"{name}_{self._placed[name]}")
        self._placed[name] += 1
        self._m.d.comb += signal.eq(value)
        return signal

    def inverted(self, x: Bit, name: str = "inverted") -> Bit:
        return 1 - x if isinstance(x, int) else self.place(~x, name)

    def both(self, x: Bit, y: Bit, name: str = "both") -> Bit:
        """x AND y."""
        if isinstance(x, int):
            x, y = y, x
        if isinstance(y, int):
            return x if y else 0
        return self.place(x & y, name)

    def either(self, x: Bit, y: Bit, name: str = "either") -> Bit:
        """x OR y."""
        if isinstance(x, int):
            x, y = y, x
        if isinstance(y, int):
            return 1 if y else x
        return self.place(x | y, name)

    def differ(self, x: Bit, y: Bit, name: str = "differ") -> Bit:
        """x XOR y."""
        if isinstance(x, int):
            x, y = y, x
        if isinstance(y, int):
            return self.inverted(x, name) if y else x
        return self.place(x ^ y, name)

    def chosen(self, choice: Bit, one: Bit, zero: Bit, name: str = "chosen") -> Bit:
        """``one`` where ``choice`` is one, else ``zero``."""
        if isinstance(choice, int):
            return one if choice else zero
        if isinstance(zero, int):
            return self.either(self.inverted(choice), one) if zero else self.both(choice, one)
        if isinstance(one, int):
            rest = self.inverted(choice)
            return self.either(choice, zero) if one else self.both(rest, zero)
        return self.place(Mux(choice, one, zero), name)

    def every(self, bits: Sequence[Bit], name: str = "every") -> Bit:
        """AND of all, as a balanced tree; 1 for none."""
        if len(bits) < 2:
            return bits[0] if bits else 1
        half = len(bits) // 2
        return self.both(self.every(bits[:half], name), self.every(bits[half:], name), name)

    def some(self, bits: Sequence[Bit], name: str = "some") -> Bit:
        """OR of all, as a balanced tree; 0 for none."""
        if len(bits) < 2:
            return bits[0] if bits else 0
        half = len(bits) // 2
        return self.either(self.some(bits[:half], name), self.some(bits[half:], name), name)

    def added(self, x: Bit, y: Bit, z: Bit) -> tuple[Bit, Bit]:
        """Sum and carry of three bits: a full adder, or what constants leave of it."""
        x, y, z = sorted((x, y, z), key=lambda bit: isinstance(bit, int))
        if isinstance(z, int):
            return self._added_two(x, y, z)
        half = self.differ(x, y, "half_sum")
        carries = self.both(x, y, "generated"), self.both(half, z, "passed")
        return self.differ(half, z, "sum"), self.either(*carries, "carry")

    def _added_two(self, x: Bit, y: Bit, constant: int) -> tuple[Bit, Bit]:
        total = self.differ(self.differ(x, y, "sum"), constant, "sum")
        return total, self.either(x, y, "carry") if constant else self.both(x, y, "carry")

    def total(self, x: Sequence[Bit], y: Sequence[Bit], carry: Bit = 0) -> Bits:
        """x + y + carry, one bit longer than the longer of the two; carries ripple."""
        width = max(len(x), len(y))
        bits: Bits = []
        for one, other in zip(padded(x, width), padded(y, width), strict=True):
            bit, carry = self.added(one, other, carry)
            bits.append(bit)
        return [*bits, carry]

    def difference(self, x: Sequence[Bit], y: Sequence[Bit]) -> Bits:
        """x - y modulo 2^len(x)."""
        complement = [self.inverted(bit) for bit in padded(y, len(x))]
        return self.total(x, complement, 1)[: len(x)]

    def negated_where(self, negative: Bit, x: Sequence[Bit]) -> Bits:
        """-x modulo 2^len(x) where ``negative`` is one, else x."""
        flipped = [self.differ(bit, negative, "flipped") for bit in x]
        return self.total(flipped, [], negative)[: len(x)]

    def shifted(self, x: Sequence[Bit], amount: Sequence[Bit], width: int) -> Bits:
        """x · 2^amount modulo 2^width: a row of multiplexers for each bit of the amount."""
        bits = padded(x, width)
        for level, choice in enumerate(amount):
            moved = [0] * min(1 << level, width) + bits
            bits = [
                self.chosen(choice, moved[at], bits[at], "shifted") if moved[at] is not bits[at]
                else bits[at]
                for at in range(width)
            ]  # fmt: skip
        return bits

    def leading_one(self, x: Sequence[Bit]) -> Bits:
        """A one in the place of the highest one of x, zeros elsewhere; all zeros for zero."""
        found: Bits = [0] * len(x)
        above: Bit = 0
        for at in reversed(range(len(x))):
            found[at] = self.both(x[at], self.inverted(above), "leading")
            above = self.either(above, x[at], "above")
        return found

    def encoded(self, one_of: Sequence[Bit]) -> Bits:
        """The number of the line that is one (0 where none is)."""
        width = max(1, (len(one_of) - 1).bit_length())
        return [
            self.some([bit for line, bit in enumerate(one_of) if line >> place & 1], "encoded")
            for place in range(width)
        ]


def padded(x: Sequence[Bit], width: int) -> Bits:
    """x in ``width`` bits: zeros above it, or cut."""
    return [*x, *[0] * (width - len(x))][:width]
