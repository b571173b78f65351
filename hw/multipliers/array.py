"""The exact array multiplier; signed in Baugh and Wooley's form."""

from amaranth.lib.wiring import Component

from .multiplier import Family, Shape
from .partial_products import PartialProductMultiplier


def array_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """All partial products kept."""
    return PartialProductMultiplier(shape, lambda _i, _j: True)


FAMILY = Family(
    name="array",
    summary="exact: all partial products, a carry-save array, a ripple of carries",
    source="C. R. Baugh, B. A. Wooley, IEEE Trans. Comput. C-22 (1973) 1045, for the signed form",
    parameters=(),
    component=array_multiplier,
)
