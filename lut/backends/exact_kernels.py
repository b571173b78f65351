"""Exact convolutions that kernels of the project compute faster than torch on a CUDA device."""

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from .cuda_depthwise import Depthwise
from .cuda_exact import ExactConvolution, Grid
from .cuda_pointwise import Pointwise

__all__ = ["ExactConvolution", "Grid", "exact_kernel"]

KINDS: tuple[type[ExactConvolution], ...] = (Depthwise, Pointwise)


def exact_kernel(
    x: Tensor, w: Tensor, geometry: ConvGeometry, dtype: torch.dtype
) -> type[ExactConvolution] | None:
    """Which computes it from real values of `dtype`; None: torch's own."""
    return next((kind for kind in KINDS if kind.fits(x, w, geometry, dtype)), None)
