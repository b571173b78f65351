"""The iterative logarithmic multiplier: Mitchell's product without its case distinction, corrected.

With a = 2^m + r and b = 2^n + s, a·b = 2^(m+n) + r·2^n + s·2^m + r·s. The basic block leaves r·s
out; a correction is the basic block's product of r and s, and so on i times. No product is above
the exact one, and the relative error is below 4^-(i+1): a residue is below half of its operand.
"""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component

from .circuit import magnitude_multiplier
from .gates import Bits, Gates
from .multiplier import Family, Parameter, Shape


def iterative_log_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """The basic block and i corrections, added up."""
    (corrections,) = parameters

    def magnitudes(gates: Gates, m: Module, a: Bits, b: Bits) -> Bits:
        width = len(a) + len(b)
        product: Bits = []
        for _ in range(corrections + 1):
            block, a, b = _basic_block(gates, a, b, width)
            product = gates.total(product, block)[:width] if product else block
        return product

    return magnitude_multiplier(shape, magnitudes)


def _basic_block(gates: Gates, a: Bits, b: Bits, width: int) -> tuple[Bits, Bits, Bits]:
    """2^(m+n) + r·2^n + s·2^m (zero for a zero operand), and the residues r and s."""
    a_leading, b_leading = gates.leading_one(a), gates.leading_one(b)
    r, s = (
        [
            gates.both(bit, gates.inverted(first), "residue")
            for bit, first in zip(*pair, strict=True)
        ]
        for pair in ((a, a_leading), (b, b_leading))
    )
    a_some, b_some = gates.some(a, "some"), gates.some(b, "some")
    moved_a = gates.shifted(a, gates.encoded(b_leading), width)
    moved_s = gates.shifted(s, gates.encoded(a_leading), width)
    terms = (
        [gates.both(bit, b_some, "term") for bit in moved_a],
        [gates.both(bit, a_some, "term") for bit in moved_s],
    )
    return gates.total(*terms)[:width], r, s


FAMILY = Family(
    name="iterative_log",
    summary="2^(m+n) + r·2^n + s·2^m, and i corrections for r·s; signed by magnitudes",
    source="Z. Babić, A. Avramović, P. Bulić, Microprocessors and Microsystems 35 (2011) 23",
    parameters=(
        Parameter("i", "corrections", 0, lambda shape: min(shape.a_width, shape.b_width) - 1),
    ),
    component=iterative_log_multiplier,
)
