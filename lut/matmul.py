"""Batched matrix products whose products come from a table, bit for bit: both operands are data.

``result[..., i, j] = sum over k of table[x[..., i, k], y[..., k, j]]``, as in attention.
Factorised: ``u[x]`` and ``v[y]`` side by side along k make one fp32 product, in blocks of k that
are exact.
"""

import torch
from torch import Tensor

from hw.errors import InputError

from .backends.float32 import RANK_LIMIT
from .planes import FP32_EXACT
from .table import LUT

__all__ = ["approx_matmul"]

LOOKUPS_AT_ONCE = 1 << 24


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
    rows = x.to(torch.int64) & ((1 << lut.a_width) - 1)
    columns = y.to(torch.int64) & ((1 << lut.b_width) - 1)
    if lut.rank <= RANK_LIMIT and lut.factors.product_bound < FP32_EXACT:
        return _factorised(rows, columns, lut)
    return _looked_up(rows, columns, lut)


def _factorised(rows: Tensor, columns: Tensor, lut: LUT) -> Tensor:
    factors, device = lut.factors, rows.device
    u, v = (torch.from_numpy(f).to(device, torch.float32) for f in (factors.u, factors.v))
    block = (FP32_EXACT - 1) // max(1, factors.product_bound)
    parts = [
        _exact_product(a, b, u, v).to(torch.int32)
        for a, b in zip(rows.split(block, -1), columns.split(block, -2), strict=True)
    ]
    return torch.stack(parts).sum(0, dtype=torch.int32)


def _exact_product(rows: Tensor, columns: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """fp32 (..., M, N): k and r are one dimension of the product."""
    left = u[rows].flatten(-2)
    right = v[columns].transpose(-1, -2).flatten(-3, -2)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return left @ right
    finally:
        torch.set_float32_matmul_precision(before)


def _looked_up(rows: Tensor, columns: Tensor, lut: LUT) -> Tensor:
    table = torch.from_numpy(lut.table.copy()).to(rows.device).flatten()
    high = rows << lut.b_width
    batch = torch.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    result = torch.zeros(
        *batch, rows.shape[-2], columns.shape[-1], dtype=torch.int32, device=rows.device
    )
    step = max(1, LOOKUPS_AT_ONCE // max(1, result.numel()))
    for a, b in zip(high.split(step, -1), columns.split(step, -2), strict=True):
        index = a.unsqueeze(-1) + b.unsqueeze(-3)
        result += table[index].sum(-2, dtype=torch.int32)
    return result
