"""Images channels last in memory, which is how backends read them, within a border of one value."""

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["float_images", "padded_images"]

MANY_BYTES = 1 << 16
EACH_BYTE = 0x0101010101010101


def padded_images(x: Tensor, padding: tuple[int, int], value: int | Tensor) -> Tensor:
    """x (N, C, H, W) with `value` around it, (N, C, H + 2·pH, W + 2·pW), channels last in memory;
    `value` may be a 0-dimensional tensor.
    """
    if _is_compiled(x):
        return _laid_out(x, padding, int(value))
    batch, channels, height, width = x.shape
    top, left = padding
    if not (top or left):
        return x.contiguous(memory_format=torch.channels_last)
    padded = x.new_empty((batch, height + 2 * top, width + 2 * left, channels)).fill_(value)
    padded[:, top : top + height, left : left + width] = x.permute(0, 2, 3, 1)
    return padded.permute(0, 3, 1, 2)


def float_images(x: Tensor) -> Tensor:
    """float32 of integers (N, C, H, W), channels last in memory."""
    laid_out = _laid_out(x, (0, 0), 0) if _is_compiled(x) else x
    return laid_out.to(torch.float32, memory_format=torch.channels_last)


def _is_compiled(x: Tensor) -> bool:
    """Whether the compiled loop takes x: many bytes of one channel after the other, by eight in
    both directions. It saves two fifths of the time of torch's copy on one thread; on several
    torch divides its copy among them.
    """
    many = x.device.type == "cpu" and x.element_size() == 1 and x.numel() >= MANY_BYTES
    fits = many and x.shape[1] % 8 == x.shape[3] % 8 == 0 and x.is_contiguous()
    alone = fits and torch.get_num_threads() == 1
    return alone and sys.byteorder == "little" and _kernel() is not None


def _laid_out(x: Tensor, padding: tuple[int, int], value: int) -> Tensor:
    lay_out = _kernel()
    assert lay_out is not None
    batch, channels, height, width = x.shape
    shape = (batch, height + 2 * padding[0], width + 2 * padding[1], channels)
    padded = torch.empty(shape, dtype=x.dtype)
    border = np.uint64((value & 255) * EACH_BYTE)
    lay_out(x.numpy().view(np.uint64), padded.numpy().view(np.uint64), padding, border)
    return padded.permute(0, 3, 1, 2)


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., Any] | None:
    """None where numba is not installed."""
    if find_spec("numba") is None:
        return None
    from .padding_kernel import lay_out

    return lay_out
