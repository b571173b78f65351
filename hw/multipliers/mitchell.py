"""Mitchell's logarithmic multiplier: operands' binary logarithms, read off linearly, are added.

With a = 2^m·(1 + x) and b = 2^n·(1 + y), the product is 2^(m+n)·(1 + x + y) where x + y < 1, and
else 2^(m+n+1)·(x + y), rounded down to an integer; a zero operand gives zero. It is never above the
exact one, and below it by a ninth at most (x = y = 1/2), and by less than 1 more.
"""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component

from .circuit import magnitude_multiplier
from .gates import Bit, Bits, Gates
from .multiplier import Family, Shape


def mitchell_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Two leading-one detectors and shifters, one adder, one shifter."""

    def magnitudes(gates: Gates, m: Module, a: Bits, b: Bits) -> Bits:
        fraction_bits = max(len(a), len(b)) - 1
        (x, x_exponent, x_some), (y, y_exponent, y_some) = (
            _logarithm(gates, bits, fraction_bits) for bits in (a, b)
        )
        *fraction, above = gates.total(x, y)
        exponent = gates.total(x_exponent, y_exponent, above)
        power = gates.shifted([*fraction, 1], exponent, fraction_bits + len(a) + len(b))
        some = gates.both(x_some, y_some, "some")
        return [gates.both(bit, some, "product") for bit in power[fraction_bits:]]

    return magnitude_multiplier(shape, magnitudes)


def _logarithm(gates: Gates, x: Bits, fraction_bits: int) -> tuple[Bits, Bits, Bit]:
    """Fraction and exponent of x, and whether it is above zero."""
    leading = gates.leading_one(x)
    exponent = gates.encoded(leading)
    from_top = gates.encoded(leading[::-1])
    normalised = gates.shifted(x, from_top, len(x))
    fraction = [0] * (fraction_bits - len(x) + 1) + normalised[:-1]
    return fraction, exponent, gates.some(x, "some")


FAMILY = Family(
    name="mitchell",
    summary="the sum of the operands' logarithms, both read off linearly; signed by magnitudes",
    source="J. N. Mitchell, IRE Trans. Electronic Computers EC-11 (1962) 512",
    parameters=(),
    component=mitchell_multiplier,
)
