"""The truncated multiplier with constant correction: the mean of what is left out is added.

A product bit is one in a quarter of all operand pairs, so the k columns left out are worth a
quarter of their weights on average; that, rounded to a multiple of 2^k, is added to every product.
The mean error is thus at most 2^(k-1). But 0·x is that constant: the family does not keep zero.
"""

from collections.abc import Mapping

from amaranth.hdl import Module, Value
from amaranth.lib.wiring import Component

from .circuit import CircuitMultiplier
from .gates import Bit
from .multiplier import Family, Parameter, Shape
from .partial_products import negative, partial_products
from .reduction import dadda_tree


def correction(shape: Shape, columns: int) -> int:
    """A quarter of the weights left out, as the nearest multiple of 2^columns, halves upwards."""
    left_out = sum(
        (-1 if negative(shape, i, j) else 1) << (i + j)
        for i in range(shape.a_width)
        for j in range(shape.b_width)
        if i + j < columns
    )
    return ((left_out + (2 << columns)) >> (columns + 2)) << columns


def truncated_constant_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Partial products of columns i + j >= k and the constant, added by a Dadda tree."""
    (columns,) = parameters

    def circuit(m: Module, a: Value, b: Value) -> Mapping[int, Bit]:
        kept = partial_products(m, a, b, shape, lambda i, j: i + j >= columns)
        constant = (kept.constant + correction(shape, columns)) % (1 << shape.p_width)
        return dadda_tree(m, kept.rows, constant, shape.p_width)

    return CircuitMultiplier(shape, circuit)


FAMILY = Family(
    name="truncated_constant",
    summary="k columns left out, the mean of what they are worth added",
    source="M. J. Schulte, E. E. Swartzlander, VLSI Signal Processing VI (1993) 388",
    parameters=(Parameter("k", "columns left out", 1, lambda shape: shape.p_width - 2),),
    component=truncated_constant_multiplier,
    keeps_zero=False,
)
