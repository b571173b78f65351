"""Factors looked up as planes: an operand of C channels becomes one of C·R."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "FP32_EXACT",
    "exact_convolutions",
    "factor_planes",
    "padded_images",
    "weight_planes",
]

FP32_EXACT = 1 << 24
"""Integers below it are exact in fp32, in any order of summation."""


def padded_images(x: Tensor, padding: tuple[int, int], value: int | Tensor) -> Tensor:
    """x (N, C, H, W) with `value` around it, (N, C, H + 2·pH, W + 2·pW), channels last in memory;
    `value` may be a 0-dimensional tensor.
    """
    batch, channels, height, width = x.shape
    top, left = padding
    if not (top or left):
        return x.contiguous(memory_format=torch.channels_last)
    padded = x.new_empty((batch, height + 2 * top, width + 2 * left, channels)).fill_(value)
    padded[:, top : top + height, left : left + width] = x.permute(0, 2, 3, 1)
    return padded.permute(0, 3, 1, 2)


def factor_planes(x: Tensor, u: Tensor) -> Tensor:
    """``u[x]`` as channels: int indices (N, C, H, W), u (rows, R) → u's type (N, C·R, H, W),
    channels_last.
    """
    batch, channels, height, width = x.shape
    planes = functional.embedding(x.permute(0, 2, 3, 1), u)
    return planes.reshape(batch, height, width, channels * u.shape[1]).permute(0, 3, 1, 2)


def weight_planes(w: Tensor, v: Tensor) -> Tensor:
    """``v[w]`` as channels: indices (O, C, kH, kW), v (columns, R) → v's type (O, C·R, kH, kW)."""
    outputs, channels, height, width = w.shape
    planes = functional.embedding(w, v).permute(0, 1, 4, 2, 3)
    return planes.reshape(outputs, channels * v.shape[1], height, width)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions as plain sums of fp32 products: no TF32, bf16 or Winograd transforms,
    whatever precision the user set for their own.
    """
    onednn = torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    before = onednn.fp32_precision
    onednn.fp32_precision = "ieee"
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        onednn.fp32_precision = before
