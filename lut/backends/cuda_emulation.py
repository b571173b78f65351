"""Emulated convolutions on a CUDA device from real operands, quantised inside the kernels."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .cuda_convolution import (
    Finish,
    by_columns,
    by_depthwise_planes,
    by_mixed_pointwise,
    by_rows,
    depthwise_layout,
    mixed_tile,
    row_order,
)
from .cuda_factorised import BothSides, dense_plan, has_planes, packed_planes, planes_layout
from .cuda_operands import (
    Images,
    Kernels,
    PackedPlanes,
    PlaneOrder,
    Weights,
    biased_columns,
    cuda_refusal,
    on_device,
    padded_to,
    power_of_two,
    prepare,
    transposed_table,
)

if TYPE_CHECKING:
    from ..candidates import Tables
    from ..emulation import Operands

__all__ = [
    "fixed_unit",
    "fused_convolution",
    "is_fused",
    "observed_scales",
    "plane_factors",
    "plane_rows",
    "through_quantiser",
]

DENSE_PLANES = 48
DEPTHWISE_PLANES = 4
MIXED_PLANES = 64
WORD = 4
BFLOAT16_EXACT = 256
"""Integers up to it are values of bfloat16."""
LARGEST_FIXED = 127 * 256 + 127
"""Of two signed bytes."""
FIXED_PRODUCTS = 130_000
"""So many products of signed bytes add up to less than 2**31 - 2**16."""
FACTORS = 8
"""Of a mixed table, at a time."""
SMALLEST_SCALE = 1e-8


def is_fused(x: Tensor, tables: "Tables", mixture: Tensor | None) -> bool:
    """Whether the kernels run here, for this kind of products."""
    if cuda_refusal(x) is not None or x.dtype == torch.float64:
        return False
    return mixture is None or (
        tables.basis is not None and activation_planes(tables.basis.u).shape[1] <= MIXED_PLANES
    )


def fused_convolution(operands: "Operands", dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As ``lut.emulation.convolution``."""
    x, w = operands.x, operands.w
    images = Images(x, operands.zero_point, operands.x_scale, *operands.x_range)
    weights = Weights(w, *operands.w_range, operands.w_scale)
    geometry = operands.geometry
    height, width = geometry.output_size(_padded(operands), w.shape)
    shape = (x.shape[0], height, width, w.shape[0])
    result = torch.empty(shape, dtype=dtype, device=x.device)
    depthwise = geometry.groups > 1 and w.shape[1] == 1
    if operands.mixture is not None:
        way = _mixed_depthwise if depthwise else _mixed_dense
    else:
        way = _depthwise if depthwise else _dense
    real = way(operands, images, weights, result)
    return result.permute(0, 3, 1, 2), real


def _padded(operands: "Operands") -> torch.Size:
    batch, channels, height, width = operands.x.shape
    top, left = operands.geometry.padding
    return torch.Size((batch, channels, height + 2 * top, width + 2 * left))


def _dense(operands: "Operands", images: Images, weights: Weights, result: Tensor) -> Tensor:
    lut = operands.tables.luts[0]
    if not has_planes(lut):
        return _by_rows(operands, images, weights, result)
    sides = packed_planes(lut, result.device)
    if sides.u.count > DENSE_PLANES:
        return _by_rows(operands, images, weights, result)
    return _by_planes(operands, images, weights, sides, result)


def _by_planes(
    operands: "Operands", images: Images, weights: Weights, sides: BothSides, result: Tensor
) -> Tensor:
    rows, columns = operands.tables.luts[0].table.shape
    plan = dense_plan(images.x.shape, weights.w.shape, operands.geometry, sides.u)
    kernels = prepare(
        weights, columns=columns, v=sides.v, v_words=sides.v_words, order=plan.order,
        real=result.dtype,
    )  # fmt: skip
    finish = Finish.of(images, kernels, operands.affine)
    plan.convolve(images, kernels, sides.u, rows, result, finish)
    return _real(kernels)


