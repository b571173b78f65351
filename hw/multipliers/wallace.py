"""The exact Wallace-tree multiplier; signed in Baugh and Wooley's form."""

from amaranth.lib.wiring import Component

from .multiplier import Family, Shape
from .partial_products import PartialProductMultiplier
from .reduction import wallace_tree


def wallace_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """All partial products, added in stages of full and half adders."""
    return PartialProductMultiplier(shape, lambda _i, _j: True, wallace_tree)


FAMILY = Family(
    name="wallace",
    summary="exact: every stage adds as many bits as it can, then a ripple of carries",
    source="C. S. Wallace, IEEE Trans. Electronic Computers EC-13 (1964) 14",
    parameters=(),
    component=wallace_multiplier,
)
