"""The multiplier whose rows are added by lower-part-OR adders: the k lowest columns are ORed.

Rows are added one after the other. Below column k a sum bit is the OR of its two bits; the carry
into column k is the AND of the two bits of column k - 1; above, the sum is exact. Signed in Baugh
and Wooley's form, k then being so small that no product of negative weight is in an ORed column.
An OR is below the sum and the AND makes up for some of it: the error of one addition of the
lower parts is between -(2^(k-1) - 1) and 2^(k-1).
"""

from collections.abc import Mapping

from amaranth.hdl import Module, Value
from amaranth.lib.wiring import Component

from .circuit import CircuitMultiplier
from .gates import Bit, Gates
from .multiplier import Family, Parameter, Shape
from .partial_products import partial_products
from .reduction import dadda_tree


def lower_or_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """ORs in columns below k, a Dadda tree of exact adders from column k on."""
    (lower,) = parameters

    def circuit(m: Module, a: Value, b: Value) -> Mapping[int, Bit]:
        gates = Gates(m)
        products = partial_products(m, a, b, shape, lambda _i, _j: True)
        low: dict[int, Bit] = {}
        upper_rows: list[dict[int, Bit]] = []
        for row in products.rows:
            if lower - 1 in low and lower - 1 in row:
                carry = gates.both(low[lower - 1], row[lower - 1], "lower_carry")
                upper_rows.append({lower: carry})
            for column in (column for column in row if column < lower):
                low[column] = gates.either(low.get(column, 0), row[column], "lower")
            upper_rows.append({column: bit for column, bit in row.items() if column >= lower})
        return low | dadda_tree(m, upper_rows, products.constant, shape.p_width)

    return CircuitMultiplier(shape, circuit)


def _lowest_negative(shape: Shape) -> int:
    return min(shape.a_width, shape.b_width) - 1 if shape.signed else shape.p_width - 2


FAMILY = Family(
    name="lower_or",
    summary="rows added by lower-part-OR adders: ORs in the k lowest columns",
    source="H. R. Mahdiani et al., IEEE Trans. Circuits Syst. I 57 (2010) 850, its adder",
    parameters=(Parameter("k", "columns of ORs", 1, _lowest_negative),),
    component=lower_or_multiplier,
)
