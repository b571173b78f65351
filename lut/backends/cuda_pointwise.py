"""Exact 1×1 convolutions of few channels on a CUDA device, channels last, and their gradients.

Deterministic: partial sums are added in a fixed order. Such layers are a pass over memory; general
matrix products take several times as long.
"""

from dataclasses import dataclass
from math import gcd
from typing import ClassVar

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from .cuda_exact import MOST_VALUES, ExactConvolution, Grid, rows_of, runs_here
from .cuda_operands import on_device, power_of_two
from .cuda_sums import summed

__all__ = ["Pointwise"]

MOST_CHANNELS = 64
NARROWEST = 16
"""Sides of a matrix unit."""
POSITIONS = 128
WEIGHT_PROGRAMS = 528
"""Programs that share the sums of a gradient of weights."""
WIDEST = 8
"""Values of a vector."""


@dataclass(frozen=True, eq=False)
class Pointwise(ExactConvolution):
    """1×1, one group, stride 1, at most 64 channels and outputs, in half precision."""

    quantises: ClassVar[bool] = True

    @classmethod
    def fits(cls, x: Tensor, w: Tensor, geometry: ConvGeometry, dtype: torch.dtype) -> bool:
        single = (1, 1) == tuple(w.shape[2:]) == geometry.stride and geometry.padding == (0, 0)
        few = geometry.groups == 1 and max(w.shape[:2]) <= MOST_CHANNELS
        half = dtype in (torch.bfloat16, torch.float16)
        values = x.numel() // max(1, x.shape[1]) * max(w.shape[:2])
        return single and few and half and values < MOST_VALUES and runs_here(x)

    @property
    def _align(self) -> int:
        return gcd(*self.w.shape[:2], WIDEST)

    @property
    def _grid(self) -> tuple[Tensor, Tensor, int, int]:
        grid = self.grid or Grid(self.w, self.w, 0, 0)
        return grid.scale, grid.zero_point, grid.low, grid.high

    @property
    def _counts(self) -> tuple[int, int]:
        outputs, channels = self.w.shape[:2]
        return channels // self._align, outputs // self._align

    @property
    def _tiles(self) -> tuple[int, int]:
        outputs, channels = self.w.shape[:2]
        return max(NARROWEST, power_of_two(channels)), max(NARROWEST, power_of_two(outputs))

    @property
    def _weights(self) -> Tensor:
        return self.w.reshape(self.w.shape[:2]).contiguous()

    def result(self) -> Tensor:
        from .pointwise_kernels import pointwise

        x = self._images
        result = x.new_empty((*x.shape[:3], self.w.shape[0]))
        positions = x.shape[0] * x.shape[1] * x.shape[2]
        with on_device(x):
            pointwise[(-(-positions // POSITIONS),)](
                x, self._weights, result, x, *self._grid, positions, *self._counts, False,
                self.relu, False, self._align, POSITIONS, *self._tiles, num_warps=4,
            )  # fmt: skip
        return result.permute(0, 3, 1, 2)

    def operand_gradient(self, gradient: Tensor) -> Tensor:
        from .pointwise_kernels import pointwise

        x, signal = self._images, rows_of(gradient)
        result = torch.empty_like(x)
        positions = x.shape[0] * x.shape[1] * x.shape[2]
        with on_device(x):
            pointwise[(-(-positions // POSITIONS),)](
                signal, self._weights, result, x, *self._grid, positions, *self._counts[::-1], True,
                self.relu, self.grid is not None, self._align, POSITIONS, *self._tiles[::-1],
                num_warps=4,
            )  # fmt: skip
        return result.permute(0, 3, 1, 2)

    def weight_gradient(self, gradient: Tensor) -> Tensor:
        from .pointwise_kernels import pointwise_weight_gradient

        x, signal = self._images, rows_of(gradient)
        outputs, channels = self.w.shape[:2]
        positions = x.shape[0] * x.shape[1] * x.shape[2]
        turns = max(1, -(-positions // (POSITIONS * WEIGHT_PROGRAMS)))
        programs = -(-positions // (POSITIONS * turns))
        parts = torch.empty((programs, outputs, channels), dtype=torch.float32, device=x.device)
        with on_device(x):
            pointwise_weight_gradient[(programs,)](
                signal, x, parts, *self._grid, positions, *self._counts, turns, self.relu,
                self.grid is not None, self._align, POSITIONS, *self._tiles, num_warps=4,
            )  # fmt: skip
        return summed(parts).view_as(self.w)