def _by_rows(operands: "Operands", images: Images, weights: Weights, result: Tensor) -> Tensor:
    lut = operands.tables.luts[0]
    kernels = prepare(weights, columns=lut.table.shape[1], patterns=True, real=result.dtype)
    layout = row_order(images.x.shape, weights.w.shape, operands.geometry)
    finish = Finish.of(images, kernels, operands.affine)
    by_rows(images, kernels, biased_columns(lut, result.device), layout, result, finish)
    return _real(kernels)


def _depthwise(operands: "Operands", images: Images, weights: Weights, result: Tensor) -> Tensor:
    lut = operands.tables.luts[0]
    if has_planes(lut):
        sides = packed_planes(lut, result.device)
        if sides.u.count <= DEPTHWISE_PLANES:
            return _by_depthwise_planes(operands, images, weights, sides, result)
    return _by_columns(operands, images, weights, transposed_table(lut, result.device), result)


def _by_depthwise_planes(
    operands: "Operands", images: Images, weights: Weights, sides: BothSides, result: Tensor
) -> Tensor:
    rows, columns = operands.tables.luts[0].table.shape
    w, planes = weights.w, sides.u
    order = PlaneOrder.depthwise(w.shape[2] * w.shape[3], planes, w.shape[0])
    kernels = prepare(weights, columns=columns, v=sides.v, order=order, real=result.dtype)
    layout = planes_layout(images.x.shape, w.shape, operands.geometry, planes)
    finish = Finish.of(images, kernels, operands.affine)
    by_depthwise_planes(images, kernels, planes, layout, rows, result, finish)
    return _real(kernels)


def _by_columns(
    operands: "Operands", images: Images, weights: Weights, table: Tensor, result: Tensor
) -> Tensor:
    kernels = prepare(weights, columns=table.shape[0], patterns=True, real=result.dtype)
    x, w = images.x.shape, weights.w.shape
    layout = depthwise_layout(x, w, operands.geometry, order="channels")
    finish = Finish.of(images, kernels, operands.affine)
    by_columns(images, kernels, table, layout, result, finish)
    return _real(kernels)


def _mixed_dense(operands: "Operands", images: Images, weights: Weights, result: Tensor) -> Tensor:
    tables, mixture = operands.tables, operands.mixture
    assert mixture is not None
    planes, v = mixed_planes(tables, result.device)
    unit = fixed_unit(tables, result.dtype, weights.w[0].numel() * planes.count)
    x, w = images.x.shape, weights.w.shape
    plan = dense_plan(x, w, operands.geometry, planes, parts=1 if unit is None else 2)
    if plan.layout is None:
        return _mixed_pointwise(operands, images, weights, result)
    kernels = prepare(
        weights, columns=v.shape[2], v=v, mixture=_weights(mixture), order=plan.order,
        real=result.dtype, unit=unit,
    )  # fmt: skip
    finish = Finish.of(images, kernels, operands.affine)
    plan.convolve(images, kernels, planes, tables.luts[0].table.shape[0], result, finish)
    return _real(kernels)


def _mixed_pointwise(
    operands: "Operands", images: Images, weights: Weights, result: Tensor
) -> Tensor:
    (outputs, channels, *_), mixture = weights.w.shape, operands.mixture
    assert mixture is not None
    v = plane_factors(operands.tables, result.device, WORD)
    tile = mixed_tile(outputs, channels)
    order = PlaneOrder.words(padded_to(tile.depth, channels), v.shape[1], outputs, tile.outputs)
    kernels = prepare(
        weights, columns=v.shape[2], v=v, mixture=_weights(mixture), order=order,
        real=result.dtype, split=_is_split(operands.tables, result.dtype),
    )  # fmt: skip
    assert kernels.planes is not None
    u = plane_rows(operands.tables, kernels.planes.dtype, result.device, WORD)
    finish = Finish.of(images, kernels, operands.affine)
    by_mixed_pointwise(images, kernels, u, order, tile, operands.geometry, result, finish)
    return _real(kernels)


def fixed_unit(tables: "Tables", dtype: torch.dtype, products: int) -> float | None:
    """Of mixed factors in fixed point, whose multiples are two signed bytes: a power of two, at
    most 1, so that integers are exact. None where they are real numbers: for results in float32,
    where integers do not fit, and where sums of so many products do not.
    """
    largest = _largest_factor(tables)
    if dtype == torch.float32 or largest > LARGEST_FIXED or products > FIXED_PRODUCTS:
        return None
    return 2.0 ** math.ceil(math.log2(max(1, largest) / LARGEST_FIXED))


