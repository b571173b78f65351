"""The gradient of mixed kernels on a CUDA device: what the betas of a mixture are learned by.

Deterministic: partial sums are added in a fixed order.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .cuda_emulation import plane_factors, plane_rows
from .cuda_exact import MOST_VALUES, rows_of
from .cuda_operands import SMALLEST_SCALE, cuda_refusal, on_device, padded_to, power_of_two
from .cuda_sums import summed

if TYPE_CHECKING:
    from ..candidates import Tables
    from ..emulation import Operands

__all__ = ["has_mixture_gradient", "mixture_gradient"]

GROUP = 8
"""Planes that a level is turned to at once."""
PLACES = 128
DEPTHWISE_PROGRAMS = {16: 2112, 32: 1056}
"""By taps, padded: as many as run at a time."""
POINTWISE_PROGRAMS = 528
POSITIONS, CHANNELS = 128, 16
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
        return ChannelOrder.of(operands).copy < MOST_VALUES // 2
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
    signal = rows_of(gradient)
    way = _depthwise if _is_depthwise(operands) else _pointwise
    return summed(way(signal, rows_of(operands.x), operands))


def _depthwise(signal: Tensor, x: Tensor, operands: "Operands") -> Tensor:
    """What each program adds, (programs, M)."""
    from .mixture_kernels import depthwise_mixture

    order = ChannelOrder.of(operands)
    levels, signals = _channel_operands(signal, x, operands, order)
    u, v = (
        plane_rows(operands.tables, signal.dtype, x.device, GROUP),
        _factors(operands.tables, x.device),
    )
    kernel, channels = operands.w.shape[2], x.shape[3]
    last = order.levels // PLACES
    taps = 16 if kernel <= 4 else 32
    turns, shares = _shared(last, DEPTHWISE_PROGRAMS[taps] // (channels * len(u)))
    parts = x.new_empty((len(u), channels, shares, len(v)), dtype=torch.float32)
    w, w_scale = operands.w.reshape(channels, -1).contiguous(), operands.w_scale
    rows, columns = (0, 0) if order.is_padded else x.shape[1:3]
    with on_device(x):
        depthwise_mixture[(shares, channels, len(u))](
            levels, signals, u, v, w, w if w_scale is None else w_scale, operands.x_scale, parts,
            *operands.w_range, SMALLEST_SCALE, *order.in_units, order.shift,
            operands.geometry.dilation[0], last, turns, u[0].numel() // 4, len(v), v.shape[2],
            kernel, w_scale is not None, u.shape[1], v.shape[1], taps, rows, columns,
            order.unit, order.step, PLACES,
            num_warps=1, num_stages=3,
        )  # fmt: skip
    return parts.view(-1, len(v))


@dataclass(frozen=True)
class ChannelOrder:
    """How gradients and levels lie channel by channel, in values: see ``lay_out_channels``.

    Of a channel `length` gradients and `levels` levels; of an image `size`, of a row `width`
    gradients, their padding included. Distances of taps are multiples of `step`; gradients are read
    `unit` at a time, so in one of two copies, `step` apart.
    """

    length: int
    levels: int
    size: int
    width: int
    margin: int
    copy: int
    shift: int
    unit: int
    step: int

    @classmethod
    def of(cls, operands: "Operands") -> "ChannelOrder":
        x, padding, dilation = operands.x, operands.geometry.padding[0], operands.geometry.dilation
        count, channels, rows, columns = x.shape
        bare = _has_bare_levels(operands)
        even = dilation[0] % 2 == 0 and not (bare and padding % 2)
        height, width = rows + 2 * padding, padded_to(4, columns + 2 * padding)
        length = padded_to(PLACES, count * height * width)
        margin = padded_to(16, (operands.w.shape[2] - 1) * dilation[0] * (width + 1) + 1)
        copy = padded_to(16, margin + channels * length + 2)
        levels, shift = (count * rows * columns, padding * (width + 1)) if bare else (length, 0)
        unit, step = (4, 2) if even else (2, 1)
        return cls(length, levels, height * width, width, margin, copy, shift, unit, step)

    @property
    def in_units(self) -> tuple[int, ...]:
        """margin, copy, length, size, width."""
        every = (self.margin, self.copy, self.length, self.size, self.width)
        return tuple(number // self.unit for number in every)

    @property
    def is_padded(self) -> bool:
        """Whether levels are."""
        return self.levels == self.length


def _has_bare_levels(operands: "Operands") -> bool:
    """Whether padding adds nothing, u of level 0 being 0, and images' sizes are powers of two."""
    basis, (count, _, *size) = operands.tables.basis, operands.x.shape
    assert basis is not None
    known = not operands.affine and not basis.u[0].any()
    regular = all(power_of_two(side) == side for side in size) and size[1] > 1
    return known and regular and count * size[0] * size[1] % PLACES == 0


