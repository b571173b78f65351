"""Factorised, on a CUDA device: planes of 8 bits, int32 sums, in its matrix units."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..geometry import ConvGeometry
from ..table import LUT
from .backend import Problem
from .cuda_convolution import (
    Finish,
    PlaneTile,
    by_depthwise_planes,
    by_planes,
    by_pointwise,
    depthwise_layout,
    plane_tile,
    pointwise_tile,
)
from .cuda_operands import (
    Images,
    Kernels,
    Layout,
    Order,
    PackedPlanes,
    PlaneOrder,
    Weights,
    cuda_refusal,
    padded_to,
    prepare,
)
from .int8 import PLANE_LIMIT, RANK_LIMIT, ZERO_POINT, byte_planes

FUSED_OUTPUTS = 256
FUSED_PLAIN_OUTPUTS = 512

__all__ = [
    "CudaFactorised",
    "DensePlan",
    "dense_plan",
    "has_planes",
    "packed_planes",
    "planes_layout",
]


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
        return 0.5 + 0.6 * (count // 5) if problem.is_depthwise else 0.5 + 0.25 * count

    def accumulators(self, problem: Problem) -> Tensor:
        problem = problem.padded()
        sides = packed_planes(problem.lut, problem.x.device)
        planes, v = sides.u, sides.v
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
            plan = dense_plan(x, w, geometry, planes)
            kernels = prepare(
                weights, columns=columns, v=v, v_words=sides.v_words, order=plan.order
            )
            plan.convolve(images, kernels, planes, rows, result)
        return result.permute(0, 3, 1, 2)


def planes_layout(
    x: torch.Size, w: torch.Size, geometry: ConvGeometry, planes: PackedPlanes
) -> Layout:
    """Of a depthwise convolution: words of four planes, or bytes of the operand itself."""
    order: Order = "bytes" if planes.plain else "words"
    return depthwise_layout(x, w, geometry, count=planes.count, order=order)


@dataclass(frozen=True, eq=False)
class DensePlan:
    """How a convolution that is not depthwise is computed; without `layout` in the fused way."""

    layout: Layout | None
    order: PlaneOrder
    tile: PlaneTile
    geometry: ConvGeometry

    def convolve(
        self,
        images: Images,
        kernels: Kernels,
        planes: PackedPlanes,
        rows: int,
        result: Tensor,
        finish: Finish | None = None,
    ) -> None:
        if self.layout is None:
            by_pointwise(
                images, kernels, planes, self.order, self.tile, self.geometry, rows, result, finish
            )
        else:
            by_planes(
                images, kernels, planes, self.layout, self.order, self.tile, rows, result, finish
            )


def dense_plan(
    x: torch.Size, w: torch.Size, geometry: ConvGeometry, planes: PackedPlanes, parts: int = 1
) -> DensePlan:
    """Fused where an operand is looked up few times: in 1×1 layers of not too many outputs.

    `parts`: rows of weights an output, where the layer is not fused.
    """
    count, outputs = planes.count, w[0] // geometry.groups
    alone = w[2:] == (1, 1) and geometry.padding == (0, 0) and geometry.groups == 1
    if alone and outputs <= (FUSED_PLAIN_OUTPUTS if planes.plain else FUSED_OUTPUTS):
        tile = pointwise_tile(outputs, w[1], planes)
        channels = padded_to(tile.depth, w[1])
        order = PlaneOrder.pointwise(channels, count, outputs, tile.outputs)
        return DensePlan(None, order, tile, geometry)
    bare = Layout.of(x, w, geometry, count=count, multiple=16)
    positions = x[0] * math.prod(bare.size) * geometry.groups
    tile = plane_tile(parts * outputs, bare.group_bytes, positions)
    layout = Layout.of(x, w, geometry, count=count, multiple=16, depth=tile.depth)
    order = PlaneOrder.dense(layout, tile.depth, w[0], tile.outputs, parts)
    return DensePlan(layout, order, tile, geometry)


def has_planes(lut: LUT) -> bool:
    return lut.rank <= RANK_LIMIT and byte_planes(lut) is not None


@dataclass(frozen=True, eq=False)
class BothSides:
    """Byte planes of a table: of activations; of weights, int8 (planes, columns), and the same in
    words of four, int32 (planes // 4, columns), the first plane lowest.
    """

    u: PackedPlanes
    v: Tensor
    v_words: Tensor


@lru_cache(maxsize=256)
def packed_planes(lut: LUT, device: torch.device) -> BothSides:
    planes = byte_planes(lut)
    assert planes is not None
    u = planes.u.numpy().astype(np.int64) - ZERO_POINT
    v = planes.v.T.contiguous()
    whole = v[: len(v) // 4 * 4].numpy().reshape(-1, 4, v.shape[1]).transpose(0, 2, 1)
    words = torch.from_numpy(np.ascontiguousarray(whole).view(np.int32)[:, :, 0].copy())
    return BothSides(PackedPlanes.of(u, device), v.to(device), words.to(device))
