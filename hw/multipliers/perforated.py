"""The perforated multiplier: r successive rows of partial products are left out, from row f on.

Row j holds a·b_j, so what is left out of an unsigned product is a·(b mod 2^(f+r) - b mod 2^f): at
most (2^a_width - 1)·2^f·(2^r - 1).
"""

from amaranth.lib.wiring import Component

from ..errors import InputError
from .multiplier import Family, Parameter, Shape
from .partial_products import PartialProductMultiplier
from .reduction import dadda_tree


def perforated_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Partial products of all rows but f … f + r - 1, added by a Dadda tree."""
    first, rows = parameters
    return PartialProductMultiplier(shape, lambda _i, j: not first <= j < first + rows, dadda_tree)


def _check(shape: Shape, parameters: tuple[int, ...]) -> None:
    first, rows = parameters
    if first + rows > shape.b_width:
        raise InputError(
            f"parameters f + r of perforated must be at most {shape.b_width} (the rows), "
            f"not {first + rows}"
        )


FAMILY = Family(
    name="perforated",
    summary="r rows of partial products left out, from row f on",
    source="G. Zervakis et al., IEEE Trans. VLSI Syst. 24 (2016) 3105",
    parameters=(
        Parameter("f", "first row left out", 0, lambda shape: shape.b_width - 1),
        Parameter("r", "rows left out", 1, lambda shape: shape.b_width - 1),
    ),
    component=perforated_multiplier,
    check=_check,
)
