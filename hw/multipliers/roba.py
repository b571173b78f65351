"""RoBA: operands rounded to powers of two, the product of the two roundings' errors left out.

With A and B the powers of two nearest to a and b (the larger of two equally near ones, but 3 is
rounded to 2; 0 stays 0), a·b = A·b + B·a - A·B + (A - a)(B - b), and the last term is left out: the
error is at most a ninth of the product, of either sign, and zero for powers of two.
"""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component

from .circuit import magnitude_multiplier
from .gates import Bits, Gates
from .multiplier import Family, Shape


def roba_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Two rounders, three shifters, an adder and a subtractor."""

    def magnitudes(gates: Gates, m: Module, a: Bits, b: Bits) -> Bits:
        width = len(a) + len(b)
        a_power, b_power = _nearest_power(gates, a), _nearest_power(gates, b)
        products = [
            _times_power(gates, x, power, width)
            for x, power in ((b, a_power), (a, b_power), (b_power, a_power))
        ]
        both = gates.total(products[0], products[1])
        return gates.difference(both, products[2])[:width]

    return magnitude_multiplier(shape, magnitudes)


def _nearest_power(gates: Gates, x: Bits) -> Bits:
    """One line per power of two up to 2^len(x); the bit below the leading one rounds up."""
    leading = gates.leading_one(x)
    up = [gates.both(leading[at], x[at - 1], "up") if at > 1 else 0 for at in range(len(x))]
    stays = [
        gates.both(one, gates.inverted(moved), "stays")
        for one, moved in zip(leading, up, strict=True)
    ]
    lines = zip([*stays, 0], [0, *up], strict=True)
    return [gates.either(stay, moved, "power") for stay, moved in lines]


def _times_power(gates: Gates, x: Bits, power: Bits, width: int) -> Bits:
    """x · 2^n for the one n whose line is one, 0 where none is."""
    return [
        gates.some(
            [
                gates.both(line, x[column - n], "term")
                for n, line in enumerate(power)
                if 0 <= column - n < len(x)
            ],
            "moved",
        )
        for column in range(width)
    ]


FAMILY = Family(
    name="roba",
    summary="A·b + B·a - A·B with A, B the operands' nearest powers of two; signed by magnitudes",
    source="R. Zendegani et al., IEEE Trans. VLSI Syst. 25 (2017) 393",
    parameters=(),
    component=roba_multiplier,
)
