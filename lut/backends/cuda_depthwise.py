"""Exact depthwise convolutions on a CUDA device, channels last, and their gradients.

Deterministic: partial sums are added in a fixed order. cuDNN's are slow in bfloat16 where they are
dilated or narrow, and its gradients of weights more so.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from .cuda_operands import cuda_refusal, on_device, power_of_two
from .cuda_sums import summed

__all__ = ["MOST_VALUES", "Depthwise", "Grid", "is_depthwise"]

TILE = 2048
LARGEST_KERNEL = 5
MOST_REGISTERS = 128
"""Of a thread of the gradient of operands, so that enough programs share a multiprocessor."""
MOST_VALUES = 1 << 30
"""Of an operand: kernels count them in 32 bits."""
WEIGHT_PROGRAMS = 264
"""Programs that share the sums of a gradient of weights, for each row of taps."""


def is_depthwise(x: Tensor, w: Tensor, geometry: ConvGeometry) -> bool:
    """Whether the kernels here compute it: a channel each, square, on a device they run on."""
    square = w.shape[2] == w.shape[3] <= LARGEST_KERNEL
    same = all(a == b for a, b in (geometry.stride, geometry.padding, geometry.dilation))
    alone = w.shape[1] == 1 and w.shape[0] == x.shape[1] == geometry.groups
    half = x.dtype in (torch.bfloat16, torch.float16, torch.float32)
    small = x.numel() < MOST_VALUES
    return square and same and alone and half and small and cuda_refusal(x) is None


@dataclass(frozen=True, eq=False)
class Grid:
    """A quantiser's levels `low` to `high`; scale and zero point (int32): 0-dimensional."""

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Depthwise:
    """One convolution: x (N, C, H, W), copied unless it is channels last, w (C, 1, k, k) of any
    type. `relu`: x is rectified first; `grid`: no gradient passes where that clamps x. Results have
    the type of x, channels last.
    """

    x: Tensor
    w: Tensor
    geometry: ConvGeometry
    relu: bool = False
    grid: Grid | None = None

    @cached_property
    def _images(self) -> Tensor:
        return _rows(self.x)

    @property
    def _size(self) -> tuple[int, int]:
        top, left = self.geometry.padding
        batch, channels, height, width = self.x.shape
        padded = torch.Size((batch, channels, height + 2 * top, width + 2 * left))
        return self.geometry.output_size(padded, self.w.shape)

    @property
    def _steps(self) -> tuple[int, ...]:
        """Stride, padding, dilation."""
        geometry = self.geometry
        return geometry.stride[0], geometry.padding[0], geometry.dilation[0]

    @property
    def _tile(self) -> tuple[int, int]:
        """Positions and channels of a program."""
        channels = min(64, power_of_two(self.x.shape[1]))
        return TILE // channels, channels

    def result(self) -> Tensor:
        from .depthwise_kernels import depthwise

        x, (rows, columns) = self.x, self._size
        batch, channels, height, width = x.shape
        result = torch.empty((batch, rows, columns, channels), dtype=x.dtype, device=x.device)
        positions, (many, wide) = batch * rows * columns, self._tile
        with on_device(x):
            depthwise[(-(-positions // many), -(-channels // wide))](
                self._images, self._weights, result, positions, rows * columns, columns, height,
                width, channels, *self._steps, self.w.shape[2], self.relu, many, wide, num_warps=4,
            )  # fmt: skip
        return result.permute(0, 3, 1, 2)

    def operand_gradient(self, gradient: Tensor) -> Tensor:
        """From that of the result (N, C, H', W')."""
        from .depthwise_kernels import depthwise_operand_gradient

        x, signal = self.x, _rows(gradient)
        batch, channels, height, width = x.shape
        result = torch.empty((batch, height, width, channels), dtype=x.dtype, device=x.device)
        positions, (many, wide) = batch * height * width, self._tile
        many *= 2  # each thread loads all weights of its channels
        stride, padding, dilation = self._steps
        grid = self.grid or Grid(self._weights, self._weights, 0, 0)
        with on_device(x):
            depthwise_operand_gradient[(-(-positions // many), -(-channels // wide))](
                signal, self._weights, self._images, result, grid.scale, grid.zero_point, grid.low,
                grid.high, positions, height * width, width, *gradient.shape[2:], channels,
                padding, dilation, stride, self.w.shape[2], self.relu, self.grid is not None,
                many, wide, num_warps=4, maxnreg=MOST_REGISTERS,
            )  # fmt: skip
        return result.permute(0, 3, 1, 2)

    def weight_gradient(self, gradient: Tensor) -> Tensor:
        """float32 (C, 1, k, k), from that of the result."""
        from .depthwise_kernels import depthwise_weight_gradient

        x, signal, kernel = self.x, _rows(gradient), self.w.shape[2]
        batch, channels, height, width = x.shape
        rows, columns = gradient.shape[2:]
        positions, (many, wide) = batch * rows * columns, self._tile
        many //= 2  # as many sums as taps in a row
        turns = max(1, -(-positions // (many * WEIGHT_PROGRAMS)))
        programs = -(-positions // (many * turns))
        shape = (programs, kernel * kernel, channels)
        parts = torch.empty(shape, dtype=torch.float32, device=x.device)
        with on_device(x):
            depthwise_weight_gradient[(programs, -(-channels // wide), kernel)](
                signal, self._images, parts, positions, rows * columns, columns, height, width,
                channels, *self._steps, turns, kernel, self.relu, many, wide, num_warps=4,
            )  # fmt: skip
        return summed(parts).t().reshape(channels, 1, kernel, kernel)

    @property
    def _weights(self) -> Tensor:
        return self.w.reshape(self.w.shape[0], -1).contiguous()


def _rows(images: Tensor) -> Tensor:
    """(N, H, W, C), contiguous."""
    return images.permute(0, 2, 3, 1).contiguous()
