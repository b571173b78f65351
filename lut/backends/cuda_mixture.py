"""The gradient of mixed kernels on a CUDA device: what the betas of a mixture are learned by."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .cuda_operands import cuda_refusal, on_device, power_of_two

if TYPE_CHECKING:
    from ..emulation import Operands

__all__ = ["has_plane_sums", "plane_sums"]

TILE = 1024
PROGRAMS = 264
"""Programs that share the sums over a batch's positions."""
LARGEST_KERNEL = 5
MOST_OUTPUTS = 128


def has_plane_sums(operands: "Operands") -> bool:
    """Whether :func:`plane_sums` knows these operands: depthwise, or 1×1 of few outputs."""
    x, w, geometry = operands.x, operands.w, operands.geometry
    if cuda_refusal(x) is not None or x.dtype == torch.float64 or operands.tables.basis is None:
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


def plane_sums(gradient: Tensor, operands: "Operands") -> Tensor:
    """float32 (O, C / groups, R, kH, kW): sums of gradient · u_r[x] over images and positions, the
    padding being the zero point's.
    """
    x, signal = _rows(operands.x), _rows(gradient)
    u = operands.tables.u(x.device).t().contiguous()
    if _is_depthwise(operands):
        return _depthwise(signal, x, u, operands)
    return _pointwise(signal, x, u, operands)


def _depthwise(signal: Tensor, x: Tensor, u: Tensor, operands: "Operands") -> Tensor:
    from .mixture_kernels import depthwise_plane_sums

    (rows, columns, channels), (planes, patterns) = signal.shape[1:], u.shape
    kernel, geometry = operands.w.shape[2], operands.geometry
    wide = min(64, power_of_two(channels))
    positions, many = len(signal) * rows * columns, TILE // wide
    turns, programs = _shared(positions, many)
    taps = kernel * kernel
    parts = torch.empty((programs, taps, planes, channels), device=x.device)
    with on_device(x):
        depthwise_plane_sums[(programs, -(-channels // wide), taps * -(-planes // 8))](
            signal, x, operands.x_scale, operands.zero_point, u, parts, *operands.x_range, planes,
            positions, rows * columns, columns, *x.shape[1:3], channels, geometry.stride[0],
            geometry.padding[0], geometry.dilation[0], turns, kernel, patterns, many, wide,
            num_warps=4,
        )  # fmt: skip
    return parts.sum(0).permute(2, 1, 0).reshape(channels, 1, planes, kernel, kernel)


def _pointwise(signal: Tensor, x: Tensor, u: Tensor, operands: "Operands") -> Tensor:
    from .mixture_kernels import pointwise_plane_sums

    (rows, columns, outputs), (planes, patterns) = signal.shape[1:], u.shape
    channels = x.shape[3]
    wide, many = max(16, min(64, power_of_two(channels))), 64
    positions = len(signal) * rows * columns
    turns, programs = _shared(positions, many)
    parts = torch.empty((programs, planes, channels, outputs), device=x.device)
    with on_device(x):
        pointwise_plane_sums[(programs, planes, -(-channels // wide))](
            signal, x, operands.x_scale, operands.zero_point, u, parts, *operands.x_range, planes,
            positions, rows * columns, columns, *x.shape[1:3], channels, outputs,
            operands.geometry.stride[0], turns, patterns, many, wide,
            max(16, power_of_two(outputs)), num_warps=4,
        )  # fmt: skip
    return parts.sum(0).permute(2, 1, 0)[..., None, None]


def _shared(positions: int, many: int) -> tuple[int, int]:
    """Turns of a program, and how many programs share the positions."""
    turns = max(1, -(-positions // (many * PROGRAMS)))
    return turns, -(-positions // (many * turns))


def _rows(images: Tensor) -> Tensor:
    """(N, H, W, C), contiguous."""
    return images.permute(0, 2, 3, 1).contiguous()
