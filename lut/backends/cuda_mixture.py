"""The gradient of mixed kernels on a CUDA device: what the betas of a mixture are learned by.

Deterministic: partial sums are added in a fixed order.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from .cuda_depthwise import MOST_VALUES
from .cuda_emulation import mixed_planes
from .cuda_operands import SMALLEST_SCALE, cuda_refusal, on_device, padded_to, power_of_two

if TYPE_CHECKING:
    from ..candidates import Tables
    from ..emulation import Operands

__all__ = ["has_mixture_gradient", "mixture_gradient"]

GROUP = 8
"""Planes that a level is turned to at once."""
PLACES = 128
DEPTHWISE_PROGRAMS = 1584
POINTWISE_PROGRAMS = 528
POSITIONS = 64
PART_VALUES = 1 << 21
LARGEST_KERNEL = 5
MOST_OUTPUTS = 128


def has_mixture_gradient(operands: "Operands") -> bool:
    """Whether :func:`mixture_gradient` knows them: depthwise, or 1×1 of few outputs."""
    x, geometry = operands.x, operands.geometry
    if cuda_refusal(x) is not None or x.dtype == torch.float64 or operands.tables.basis is None:
        return False
    if not all(a == b for a, b in (geometry.stride, geometry.padding, geometry.dilation)):
        return False
    if _is_depthwise(operands):
        return _channel_length(operands) * x.shape[1] < MOST_VALUES // 2
    return _is_pointwise(operands) and x.numel() < MOST_VALUES


def _is_depthwise(operands: "Operands") -> bool:
    w = operands.w
    square = w.shape[2] == w.shape[3] <= LARGEST_KERNEL
    return square and w.shape[1] == 1 and w.shape[0] == operands.geometry.groups > 1


def _is_pointwise(operands: "Operands") -> bool:
    geometry, (outputs, _, *kernel) = operands.geometry, operands.w.shape
    alone = geometry.groups == 1 and geometry.padding == (0, 0) and kernel == [1, 1]
    return alone and outputs <= MOST_OUTPUTS


def mixture_gradient(gradient: Tensor, operands: "Operands") -> Tensor:
    """d loss / d mixture, float32 (M,), from that of the result; sums are float32, their terms
    rounded to the gradient's type.
    """
    signal = _rows(gradient)
    way = _depthwise if _is_depthwise(operands) else _pointwise
    return way(signal, _rows(operands.x), operands).sum(0)


def _depthwise(signal: Tensor, x: Tensor, operands: "Operands") -> Tensor:
    """What each program adds, (programs, M)."""
    from .mixture_kernels import depthwise_mixture

    levels, signals, margin = _channel_operands(signal, x, operands)
    u, v = _plane_rows(operands.tables, signal.dtype, x.device), _factors(operands.tables, x.device)
    kernel, channels = operands.w.shape[2], x.shape[3]
    last = _channel_length(operands) // PLACES
    turns, shares = _shared(last, DEPTHWISE_PROGRAMS // (channels * len(u)))
    parts = x.new_empty((len(u), channels, shares, len(v)), dtype=torch.float32)
    taps = 16 if kernel <= 4 else 32
    w, w_scale = operands.w.reshape(channels, -1).contiguous(), operands.w_scale
    with on_device(x):
        depthwise_mixture[(shares, channels, len(u))](
            levels, signals, u, v, w, w if w_scale is None else w_scale, operands.x_scale, parts,
            *operands.w_range, SMALLEST_SCALE, margin // 2, signals.shape[1] // 2,
            _padded_size(operands)[1], operands.geometry.dilation[0], last, turns,
            u[0].numel() // 4, len(v), v.shape[2],
            kernel, w_scale is not None, u.shape[1], v.shape[1], taps, PLACES,
            num_warps=taps // 16, num_stages=3,
        )  # fmt: skip
    return parts.view(-1, len(v))


def _channel_operands(
    signal: Tensor, x: Tensor, operands: "Operands"
) -> tuple[Tensor, Tensor, int]:
    """Levels, gradients and the latter's margin, as ``lay_out_channels`` makes them."""
    from .mixture_kernels import lay_out_channels

    geometry, channels, length = operands.geometry, x.shape[3], _channel_length(operands)
    stride, padding, dilation = geometry.stride[0], geometry.padding[0], geometry.dilation[0]
    height, width = _padded_size(operands)
    margin = padded_to(16, (operands.w.shape[2] - 1) * dilation * (width + 1) + 1)
    copy = padded_to(16, margin + channels * length + 1)
    levels = torch.empty((channels, length), dtype=torch.int8, device=x.device)
    # Offsets of taps are even where the dilation is.
    signals = signal.new_empty((1 if dilation % 2 == 0 else 2, copy))
    wide = min(32, power_of_two(channels))
    with on_device(x):
        lay_out_channels[(length // PLACES, -(-channels // wide))](
            signal, x, operands.x_scale, operands.zero_point, levels, signals, *operands.x_range,
            len(x) * height * width, length, margin, copy, height * width, width, *x.shape[1:3],
            *signal.shape[1:3], channels, stride, padding, len(signals), PLACES, wide,
            num_warps=4,
        )  # fmt: skip
    return levels, signals, margin


def _padded_size(operands: "Operands") -> tuple[int, int]:
    top, left = operands.geometry.padding
    return operands.x.shape[2] + 2 * top, operands.x.shape[3] + 2 * left


def _channel_length(operands: "Operands") -> int:
    """Places of a channel, all images' with their padding, and some more."""
    height, width = _padded_size(operands)
    return padded_to(PLACES, operands.x.shape[0] * height * width)


def _pointwise(signal: Tensor, x: Tensor, operands: "Operands") -> Tensor:
    """What each program adds, (programs, M)."""
    from .mixture_kernels import weigh_plane_sums

    sums = _plane_sums(signal, x, operands)
    v, w_scale = _factors(operands.tables, x.device), operands.w_scale
    channels, (shares, lines, outputs) = x.shape[3], sums.shape
    wide = power_of_two(outputs)
    few = max(1, 64 // wide)
    programs = -(-lines // few)
    parts = x.new_empty((programs, len(v)), dtype=torch.float32)
    w = operands.w.reshape(outputs, channels).contiguous()
    with on_device(x):
        weigh_plane_sums[(programs,)](
            sums, v, w, w if w_scale is None else w_scale, operands.x_scale, parts,
            *operands.w_range, SMALLEST_SCALE, shares, lines, channels, outputs, len(v),
            v.shape[2], w_scale is not None, v.shape[1], 32, few, wide, num_warps=4,
        )  # fmt: skip
    return parts


def _plane_sums(signal: Tensor, x: Tensor, operands: "Operands") -> Tensor:
    """float32 (shares, groups of planes · C · GROUP, O): sums of gradient · u_p[x]."""
    from .mixture_kernels import pointwise_plane_sums

    rows, columns, outputs = signal.shape[1:]
    channels, positions = x.shape[3], len(signal) * rows * columns
    u = _plane_rows(operands.tables, signal.dtype, x.device)
    out_tile = max(16, power_of_two(outputs))
    wide = max(16, min(32, power_of_two(channels), 2048 // out_tile))
    blocks, lines = -(-channels // wide), len(u) * channels * GROUP
    most = min(POINTWISE_PROGRAMS // (blocks * len(u)), PART_VALUES // (lines * outputs))
    turns, shares = _shared(-(-positions // POSITIONS), most)
    sums = x.new_empty((shares, lines, outputs), dtype=torch.float32)
    with on_device(x):
        pointwise_plane_sums[(shares, blocks, len(u))](
            signal, x, operands.x_scale, operands.zero_point, u, sums, *operands.x_range,
            positions, rows * columns, columns, *x.shape[1:3], channels, outputs,
            operands.geometry.stride[0], turns, u[0].numel() // 4,
            u.shape[1], POSITIONS, wide, out_tile,
            num_warps=8 if wide * out_tile > 512 else 4,
        )  # fmt: skip
    return sums


@lru_cache(maxsize=256)
def _plane_rows(tables: "Tables", dtype: torch.dtype, device: torch.device) -> Tensor:
    """(groups, rows, GROUP): the planes of u, side by side, those beyond the last zero."""
    planes, _ = mixed_planes(tables, device)
    words = planes.words.cpu()
    by_row = words.view(torch.int8).view(*words.shape, 4).permute(1, 0, 2).flatten(1)
    groups = _padded(by_row[:, : planes.count]).unflatten(1, (-1, GROUP)).transpose(0, 1)
    return groups.contiguous().to(device, dtype)


@lru_cache(maxsize=256)
def _factors(tables: "Tables", device: torch.device) -> Tensor:
    """float32 (M, columns, planes): v of each plane, those beyond the last zero."""
    _, v = mixed_planes(tables, device)
    return _padded(v.cpu().transpose(1, 2)).contiguous().to(device)


def _padded(planes: Tensor) -> Tensor:
    """The last dimension, planes, to whole groups."""
    return functional.pad(planes, (0, -planes.shape[-1] % GROUP))


def _shared(turns: int, programs: int) -> tuple[int, int]:
    """Turns of a program, and how many programs share them, about as many as asked for."""
    each = max(1, -(-turns // max(1, programs)))
    return each, -(-turns // each)


def _rows(images: Tensor) -> Tensor:
    """(N, H, W, C), contiguous."""
    return images.permute(0, 2, 3, 1).contiguous()