def _is_split(tables: "Tables", dtype: torch.dtype) -> bool:
    """Whether mixed factors are kept to 16 bits: for results in float32, and where the factors of a
    single multiplier have more than 8. Otherwise they are rounded to bfloat16, as autocast rounds
    weights.
    """
    return dtype == torch.float32 or _largest_factor(tables) > BFLOAT16_EXACT


@lru_cache(maxsize=256)
def _largest_factor(tables: "Tables") -> int:
    assert tables.basis is not None
    return int(np.abs(tables.basis.v).max())


def _weights(mixture: Tensor) -> Tensor:
    return mixture.float().contiguous()


def _mixed_depthwise(
    operands: "Operands", images: Images, weights: Weights, result: Tensor
) -> Tensor:
    tables, mixture = operands.tables, operands.mixture
    assert mixture is not None
    planes, _ = mixed_planes(tables, result.device)
    unit = fixed_unit(tables, result.dtype, weights.w[0].numel() * planes.count)
    if planes.count <= DEPTHWISE_PLANES and unit is not None:
        return _by_mixed_depthwise_planes(operands, images, weights, unit, result)
    table = _mixed_columns(tables, _weights(mixture), result.device)
    return _by_columns(operands, images, weights, table, result)


def _by_mixed_depthwise_planes(
    operands: "Operands", images: Images, weights: Weights, unit: float, result: Tensor
) -> Tensor:
    mixture, w = operands.mixture, weights.w.shape
    assert mixture is not None
    planes, v = mixed_planes(operands.tables, result.device)
    planes = replace(planes, plain=False)  # in words, as v is
    order = PlaneOrder.depthwise(w[2] * w[3], planes, w[0], parts=2)
    kernels = prepare(
        weights, columns=v.shape[2], v=v, mixture=_weights(mixture), order=order,
        real=result.dtype, unit=unit,
    )  # fmt: skip
    layout = planes_layout(images.x.shape, w, operands.geometry, planes)
    finish = Finish.of(images, kernels, operands.affine)
    rows = operands.tables.luts[0].table.shape[0]
    by_depthwise_planes(images, kernels, planes, layout, rows, result, finish)
    return _real(kernels)


def _mixed_columns(tables: "Tables", mixture: Tensor, device: torch.device) -> Tensor:
    """float32 (columns, rows): the mixed table, transposed, from its factors."""
    from .cuda_kernels import mix_columns

    u, v = _transposed(tables, device), tables.v(device)
    (rank, rows), (count, columns, _) = u.shape, v.shape
    table = torch.empty((columns, rows), device=device)
    with on_device(table):
        mix_columns[(columns,)](
            u, v, mixture, table, rank, count, columns, rows, power_of_two(count), FACTORS,
            num_warps=2,
        )  # fmt: skip
    return table


@lru_cache(maxsize=256)
def _transposed(tables: "Tables", device: torch.device) -> Tensor:
    """u, float32 (R, rows)."""
    return tables.u(device).t().contiguous()


@lru_cache(maxsize=256)
def mixed_planes(tables: "Tables", device: torch.device) -> tuple[PackedPlanes, Tensor]:
    """The basis in planes of 8 bits; and v of each plane, float32 (M, planes, columns)."""
    assert tables.basis is not None
    u, v = tables.basis.u, tables.basis.v
    parts = [len(_byte_parts(column)) for column in u.T]
    by_plane = np.repeat(v, parts, axis=2).transpose(0, 2, 1)
    factors = torch.from_numpy(np.ascontiguousarray(by_plane)).to(device, torch.float32)
    return PackedPlanes.of(activation_planes(u), device), factors


@lru_cache(maxsize=256)
def plane_rows(tables: "Tables", dtype: torch.dtype, device: torch.device, group: int) -> Tensor:
    """(groups, rows, group): the planes of u side by side, those beyond the last zero."""
    assert tables.basis is not None
    planes = torch.from_numpy(activation_planes(tables.basis.u))
    padded = functional.pad(planes, (0, -planes.shape[1] % group))
    return padded.unflatten(1, (-1, group)).transpose(0, 1).contiguous().to(device, dtype)


