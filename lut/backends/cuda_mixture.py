"""The gradient of mixed kernels on a CUDA device: what the betas of a mixture are learned by."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .cuda_depthwise import MOST_VALUES
from .cuda_emulation import mixed_planes
from .cuda_operands import PackedPlanes, cuda_refusal, on_device, power_of_two

if TYPE_CHECKING:
    from ..emulation import Operands

__all__ = ["has_plane_sums", "plane_sums"]

TILE = 1024
PROGRAMS = 264
"""Programs that share the sums over a batch's positions."""
PART_VALUES = 1 << 20
LARGEST_KERNEL = 5
MOST_OUTPUTS = 128


def has_plane_sums(operands: "Operands") -> bool:
    """Whether :func:`plane_sums` knows these operands: depthwise, or 1×1 of few outputs."""
    x, w, geometry = operands.x, operands.w, operands.geometry
    if cuda_refusal(x) is not None or x.dtype == torch.float64 or operands.tables.basis is None:
        return False
    if x.numel() >= MOST_VALUES:
        return False
    if not all(a == b for a, b in (geometry.stride, geometry.padding, geometry.dilation)):
        return False
    return _is_depthwise(operands) or _is_pointwise(operands, w.shape[0])


def _is_depthwise(operands: "Operands") -> bool:
    w = operands.w
    square = w.shape[2] == w.shape[3] <= LARGEST_KERNEL
    return square and w.shape[1] == 1 and w.shape[0] == operands.geometry.groups


def _is_pointwise(operands: "Operands", outputs: int) -> bool:
    geometry, kernel = operands.geometry, operands.w.shape[2:]
    alone = geometry.groups == 1 and geometry.padding == (0, 0) and tuple(kernel) == (1, 1)
    return alone and outputs <= MOST_OUTPUTS


def plane_sums(gradient: Tensor, operands: "Operands") -> tuple[Tensor, Tensor]:
    """float32 (O, C / groups, P, kH, kW): sums of gradient · u_p[x] over images and positions, the
    padding being the zero point's; and v of these planes (M, columns, P). A plane holds bytes.
    """
    x, signal = _rows(operands.x), _rows(gradient)
    u, v = mixed_planes(operands.tables, x.device)
    sums = (_depthwise if _is_depthwise(operands) else _pointwise)(signal, x, u, operands)
    return sums, v.transpose(1, 2)


def _depthwise(signal: Tensor, x: Tensor, u: PackedPlanes, operands: "Operands") -> Tensor:
    from .mixture_kernels import depthwise_plane_sums

    (rows, columns, channels), planes = signal.shape[1:], u.count
    kernel, geometry = operands.w.shape[2], operands.geometry
    wide = min(64, power_of_two(channels))
    positions, many = len(signal) * rows * columns, TILE // wide
    turns, programs = _shared(positions, many)
    taps = kernel * kernel
    words = _pairs(u.words)
    parts = torch.empty((programs, taps, planes, channels), device=x.device)
    with on_device(x):
        depthwise_plane_sums[(programs, -(-channels // wide), taps * -(-planes // 8))](
            signal, x, operands.x_scale, operands.zero_point, words, parts, *operands.x_range,
            planes, positions, rows * columns, columns, *x.shape[1:3], channels, geometry.stride[0],
            geometry.padding[0], geometry.dilation[0], turns, kernel, words.shape[1], many, wide,
            num_warps=4,
        )  # fmt: skip
    return parts.sum(0).permute(2, 1, 0).reshape(channels, 1, planes, kernel, kernel)


def _pointwise(signal: Tensor, x: Tensor, u: PackedPlanes, operands: "Operands") -> Tensor:
    from .mixture_kernels import pointwise_plane_sums

    (rows, columns, outputs), planes = signal.shape[1:], u.count
    channels = x.shape[3]
    wide, many = max(16, min(64, power_of_two(channels))), 64
    positions = len(signal) * rows * columns
    most = max(32, PART_VALUES // (planes * channels * outputs))
    turns, programs = _shared(positions, many, most)
    words = u.words
    parts = torch.empty((programs, planes, channels, outputs), device=x.device)
    with on_device(x):
        pointwise_plane_sums[(programs, u.word_count, -(-channels // wide))](
            signal, x, operands.x_scale, operands.zero_point, words, parts, *operands.x_range,
            planes, positions, rows * columns, columns, *x.shape[1:3], channels, outputs,
            operands.geometry.stride[0], turns, words.shape[1], many, wide,
            max(16, power_of_two(outputs)), num_warps=4,
        )  # fmt: skip
    return parts.sum(0).permute(2, 1, 0)[..., None, None]


def _pairs(words: Tensor) -> Tensor:
    """With a word of zeros after the last where their number is odd."""
    return words if len(words) % 2 == 0 else torch.cat([words, torch.zeros_like(words[:1])])


def _shared(positions: int, many: int, most: int = PROGRAMS) -> tuple[int, int]:
    """Turns of a program, and how many programs share the positions."""
    turns = max(1, -(-positions // (many * min(most, PROGRAMS))))
    return turns, -(-positions // (many * turns))


def _rows(images: Tensor) -> Tensor:
    """(N, H, W, C), contiguous."""
    return images.permute(0, 2, 3, 1).contiguous()
