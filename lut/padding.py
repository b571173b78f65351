"""Images channels last in memory, which is how backends read them, within a border of one value."""

import sys
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

__all__ = ["float_images", "padded_images"]

MANY_BYTES, ROW_BYTES = 1 << 16, 1 << 16
EACH_BYTE = 0x0101010101010101


def padded_images(x: Tensor, padding: tuple[int, int], value: int | Tensor) -> Tensor:
    """x (N, C, H, W) with `value` around it, (N, C, H + 2·pH, W + 2·pW), channels last in memory;
    `value` may be a 0-dimensional tensor.
    """
    if _is_compiled(x, 2):
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
    if _is_compiled(x, 1):
        return _converted(x)
    return x.to(torch.float32, memory_format=torch.channels_last)


def _is_compiled(x: Tensor, threads: int) -> bool:
    """Whether the compiled loop takes x: many bytes of one channel after the other, by eight in
    both directions. It saves two fifths of the time of torch's copy on one thread; torch divides
    its copy among several, and is as fast on more than `threads`.
    """
    many = x.device.type == "cpu" and x.element_size() == 1 and x.numel() >= MANY_BYTES
    fits = many and x.shape[1] % 8 == x.shape[3] % 8 == 0 and x.is_contiguous()
    few = fits and torch.get_num_threads() <= threads
    return few and sys.byteorder == "little" and _kernel() is not None


def _laid_out(x: Tensor, padding: tuple[int, int], value: int) -> Tensor:
    kernel = _kernel()
    assert kernel is not None
    batch, channels, height, width = x.shape
    shape = (batch, height + 2 * padding[0], width + 2 * padding[1], channels)
    padded = torch.empty(shape, dtype=x.dtype)
    border = np.uint64((value & 255) * EACH_BYTE)
    kernel.lay_out(x.numpy().view(np.uint64), padded.numpy().view(np.uint64), padding, border)
    return padded.permute(0, 3, 1, 2)


def _converted(x: Tensor) -> Tensor:
    kernel = _kernel()
    assert kernel is not None
    batch, channels, height, width = x.shape
    floats = torch.empty((batch, height, width, channels))
    images = x.numpy()
    rows = np.empty((max(1, ROW_BYTES // (width * channels)), width, channels), images.dtype)
    kernel.convert(images.view(np.uint64), floats.numpy(), rows.view(np.uint64), rows)
    return floats.permute(0, 3, 1, 2)


@lru_cache(maxsize=1)
def _kernel() -> ModuleType | None:
    """None where numba is not installed."""
    if find_spec("numba") is None:
        return None
    from . import padding_kernel

    return padding_kernel
