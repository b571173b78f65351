"""Convolutions and matrix products whose products come from a table, bit for bit, on integers.

``accumulators[n, o, y, x] = sum over c, i, j of table[x[n, c, y', x'], w[o, c, i, j]]``, computed
by the cheapest backend (:mod:`lut.backends`) that is proven exact for the operands.
"""

import torch
from torch import Tensor

from hw.errors import InputError

from .geometry import ConvGeometry, IntPair
from .operators import known_table
from .table import LUT

__all__ = ["approx_conv2d", "approx_linear"]


def approx_conv2d(
    x: Tensor,
    w: Tensor,
    lut: LUT,
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    x_zero_point: int = 0,
    backend: str | None = None,
) -> Tensor:
    """Integer convolution with the products of `lut`: int32 (N, O, H', W').

    x: int8 or uint8 (N, C, H, W); w: int8 or uint8 (O, C / groups, kH, kW). Only their bit patterns
    index the table. Padding contributes ``table[x_zero_point, w]``. No correction for a zero point
    is made. Raises InputError for other types, shapes that do not fit, operands wider than the
    table, or a backend that is unknown or not exact here.
    """
    geometry = ConvGeometry.of(stride, padding, dilation, groups)
    _check_operands(x, w, geometry)
    result: Tensor = torch.ops.lut.accumulators(
        x, w, known_table(lut), geometry.stride, geometry.padding, geometry.dilation, groups,
        x_zero_point, backend or "",
    )  # fmt: skip
    return result


def approx_linear(x: Tensor, w: Tensor, lut: LUT, *, backend: str | None = None) -> Tensor:
    """Matrix product with the products of `lut`: x (N, C), w (O, C), result int32 (N, O)."""
    return approx_conv2d(x[:, :, None, None], w[:, :, None, None], lut, backend=backend)[:, :, 0, 0]


def _check_operands(x: Tensor, w: Tensor, geometry: ConvGeometry) -> None:
    for name, operand in (("x", x), ("w", w)):
        if operand.dtype not in (torch.int8, torch.uint8):
            raise InputError(f"{name} must be int8 or uint8, not {operand.dtype}")
        if operand.ndim != 4:
            raise InputError(f"{name} must have 4 dimensions, not {operand.ndim}")
    groups = geometry.groups
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise InputError(
            f"x and w must fit {groups} groups, "
            f"not have shapes {tuple(x.shape)} and {tuple(w.shape)}"
        )
