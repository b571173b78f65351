"""The exact Dadda-tree multiplier; signed in Baugh and Wooley's form."""

from amaranth.lib.wiring import Component

from .multiplier import Family, Shape
from .partial_products import PartialProductMultiplier
from .reduction import dadda_tree


def dadda_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """All partial products, added with the fewest adders that as few stages allow."""
    return PartialProductMultiplier(shape, lambda _i, _j: True, dadda_tree)


FAMILY = Family(
    name="dadda",
    summary="exact: every stage adds as few bits as it must, then a ripple of carries",
    source="L. Dadda, Alta Frequenza 34 (1965) 349",
    parameters=(),
    component=dadda_multiplier,
)
