"""Batched matrix products whose products come from a table, bit for bit: both operands are data.

``result[..., i, j] = sum over k of table[x[..., i, k], y[..., k, j]]``, as in attention; computed
in :mod:`lut.products`.
"""

import torch
from torch import Tensor

from hw.errors import InputError

from .operators import known_table
from .table import LUT

__all__ = ["approx_matmul"]


def approx_matmul(x: Tensor, y: Tensor, lut: LUT) -> Tensor:
    """int32 (..., M, N) of x (..., M, K) and y (..., K, N), int8 or uint8; batches broadcast.

    x is the first operand of the multiplier, y the second. Raises InputError for other types or
    shapes that do not fit.
    """
    for name, operand in (("x", x), ("y", y)):
        if operand.dtype not in (torch.int8, torch.uint8):
            raise InputError(f"{name} must be int8 or uint8, not {operand.dtype}")
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        raise InputError(
            "x and y must be (..., M, K) and (..., K, N), "
            f"not {tuple(x.shape)} and {tuple(y.shape)}"
        )
    result: Tensor = torch.ops.lut.products(x, y, known_table(lut))
    return result
