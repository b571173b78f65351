"""Components made by a function, and the wrapper that makes a signed multiplier of magnitudes."""

from collections.abc import Callable, Mapping, Sequence

from amaranth.hdl import Module, Value
from amaranth.lib.wiring import Component

from .gates import Bit, Bits, Gates
from .multiplier import MultiplierSignature, Shape

Circuit = Callable[[Module, Value, Value], Mapping[int, Bit]]
"""Places gates between operands a and b; the product's bits by column, none where always zero."""
Magnitudes = Callable[[Gates, Module, Bits, Bits], Sequence[Bit]]
"""Places gates between two unsigned numbers; their product, lowest bit first."""


class CircuitMultiplier(Component):  # type: ignore[misc] # Amaranth has no types
    """A multiplier whose gates a function places."""

    def __init__(self, shape: Shape, circuit: Circuit) -> None:
        super().__init__(MultiplierSignature(shape.a_width, shape.b_width))
        self.shape = shape
        self.circuit = circuit

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for column, bit in self.circuit(m, self.a, self.b).items():
            if column < self.shape.p_width:
                m.d.comb += self.p[column].eq(bit)
        return m


def magnitude_multiplier(shape: Shape, magnitudes: Magnitudes) -> Component:
    """A multiplier for unsigned operands; signed: of the magnitudes, with the sign put back.

    The most negative operand's magnitude, 2^(width - 1), fits its width, so no operand is special.
    """

    def circuit(m: Module, a: Value, b: Value) -> Mapping[int, Bit]:
        gates = Gates(m)
        operands = [list(a), list(b)]
        if not shape.signed:
            return dict(enumerate(magnitudes(gates, m, *operands)))
        x, y = ([*gates.negated_where(bits[-1], bits)] for bits in operands)
        product = [*magnitudes(gates, m, x, y)][: shape.p_width]
        negative = gates.differ(a[-1], b[-1], "negative")
        product += [0] * (shape.p_width - len(product))
        return dict(enumerate(gates.negated_where(negative, product)))

    return CircuitMultiplier(shape, circuit)
