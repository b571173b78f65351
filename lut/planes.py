"""Factors looked up as planes: an operand of C channels becomes one of C·R."""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .geometry import ConvGeometry
from .threads import in_threads

__all__ = [
    "FP32_EXACT",
    "exact_convolution",
    "factor_planes",
    "weight_planes",
]

FP32_EXACT = 1 << 24
"""Integers below it are exact in fp32, in any order of summation."""


def factor_planes(x: Tensor, u: Tensor) -> Tensor:
    """``u[x]`` as channels: indices of any integer type (N, C, H, W), u (rows, R) → u's type
    (N, C·R, H, W), channels_last.
    """
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1)
    many = x.numel() * u.shape[1] >= MANY_NUMBERS and x.device.type == "cpu"
    compiled = many and u.dtype == torch.float32 and _kernel() is not None
    planes = _looked_up(rows, u) if compiled else functional.embedding(_indices(rows), u)
    return planes.reshape(batch, height, width, channels * u.shape[1]).permute(0, 3, 1, 2)


def _indices(rows: Tensor) -> Tensor:
    """Of a type that torch looks up by."""
    return rows.to(torch.int32) if rows.dtype == torch.uint8 else rows


def _looked_up(rows: Tensor, u: Tensor) -> Tensor:
    """As torch's embedding, which takes up to eight times as long where numbers are many."""
    look_up = _kernel()
    assert look_up is not None
    patterns, factors = rows.reshape(-1).numpy(), u.detach().contiguous().numpy()
    planes = np.empty((len(patterns), u.shape[1]), np.float32)

    def work(low: int, high: int) -> None:
        look_up(patterns[low:high], factors, planes[low:high])

    in_threads(work, len(patterns), max(1, NUMBERS_A_THREAD // u.shape[1]))
    return torch.from_numpy(planes)


MANY_NUMBERS, NUMBERS_A_THREAD = 1 << 20, 1 << 18


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., Any] | None:
    """None where numba is not installed."""
    if find_spec("numba") is None:
        return None
    from .planes_kernel import look_up

    return look_up


def weight_planes(w: Tensor, v: Tensor) -> Tensor:
    """``v[w]`` as channels: indices (O, C, kH, kW), v (columns, R) → v's type (O, C·R, kH, kW)."""
    outputs, channels, height, width = w.shape
    planes = functional.embedding(w, v).permute(0, 1, 4, 2, 3)
    return planes.reshape(outputs, channels * v.shape[1], height, width)


def exact_convolution(x: Tensor, w: Tensor, geometry: ConvGeometry) -> Tensor:
    """Plain sums of fp32 products: no TF32, bf16 or Winograd transforms, whatever precision the
    user set for their own convolutions.
    """
    settings = (None, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    if x.device.type == "cuda":
        with torch.backends.cudnn.flags(enabled=False):
            return functional.conv2d(x, w, *settings)
    onednn = torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    before = onednn.fp32_precision
    onednn.fp32_precision = "ieee"
    try:
        return functional.conv2d(x, w, *settings)
    finally:
        onednn.fp32_precision = before
