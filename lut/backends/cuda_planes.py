"""Factorised on a CUDA device, with the planes of a few images at a time laid out in memory first.

A kernel of several taps would look each activation up once a tap; here it is looked up once, into a
workspace of at most `WORKSPACE_BYTES`, whatever the batch.
"""

import torch
from torch import Tensor

from .backend import Problem
from .cuda_factorised import (
    CudaFactorised,
    PackedPlanes,
    Tile,
    expanded_weights,
    launch,
    packed_planes,
)
from .cuda_operands import VECTOR_BYTES, Operands, on_device, padded_to

__all__ = ["CudaPlanes"]

WORKSPACE_BYTES = 1 << 26


class CudaPlanes(CudaFactorised):
    """CUDA; as `CudaFactorised`, without groups."""

    def refusal(self, problem: Problem) -> str | None:
        if problem.geometry.groups > 1:
            return f"for convolutions without groups, not {problem.geometry.groups}"
        return super().refusal(problem)

    def cost(self, problem: Problem) -> float:
        """Above that of the fused kernel: taken by name alone, for it has not been measured."""
        return 2.0 * super().cost(problem)

    def accumulators(self, problem: Problem) -> Tensor:
        packed = packed_planes(problem.lut, problem.x.device)
        tile = planes_tile(problem.w.shape[0])
        x = problem.x.permute(0, 2, 3, 1).contiguous()
        batch, outputs, *size = problem.output_shape
        result = torch.empty(batch, *size, outputs, dtype=torch.int32, device=x.device)
        step = padded_to(VECTOR_BYTES, problem.w.shape[1] * packed.count)
        few = max(1, WORKSPACE_BYTES // (x[0, ..., 0].numel() * step))
        kernels = None
        for images, part in zip(x.split(few), result.split(few), strict=True):
            planes = expanded_images(images, packed, step)
            operands = Operands.within(planes, problem, step, tile.depth, part)
            if kernels is None:
                kernels = expanded_weights(problem, packed, operands, tile, packed.count)
            launch(operands, packed, kernels, tile, expanded=True)
        return result.permute(0, 3, 1, 2)


def planes_tile(outputs: int) -> Tile:
    width = max(16, min(128, 1 << (outputs - 1).bit_length()))
    return Tile(128, width, 128, 4 if width <= 64 else 8, 3)


def expanded_images(x: Tensor, packed: PackedPlanes, step: int) -> Tensor:
    """u[x], int8 (N, H, W, step): the planes of a channel side by side, zeros last."""
    from .cuda_kernels import expand_images

    planes = torch.empty(*x.shape[:3], step, dtype=torch.int8, device=x.device)
    with on_device(x):
        expand_images[(-(-planes.numel() // 1024),)](
            x, packed.bytes, planes, planes.numel(), x.shape[3],
            step, packed.bytes.shape[1], packed.count, 1024,
        )  # fmt: skip
    return planes
