"""The truncated multiplier: the k least significant columns of partial products are left out.

Uncorrected: a product is never above the exact one for k below both widths, and the error is at
most the sum of the products left out, (k - 1)·2^k + 1.
"""

from amaranth.lib.wiring import Component

from .multiplier import Family, Parameter, Shape
from .partial_products import PartialProductMultiplier


def truncated_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Partial products of columns i + j >= k."""
    (columns,) = parameters
    return PartialProductMultiplier(shape, lambda i, j: i + j >= columns)


FAMILY = Family(
    name="truncated",
    summary="the k least significant partial-product columns left out",
    source="M. J. Schulte, E. E. Swartzlander, VLSI Signal Processing VI (1993) 388, uncorrected",
    parameters=(Parameter("k", "columns left out", 1, lambda shape: shape.p_width - 2),),
    component=truncated_multiplier,
)
