"""Depthwise layers on a CPU: of each channel and tap a column of products, looked up by patterns.

A depthwise layer has few weights and no sum over channels: planes of the activations would cost the
table's rank for each multiplication, a look-up costs one. It serves a table (integers, exact) and a
mixture of tables (float32), and the gradient of a mixture by the transpose: gradients are added up
by pattern first, in float64, and multiplied by the factors once.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .geometry import ConvGeometry
from .threads import in_threads

__all__ = ["has_columns", "looked_up", "summed_by_pattern"]

LOOK_UPS_A_THREAD = 1 << 18


def has_columns(x: Tensor, w: Tensor, geometry: ConvGeometry) -> bool:
    """Whether a layer of x (N, C, H, W) and w (O, C / groups, kH, kW) can be computed so."""
    depthwise = geometry.groups > 1 and geometry.groups == w.shape[0] == x.shape[1]
    return depthwise and x.device.type == "cpu" and _has_numba()


def looked_up(patterns: Tensor, columns: Tensor, geometry: ConvGeometry) -> Tensor:
    """Sums (N, C, H', W'), channels last: patterns uint8 (N, C, H, W), padding added; columns
    int32 or float32 (C, kH, kW, 256), the products of each weight.
    """
    rows = _channels_last(patterns)
    channels, *taps, size = columns.shape
    tables = columns.permute(1, 2, 0, 3).reshape(-1, channels, size).contiguous().numpy()
    batch = len(rows)
    height, width = geometry.output_size(patterns.shape, columns[:, None, ..., 0].shape)
    sums = np.zeros((batch, height, width, channels), tables.dtype)
    _by_channels(_kernel().add_looked_up, (rows, tables, sums), taps, geometry, sums.size)
    return torch.from_numpy(sums).permute(0, 3, 1, 2)


def summed_by_pattern(
    patterns: Tensor, gradient: Tensor, taps: tuple[int, int], geometry: ConvGeometry
) -> Tensor:
    """float64 (C, kH, kW, 256): the gradients (N, C, H', W') that meet each pattern at each tap."""
    rows, signal = _channels_last(patterns), _channels_last(gradient.float())
    channels = signal.shape[-1]
    sums = np.zeros((taps[0] * taps[1], channels, 256))
    _by_channels(_kernel().add_by_pattern, (rows, sums, signal), taps, geometry, signal.size)
    return torch.from_numpy(sums).view(*taps, channels, 256).permute(2, 0, 1, 3)


def _by_channels(
    kernel: Callable[..., Any],
    arrays: tuple[NDArray[Any], ...],
    taps: "tuple[int, int] | list[int]",
    geometry: ConvGeometry,
    results: int,
) -> None:
    """Channels are divided among threads: each sum is one thread's, whatever their number."""
    channels = arrays[0].shape[-1]
    each = max(1, results * taps[0] * taps[1] // channels)

    def work(low: int, high: int) -> None:
        kernel(*arrays, tuple(taps), geometry.stride, geometry.dilation, (low, high))

    in_threads(work, channels, max(1, LOOK_UPS_A_THREAD // each))


def _channels_last(images: Tensor) -> NDArray[Any]:
    """(N, H, W, C)"""
    array: NDArray[Any] = images.detach().permute(0, 2, 3, 1).contiguous().numpy()
    return array


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    return find_spec("numba") is not None


@lru_cache(maxsize=1)
def _kernel() -> ModuleType:
    from . import depthwise_kernel

    return depthwise_kernel