@lru_cache(maxsize=256)
def plane_factors(tables: "Tables", device: torch.device, group: int) -> Tensor:
    """float32 (M, planes, columns): v of each plane; planes to whole groups, the last ones zero."""
    _, v = mixed_planes(tables, device)
    return functional.pad(v.cpu(), (0, 0, 0, -v.shape[1] % group)).to(device)


def activation_planes(u: NDArray[np.int64]) -> NDArray[np.int64]:
    """u (rows, R) as a sum of columns from -128 to 127: (rows, planes), those of a column
    together.
    """
    return np.stack([part for column in u.T for part in _byte_parts(column)], axis=1)


def _byte_parts(values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    parts = [np.clip(values, -128, 127)]
    while (values := values - parts[-1]).any():
        parts.append(np.clip(values, -128, 127))
    return parts


def _real(kernels: Kernels) -> Tensor:
    assert kernels.real is not None
    return kernels.real


def through_quantiser(
    operands: "Operands", gradient: Tensor | None, dtype: torch.dtype | None
) -> tuple[Tensor | None, Tensor | None]:
    """The quantised x in real values of `dtype` (None: not wanted), and the gradient that passes
    its quantiser; in one kernel on a CUDA device.
    """
    x, (low, high) = operands.x, operands.x_range
    if cuda_refusal(x) is not None:
        return _through_quantiser(operands, gradient, dtype)
    from .cuda_kernels import through_quantiser as kernel

    if gradient is None and dtype is None:
        return None, None
    x = _dense_memory(x)
    if gradient is not None and gradient.stride() != x.stride():
        gradient = torch.empty_like(x, dtype=gradient.dtype).copy_(gradient)
    quantised = None if dtype is None else torch.empty_like(x, dtype=dtype)
    count, block = x.numel(), 1024
    with on_device(x):
        kernel[(-(-count // block),)](
            x, x if gradient is None else gradient, operands.x_scale, operands.zero_point,
            x if quantised is None else quantised, x if gradient is None else gradient,
            low, high, count, quantised is not None, gradient is not None, block,
        )  # fmt: skip
    return quantised, gradient


def _dense_memory(x: Tensor) -> Tensor:
    last = torch.channels_last
    if x.is_contiguous() or x.is_contiguous(memory_format=last):
        return x
    return x.contiguous(memory_format=last)


def _through_quantiser(
    operands: "Operands", gradient: Tensor | None, dtype: torch.dtype | None
) -> tuple[Tensor | None, Tensor | None]:
    low, high = operands.x_range
    rounded = torch.div(operands.x.float(), operands.x_scale).round_()
    if operands.affine:
        rounded += operands.zero_point
    levels = rounded.clamp(low, high)
    passed = None if gradient is None else gradient * (levels == rounded)
    if dtype is None:
        return None, passed
    if operands.affine:
        levels -= operands.zero_point
    return levels.mul_(operands.x_scale).to(dtype), passed


def observed_scales(
    x: Tensor,
    scratch: Tensor,
    low_values: Sequence[Tensor],
    high_values: Sequence[Tensor],
    batches: Sequence[Tensor],
    kept: Sequence[Tensor],
    momentum: float,
    levels: int,
) -> Tensor:
    """Update the moving averages of the largest magnitude of several observers with that of `x`;
    the new scales (observers,), also in `kept`.

    scratch: int32 (2,) of zeros, zeros again afterwards.
    """
    from .cuda_kernels import observe_largest

    x = _dense_memory(x.detach())
    scales = torch.empty(len(kept), dtype=torch.float32, device=x.device)
    block, count = 8192, x.numel()
    programs = min(-(-count // block), 512)
    turns = -(-count // (block * programs))
    with on_device(x):
        observe_largest[(programs,)](
            x, scratch, tuple(low_values), tuple(high_values), tuple(batches), tuple(kept), scales,
            momentum, float(levels), SMALLEST_SCALE, count, programs, turns, len(kept), block,
            enable_fp_fusion=False, num_warps=8,
        )  # fmt: skip
    return scales
