"""Factorised, in fp32: an ordinary convolution over C·R channels.

Input channels are taken in blocks whose partial sums stay below 2**24, where fp32 is exact in any
order of summation; the blocks are added as int32. Padding is left to the convolution where its
products are 0.
"""

import torch
from torch import Tensor

from ..direct_factors import direct_factor
from ..padding import padded_images
from ..planes import FP32_EXACT, exact_convolution, factor_planes, weight_planes
from .backend import Problem

__all__ = ["Float32"]

RANK_LIMIT = 64


class Float32:
    """Any device; rank 1 to `RANK_LIMIT`."""

    def refusal(self, problem: Problem) -> str | None:
        lut = problem.lut
        if not 1 <= lut.rank <= RANK_LIMIT:
            return f"of rank 1 to {RANK_LIMIT}, not {lut.rank}"
        if problem.taps * lut.factors.product_bound >= FP32_EXACT:
            return f"exact for sums over {problem.taps} taps, not inexact"
        return None

    def cost(self, problem: Problem) -> float:
        return 1.1 * problem.lut.rank

    def accumulators(self, problem: Problem) -> Tensor:
        problem = problem if problem.padding_is_zero else problem.padded()
        planes, kernels = _planes(problem)
        parts = [
            _integers(exact_convolution(part, kernel, problem.geometry))
            for part, kernel in _exact_blocks(problem, planes, kernels)
        ]
        return torch.stack(parts).sum(0, dtype=torch.int32) if len(parts) > 1 else parts[0]


def _planes(problem: Problem) -> tuple[Tensor, Tensor]:
    """float32 planes of activations and of weights, whose products add up to the table's."""
    direct = direct_factor(problem.lut) if problem.lut.rank == 1 else None
    if direct is not None:
        return direct.planes(problem.x), direct.kernels(problem.w)
    factors, device = problem.lut.factors, problem.x.device
    u, v = (torch.from_numpy(f).to(device, torch.float32) for f in (factors.u, factors.v))
    rows = padded_images(problem.x, (0, 0), 0)
    return factor_planes(rows, u), weight_planes(problem.w.to(torch.int32), v)


def _integers(sums: Tensor) -> Tensor:
    """float32 integers as int32, in place: element by element, each as wide as before."""
    return sums.view(torch.int32).copy_(sums)


def _exact_blocks(problem: Problem, planes: Tensor, kernels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Blocks of channels: |partial sum| <= channels · taps · product_bound < 2**24."""
    factors = problem.lut.factors
    channels, rank = problem.w.shape[1], factors.rank
    size = min(channels, (FP32_EXACT - 1) // max(1, problem.taps * factors.product_bound))
    if size == channels:
        return [(planes, kernels)]
    batch, _, height, width = planes.shape
    grouped = planes.reshape(batch, problem.geometry.groups, channels * rank, height, width)
    return [
        (
            grouped[:, :, low * rank : (low + size) * rank].reshape(batch, -1, height, width),
            kernels[:, low * rank : (low + size) * rank],
        )
        for low in range(0, channels, size)
    ]
