"""The truncated multiplier with variable correction: the first column left out counts double.

Of the k columns that are truncated, the topmost, k - 1, is added into column k: its products stand
for themselves and for the columns below them. Being made of products, the correction vanishes with
an operand, unlike a constant one: 0·x = 0. The error of an unsigned product lies between
-Σ_{c<k-1} n_c·2^c and n_{k-1}·2^(k-1), n_c being the number of products in column c.
"""

from collections.abc import Mapping

from amaranth.hdl import Module, Value
from amaranth.lib.wiring import Component

from .circuit import CircuitMultiplier
from .gates import Bit
from .multiplier import Family, Parameter, Shape
from .partial_products import negative, partial_products
from .reduction import AdderArray, by_column, dadda_sum


def truncated_variable_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Products of columns >= k, and those of column k - 1 with twice their weight; a Dadda tree."""
    (columns,) = parameters
    doubled = [(i, columns - 1 - i) for i in range(shape.a_width)]
    negatives = sum(negative(shape, i, j) for i, j in doubled if 0 <= j < shape.b_width)

    def circuit(m: Module, a: Value, b: Value) -> Mapping[int, Bit]:
        kept = partial_products(m, a, b, shape, lambda i, j: i + j >= columns - 1)
        bits = by_column(kept.rows)
        bits[columns] += bits.pop(columns - 1, [])
        constant = (kept.constant - (negatives << (columns - 1))) % (1 << shape.p_width)
        return dadda_sum(AdderArray(m, constant), bits, shape.p_width)

    return CircuitMultiplier(shape, circuit)


FAMILY = Family(
    name="truncated_variable",
    summary="k columns left out, the topmost of them added to the column above it",
    source="E. J. King, E. E. Swartzlander, Asilomar Conf. Signals Systems Comput. (1997) 1178",
    parameters=(Parameter("k", "columns left out", 1, lambda shape: shape.p_width - 2),),
    component=truncated_variable_multiplier,
)
