"""Multipliers from partial products: which are kept, and how the kept ones are added.

Row ``j`` holds a·b_j. Signed products follow Baugh and Wooley (IEEE Trans. Comput. C-22, 1973): a
product of exactly one sign bit has a negative weight, and -x·2^c = (1 - x)·2^c - 2^c, so it is
inverted and all the -2^c are added as one constant, modulo 2^p_width. A partial product that is
left out takes its share of the constant with it, so it counts as zero, and 0·x = x·0 = 0 always.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import Component

from .multiplier import MultiplierSignature, Shape
from .reduction import Addition, carry_save_array

Keep = Callable[[int, int], bool]
"""Whether the partial product a_i·b_j is kept, for (i, j)."""


@dataclass
class PartialProducts:
    """Rows of bits by column, and the constant that completes a signed product's sum."""

    rows: list[dict[int, Value]] = field(default_factory=list)
    constant: int = 0


class PartialProductMultiplier(Component):  # type: ignore[misc] # Amaranth has no types
    """The sum of the kept partial products, by a carry-save array if not told otherwise."""

    def __init__(self, shape: Shape, keep: Keep, add: Addition = carry_save_array) -> None:
        super().__init__(MultiplierSignature(shape.a_width, shape.b_width))
        self.shape = shape
        self.keep = keep
        self.add = add

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products = partial_products(m, self.a, self.b, self.shape, self.keep)
        total = self.add(m, products.rows, products.constant, self.shape.p_width)
        m.d.comb += [self.p[column].eq(bit) for column, bit in total.items()]
        return m


def partial_products(m: Module, a: Value, b: Value, shape: Shape, keep: Keep) -> PartialProducts:
    """The kept products as signals ``product_<i>_<j>``, in rows by ``j``; columns are i + j."""
    products = PartialProducts()
    for j in range(shape.b_width):
        row: dict[int, Value] = {}
        for i in range(shape.a_width):
            if keep(i, j):
                row[i + j] = product = Signal(name=f"product_{i}_{j}")
                if negative(shape, i, j):
                    both = Signal(name=f"both_{i}_{j}")
                    m.d.comb += [both.eq(a[i] & b[j]), product.eq(~both)]
                else:
                    m.d.comb += product.eq(a[i] & b[j])
                products.constant -= negative(shape, i, j) << (i + j)
        products.rows.append(row)
    products.constant %= 1 << shape.p_width
    return products


def negative(shape: Shape, i: int, j: int) -> bool:
    """Whether a_i·b_j has a negative weight: exactly one of the two is a sign bit."""
    return shape.signed and (i == shape.a_width - 1) != (j == shape.b_width - 1)
