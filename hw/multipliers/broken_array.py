"""The broken-array multiplier: the first h rows are left out, and the columns right of v.

Row j holds a·b_j, so the h rows are those of the lowest bits of b (the horizontal break), and the
columns are those with i + j < v (the vertical break).
"""

from amaranth.lib.wiring import Component

from .multiplier import Family, Parameter, Shape
from .partial_products import PartialProductMultiplier


def broken_array_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Partial products of rows j >= h and columns i + j >= v."""
    rows, columns = parameters
    return PartialProductMultiplier(shape, lambda i, j: j >= rows and i + j >= columns)


FAMILY = Family(
    name="broken_array",
    summary="the first h rows left out, and the columns right of v",
    source="H. R. Mahdiani et al., IEEE Trans. Circuits Syst. I 57 (2010) 850",
    parameters=(
        Parameter("h", "rows left out", 0, lambda shape: shape.b_width - 1),
        Parameter("v", "columns left out", 0, lambda shape: shape.p_width - 2),
    ),
    component=broken_array_multiplier,
)
