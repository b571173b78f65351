"""Exact depthwise convolutions on a CUDA device, channels last, and their gradients.

Deterministic: partial sums are added in a fixed order. cuDNN's are slow in bfloat16 where they are
dilated or narrow, and its gradients of weights more so.
"""

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from .cuda_exact import ExactConvolution, Grid, rows_of, runs_here
from .cuda_operands import on_device, power_of_two
from .cuda_sums import summed

__all__ = ["Depthwise"]

TILE = 1024
"""Strips times channels of a program: eight values of one place, a vector, for each thread."""
WIDEST = 8
"""Values of a vector."""
STRIP = 4
"""Places of a strip."""
LARGEST_KERNEL = 5
WEIGHT_PROGRAMS = 264
"""Programs that share the sums of a gradient of weights, for each row of taps."""


@dataclass(frozen=True, eq=False)
class Depthwise(ExactConvolution):
    """A channel each, square kernels of at most 5×5."""

    @classmethod
    def fits(cls, x: Tensor, w: Tensor, geometry: ConvGeometry, dtype: torch.dtype) -> bool:
        square = w.shape[2] == w.shape[3] <= LARGEST_KERNEL
        same = all(a == b for a, b in (geometry.stride, geometry.padding, geometry.dilation))
        alone = w.shape[1] == 1 and w.shape[0] == x.shape[1] == geometry.groups
        known = dtype in (torch.bfloat16, torch.float16, torch.float32)
        return square and same and alone and known and runs_here(x)

    @property
    def _size(self) -> tuple[int, int]:
        top, left = self.geometry.padding
        batch, channels, height, width = self.x.shape
        padded = torch.Size((batch, channels, height + 2 * top, width + 2 * left))
        return self.geometry.output_size(padded, self.w.shape)

    @property
    def _form(self) -> tuple[int, int, int, bool]:
        """Stride, dilation, kernel, relu: what kernels are compiled for."""
        geometry = self.geometry
        return geometry.stride[0], geometry.dilation[0], self.w.shape[2], self.relu

    @property
    def _tile(self) -> tuple[int, int, int]:
        """What channels are a multiple of; strips and channels of a program."""
        channels = self.x.shape[1]
        wide = min(64, power_of_two(channels))
        return gcd(channels, WIDEST), TILE // wide, wide

    def result(self) -> Tensor:
        from .depthwise_kernels import depthwise

        x, (rows, columns) = self.x, self._size
        batch, channels, height, width = x.shape
        result = torch.empty((batch, rows, columns, channels), dtype=x.dtype, device=x.device)
        align, many, wide = self._tile
        row_strips = -(-columns // STRIP)
        strips = batch * rows * row_strips
        with on_device(x):
            depthwise[(-(-strips // many), -(-channels // wide))](
                self._images, self._weights, result, strips, row_strips, rows, columns, height,
                width, channels // align, self.geometry.padding[0], *self._form, align, many, wide,
                num_warps=4,
            )  # fmt: skip
        return result.permute(0, 3, 1, 2)

    def operand_gradient(self, gradient: Tensor) -> Tensor:
        """From that of the result (N, C, H', W')."""
        from .depthwise_kernels import depthwise_operand_gradient

        x, signal = self.x, rows_of(gradient)
        batch, channels, height, width = x.shape
        result = torch.empty((batch, height, width, channels), dtype=x.dtype, device=x.device)
        align, many, wide = self._tile
        row_strips = -(-width // STRIP)
        strips = batch * height * row_strips
        grid = self.grid or Grid(self._weights, self._weights, 0, 0)
        with on_device(x):
            depthwise_operand_gradient[(-(-strips // many), -(-channels // wide))](
                signal, self._weights, self._images, result, grid.scale, grid.zero_point, grid.low,
                grid.high, strips, row_strips, height, width, *gradient.shape[2:],
                channels // align, self.geometry.padding[0], *self._form, self.grid is not None,
                align, many, wide, num_warps=4,
            )  # fmt: skip
        return result.permute(0, 3, 1, 2)

    def weight_gradient(self, gradient: Tensor) -> Tensor:
        """float32 (C, 1, k, k), from that of the result."""
        from .depthwise_kernels import depthwise_weight_gradient

        x, signal, kernel = self.x, rows_of(gradient), self.w.shape[2]
        batch, channels, height, width = x.shape
        rows, columns = gradient.shape[2:]
        align, many, wide = self._tile
        row_strips = -(-columns // STRIP)
        strips = batch * rows * row_strips
        turns = max(1, -(-strips // (many * WEIGHT_PROGRAMS)))
        programs = -(-strips // (many * turns))
        shape = (programs, kernel * kernel, channels)
        parts = torch.empty(shape, dtype=torch.float32, device=x.device)
        with on_device(x):
            depthwise_weight_gradient[(programs, -(-channels // wide), kernel)](
                signal, self._images, parts, strips, row_strips, rows, columns, height, width,
                channels // align, self.geometry.padding[0], turns, *self._form, align, many, wide,
                num_warps=4,
            )  # fmt: skip
        return summed(parts).t().reshape(channels, 1, kernel, kernel)

    @cached_property
    def _weights(self) -> Tensor:
        """(taps, C)."""
        return self.w.reshape(self.w.shape[0], -1).t().contiguous()
