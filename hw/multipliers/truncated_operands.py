"""The multiplier of truncated operands: the k lowest bits of both are left out.

An unsigned product is (a - a mod 2^k)·(b - b mod 2^k): the error is at most
(2^k - 1)·(2^a_width + 2^b_width - 2^k - 1), the product never above the exact one.
"""

from amaranth.lib.wiring import Component

from .multiplier import Family, Parameter, Shape
from .partial_products import PartialProductMultiplier
from .reduction import dadda_tree


def truncated_operands_multiplier(shape: Shape, parameters: tuple[int, ...]) -> Component:
    """Partial products with i >= k and j >= k, added by a Dadda tree."""
    (bits,) = parameters
    return PartialProductMultiplier(shape, lambda i, j: i >= bits and j >= bits, dadda_tree)


FAMILY = Family(
    name="truncated_operands",
    summary="the k lowest bits of both operands left out",
    source="J. Klhůfek, V. Mrázek, Design and Diagnostics of Electronic Circuits (2022), "
    "the truncated multiplier of ArithsGen",
    parameters=(
        Parameter("k", "bits left out", 1, lambda shape: min(shape.a_width, shape.b_width) - 1),
    ),
    component=truncated_operands_multiplier,
)
