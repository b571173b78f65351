"""Sums of products of two matrices of integers, exact whatever the table, and their gradients.

``result[..., i, j] = sum over k of table[x[..., i, k], y[..., k, j]]``. Factorised: ``u[x]`` and
``v[y]`` side by side along k make one fp32 product, in blocks of k that are exact. Several tables
weighted by a mixture cost one such product over their joint basis, with mixed ``v``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .backends.float32 import RANK_LIMIT
from .candidates import Tables
from .planes import FP32_EXACT
from .table import LUT

__all__ = ["MatrixOperands", "product_gradients", "sums_of_products", "table_product"]

LOOKUPS_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class MatrixOperands:
    """Levels x (..., M, K) and y (..., K, N), float32 integers, with what multiplies them.

    Zero points: int32, 0-dimensional; `affine`: whether one may differ from 0.
    """

    x: Tensor
    y: Tensor
    x_zero_point: Tensor
    y_zero_point: Tensor
    affine: bool
    mixture: Tensor | None
    tables: Tables

    @property
    def rows(self) -> Tensor:
        """Bit patterns of x, int64."""
        return self.x.to(torch.int64) & ((1 << self.tables.luts[0].a_width) - 1)

    @property
    def columns(self) -> Tensor:
        """Bit patterns of y, int64."""
        return self.y.to(torch.int64) & ((1 << self.tables.luts[0].b_width) - 1)

    @property
    def has_exact_basis(self) -> bool:
        """Whether fp32 sums over the joint basis are exact."""
        return self.tables.exact_channels(1) > 0


def table_product(rows: Tensor, columns: Tensor, lut: LUT) -> Tensor:
    """int32 (..., M, N) of bit patterns, int64 (..., M, K) and (..., K, N)."""
    if lut.rank <= RANK_LIMIT and lut.factors.product_bound < FP32_EXACT:
        return _factorised(rows, columns, lut)
    return _looked_up(rows, columns, lut)


def sums_of_products(operands: MatrixOperands) -> Tensor:
    """float32 (..., M, N), real zeros contributing nothing if the products are exact:
    ``sum over k of product(x, y) - x_zero_point · y - y_zero_point · x + x_zero_point ·
    y_zero_point``.
    """
    sums = _sums(operands)
    if not operands.affine:
        return sums.float()
    x_zero, y_zero = operands.x_zero_point, operands.y_zero_point
    of_columns = operands.y.sum(-2, keepdim=True).to(sums.dtype)
    of_rows = operands.x.sum(-1, keepdim=True).to(sums.dtype)
    constant = operands.x.shape[-1] * x_zero * y_zero
    return (sums - x_zero * of_columns - y_zero * of_rows + constant).float()


def product_gradients(
    gradient: Tensor, operands: MatrixOperands, x: bool, y: bool, mixture: bool
) -> list[Tensor | None]:
    """Of x, y and mixture, where wanted, from that of the sums.

    Straight-through for operands, as if products were exact. Of the mixture: ``<gradient, sums of
    table m>``, exactly.
    """
    of_x = of_y = None
    if x:
        centred = operands.y - operands.y_zero_point if operands.affine else operands.y
        of_x = (gradient @ centred.mT).sum_to_size(operands.x.shape)
    if y:
        centred = operands.x - operands.x_zero_point if operands.affine else operands.x
        of_y = (centred.mT @ gradient).sum_to_size(operands.y.shape)
    return [of_x, of_y, _mixture_gradient(gradient, operands) if mixture else None]


def _sums(operands: MatrixOperands) -> Tensor:
    """int32 of one table; float32 of several."""
    rows, columns, mixture = operands.rows, operands.columns, operands.mixture
    if mixture is None:
        return table_product(rows, columns, operands.tables.luts[0])
    if operands.has_exact_basis:
        return _mixed(rows, columns, operands.tables, mixture)
    each = [table_product(rows, columns, lut).float() for lut in operands.tables.luts]
    return torch.tensordot(mixture.float(), torch.stack(each), 1)


def _mixed(rows: Tensor, columns: Tensor, tables: Tables, mixture: Tensor) -> Tensor:
    """float32; each block of k is exact for a one-hot mixture, and blocks are added in float64."""
    u, v = tables.u(rows.device), tables.v(rows.device)
    mixed = torch.tensordot(mixture.float(), v, 1)
    block = tables.exact_channels(1)
    parts = [
        _exact_product(a, b, u, mixed)
        for a, b in zip(rows.split(block, -1), columns.split(block, -2), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0, dtype=torch.float64).float()


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
    with _exact_matrix_products():
        return left @ right


@contextmanager
def _exact_matrix_products() -> Iterator[None]:
    """Plain sums of fp32 products, whatever precision the user set for their own."""
    settings = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [one.fp32_precision for one in settings]
    for one in settings:
        one.fp32_precision = "ieee"
    try:
        yield
    finally:
        for one, precision in zip(settings, before, strict=True):
            one.fp32_precision = precision


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


def _mixture_gradient(gradient: Tensor, operands: MatrixOperands) -> Tensor:
    """float32 (M,). Over the basis: <u[x]ᵀ · gradient, v_m[y]>, collected by bit pattern of y."""
    rows, columns, tables = operands.rows, operands.columns, operands.tables
    if not operands.has_exact_basis:
        each = [table_product(rows, columns, lut).float() for lut in tables.luts]
        return torch.stack([(gradient * one).sum() for one in each])
    u, v = tables.u(rows.device), tables.v(rows.device)
    rank = u.shape[1]
    of_v = u[rows].flatten(-2).mT @ gradient
    of_v = of_v.unflatten(-2, (rows.shape[-1], rank)).movedim(-2, -1)
    of_v = of_v.sum_to_size(*columns.shape, rank)
    per_pattern = v.new_zeros(v.shape[1:])
    per_pattern.index_add_(0, columns.flatten(), of_v.reshape(-1, rank))
    return torch.einsum("br,mbr->m", per_pattern, v)
