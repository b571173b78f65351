"""Factorised, on a CUDA device: planes of 8 bits, int32 sums, in its matrix units."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..geometry import ConvGeometry
from ..table import LUT
from .backend import Problem
from .cuda_convolution import (
    PlaneTile,
    by_depthwise_planes,
    by_planes,
    depthwise_layout,
    plane_tile,
)
from .cuda_operands import (
    Images,
    Layout,
    Order,
    PackedPlanes,
    PlaneOrder,
    Weights,
    cuda_refusal,
    prepare,
)
from .int8 import PLANE_LIMIT, RANK_LIMIT, ZERO_POINT, byte_planes

__all__ = ["CudaFactorised", "dense_plan", "has_planes", "packed_planes", "planes_layout"]


class CudaFactorised:
    """CUDA; tables that at most `PLANE_LIMIT` planes of 8 bits make up. Exact: integers only."""

    def refusal(self, problem: Problem) -> str | None:
        refusal = cuda_refusal(problem.x)
        if refusal is not None:
            return refusal
        if not has_planes(problem.lut):
            return f"of at most {PLANE_LIMIT} planes of 8 bits, not of rank {problem.lut.rank}"
        return None

    def cost(self, problem: Problem) -> float:
        planes = byte_planes(problem.lut)
        assert planes is not None
        count = planes.u.shape[1]
        return 0.5 + 0.1 * count if problem.is_depthwise else 0.5 + 0.25 * count

    def accumulators(self, problem: Problem) -> Tensor:
        planes, v = packed_planes(problem.lut, problem.x.device)
        images = Images(problem.x, problem.zero)
        result = problem.empty_result()
        rows, columns = problem.lut.table.shape
        x, w, geometry = problem.x.shape, problem.w.shape, problem.geometry
        weights = Weights(problem.w)
        if problem.is_depthwise:
            layout = planes_layout(x, w, geometry, planes)
            order = PlaneOrder.depthwise(problem.taps, planes, w[0])
            kernels = prepare(weights, columns=columns, v=v, order=order)
            by_depthwise_planes(images, kernels, planes, layout, rows, result)
        else:
            layout, order, tile = dense_plan(x, w, geometry, planes.count)
            kernels = prepare(weights, columns=columns, v=v, order=order)
            by_planes(images, kernels, planes, layout, order, tile, rows, result)
        return result.permute(0, 3, 1, 2)


def planes_layout(
    x: torch.Size, w: torch.Size, geometry: ConvGeometry, planes: PackedPlanes
) -> Layout:
    """Of a depthwise convolution: words of four planes, or bytes of the operand itself."""
    order: Order = "bytes" if planes.plain else "words"
    return depthwise_layout(x, w, geometry, count=planes.count, order=order)


def dense_plan(
    x: torch.Size, w: torch.Size, geometry: ConvGeometry, count: int
) -> tuple[Layout, PlaneOrder, PlaneTile]:
    """Layout of activations, of weights, and tile."""
    outputs = w[0] // geometry.groups
    bare = Layout.of(x, w, geometry, count=count, multiple=16)
    tile = plane_tile(outputs, bare.group_bytes)
    layout = Layout.of(x, w, geometry, count=count, multiple=16, depth=tile.depth)
    return layout, PlaneOrder.dense(layout, tile.depth, w[0], tile.outputs), tile


def has_planes(lut: LUT) -> bool:
    return lut.rank <= RANK_LIMIT and byte_planes(lut) is not None


@lru_cache(maxsize=256)
def packed_planes(lut: LUT, device: torch.device) -> tuple[PackedPlanes, Tensor]:
    """Both sides of the byte planes of `lut`; the weights' is int8 (planes, columns)."""
    planes = byte_planes(lut)
    assert planes is not None
    u = planes.u.numpy().astype(np.int64) - ZERO_POINT
    return PackedPlanes.of(u, device), planes.v.T.contiguous().to(device)