def _channel_operands(
    signal: Tensor, x: Tensor, operands: "Operands", order: ChannelOrder
) -> tuple[Tensor, Tensor]:
    """Levels and gradients, as ``lay_out_channels`` makes them."""
    from .mixture_kernels import lay_out_channels

    geometry, channels = operands.geometry, x.shape[3]
    levels = torch.empty((channels, order.levels), dtype=torch.int8, device=x.device)
    signals = signal.new_empty((2, order.copy))
    wide, blocks = min(32, power_of_two(channels)), order.length // PLACES
    with on_device(x):
        lay_out_channels[(blocks, -(-channels // wide))](
            signal, x, operands.x_scale, operands.zero_point, levels, signals, *operands.x_range,
            len(x) * order.size, blocks, order.levels // PLACES, order.margin // 16,
            order.copy // 16, order.size, order.width, *x.shape[1:3], *signal.shape[1:3], channels,
            geometry.stride[0], geometry.padding[0], order.is_padded, order.step, PLACES, wide,
            num_warps=4,
        )  # fmt: skip
    return levels, signals


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
            v.shape[2], w_scale is not None, v.shape[1], min(128, power_of_two(shares)), few, wide,
            num_warps=8,
        )  # fmt: skip
    return parts


def _plane_sums(signal: Tensor, x: Tensor, operands: "Operands") -> Tensor:
    """float32 (shares, planes · C, O): sums of gradient · u_p[x], lines in the kernel's order."""
    from .mixture_kernels import pointwise_plane_sums

    rows, columns, outputs = signal.shape[1:]
    channels, positions = x.shape[3], len(signal) * rows * columns
    u = plane_rows(operands.tables, signal.dtype, x.device, GROUP)
    out_tile = max(16, power_of_two(outputs))
    blocks, lines = -(-channels // CHANNELS), len(u) * channels * GROUP
    most = min(POINTWISE_PROGRAMS // (blocks * len(u)), PART_VALUES // (lines * outputs))
    turns, shares = _shared(-(-positions // POSITIONS), most)
    sums = x.new_empty((shares, lines, outputs), dtype=torch.float32)
    with on_device(x):
        pointwise_plane_sums[(shares, blocks, len(u))](
            signal, x, operands.x_scale, operands.zero_point, u, sums, *operands.x_range,
            positions, rows * columns, columns, *x.shape[1:3], channels, outputs,
            operands.geometry.stride[0], turns, u.shape[1], POSITIONS, CHANNELS, out_tile,
            num_warps=4 if out_tile <= 64 else 8, num_stages=1,
        )  # fmt: skip
    return sums


@lru_cache(maxsize=256)
def _factors(tables: "Tables", device: torch.device) -> Tensor:
    """float32 (M, columns, planes): v of each plane, those beyond the last zero."""
    return plane_factors(tables, device, GROUP).transpose(1, 2).contiguous()


def _shared(turns: int, programs: int) -> tuple[int, int]:
    """Turns of a program, and how many programs share them, about as many as asked for."""
    each = max(1, -(-turns // max(1, programs)))
    return each, -(-turns // each)
