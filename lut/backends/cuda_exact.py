"""What exact convolutions by kernels of the project have in common, on a CUDA device."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from .cuda_operands import cuda_refusal

__all__ = ["MOST_VALUES", "ExactConvolution", "Grid", "rows_of", "runs_here"]

MOST_VALUES = 1 << 30
"""Of an operand: kernels count them in 32 bits."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A quantiser's levels `low` to `high`; scale and zero point (int32): 0-dimensional."""

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class ExactConvolution(ABC):
    """One convolution: x (N, C, H, W), copied unless it is channels last, w (O, C / groups, k, k)
    of any type. `relu`: x is rectified first; `grid`: no gradient passes where that clamps x.

    Results have the type of x, channels last.
    """

    quantises: ClassVar[bool] = False
    """Whether the gradient of w is that of x quantised by `grid`; otherwise of x as it is."""

    x: Tensor
    w: Tensor
    geometry: ConvGeometry
    relu: bool = False
    grid: Grid | None = None

    @classmethod
    @abstractmethod
    def fits(cls, x: Tensor, w: Tensor, geometry: ConvGeometry, dtype: torch.dtype) -> bool:
        """Whether these kernels compute it, from real values of `dtype`."""

    @abstractmethod
    def result(self) -> Tensor:
        """(N, O, H', W')."""

    @abstractmethod
    def operand_gradient(self, gradient: Tensor) -> Tensor:
        """(N, C, H, W), from that of the result."""

    @abstractmethod
    def weight_gradient(self, gradient: Tensor) -> Tensor:
        """float32, of the shape of w, from that of the result."""

    @cached_property
    def _images(self) -> Tensor:
        return rows_of(self.x)


def runs_here(x: Tensor) -> bool:
    """Whether kernels can be launched on x, and count its values."""
    return x.numel() < MOST_VALUES and cuda_refusal(x) is None


def rows_of(images: Tensor) -> Tensor:
    """(N, H, W, C), contiguous."""
    return images.permute(0, 2, 3, 1).contiguous()
