"""Operands on a CUDA device as the kernels take them: images as bytes, weights as planes.

The kernels are Triton's. With ``TRITON_INTERPRET=1`` in the environment before triton is first
imported they run on the CPU, slowly: that is how they are tested where there is no GPU.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..geometry import ConvGeometry
from ..table import LUT
from .backend import is_installed

__all__ = [
    "Columns",
    "Images",
    "Kernels",
    "Layout",
    "PackedPlanes",
    "PlaneOrder",
    "Weights",
    "biased_columns",
    "cuda_refusal",
    "on_device",
    "padded_to",
    "power_of_two",
    "prepare",
    "transposed_table",
]

SMALLEST_SCALE = 1e-8
TILE = 2048
MIXED_TILE = 512
"""Weights that a program mixes at a time: four planes of all multipliers are then in registers."""
SLACK = 1024
"""Bytes beyond the last place: whole tiles are read."""


def cuda_refusal(x: Tensor) -> str | None:
    """Why the kernels cannot run on `x` (N, C, H, W); None if they can."""
    device = x.device.type
    if device != "cuda" and not (device == "cpu" and _interpreted()):
        return f"on a CUDA device, not on {device}"
    if not is_installed("triton"):
        return "where triton is installed, not here"
    return None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True, eq=False)
class Images:
    """Activations (N, C, H, W): real values with their quantiser's grid, or bit patterns (uint8).

    Bit patterns have no `scale`; `zero` is then the pattern of padding. 0-dimensional tensors on
    the images' device; zero int32.
    """

    x: Tensor
    zero: Tensor
    scale: Tensor | None = None
    low: int = 0
    high: int = 0

    def part(self, start: int, stop: int) -> "Images":
        return Images(self.x[start:stop], self.zero, self.scale, self.low, self.high)


@dataclass(frozen=True, eq=False)
class PackedPlanes:
    """The activation side of factors: `words` int32 (words, rows) of four signed bytes each, the
    first plane lowest; `count` planes in all.

    `plain`: there is one plane and it is the operand itself, so that nothing need be looked up.
    """

    words: Tensor
    count: int
    plain: bool

    @classmethod
    def of(cls, u: NDArray[np.int64], device: torch.device) -> "PackedPlanes":
        """u (rows, planes), entries from -128 to 127."""
        rows, count = u.shape
        packed = np.zeros((-(-count // 4), rows, 4), np.int8)
        for plane in range(count):
            packed[plane // 4, :, plane % 4] = u[:, plane]
        own = np.arange(rows).astype(np.uint8).view(np.int8)
        plain = count == 1 and np.array_equal(u[:, 0], own)
        words = torch.from_numpy(packed.view(np.int32)[:, :, 0].copy())
        return cls(words.to(device), count, plain)

    @classmethod
    def bare(cls, rows: int, device: torch.device) -> "PackedPlanes":
        """The bit patterns themselves."""
        return cls(torch.empty(1, rows, dtype=torch.int32, device=device), 1, True)

    @property
    def word_count(self) -> int:
        return int(self.words.shape[0])


Order = Literal["bytes", "words", "channels"]


@dataclass(frozen=True, eq=False)
class Layout:
    """How the activations of a convolution lie in memory, with their padding.

    `order` "bytes": of a place, for each group, words of four planes for each channel, then the
    planes left over; "words": every plane in a word; "channels": one plane, place after place of
    all images for each channel, rows padded to words of four. `group_channels`: channels of a
    group, padded; `step`: items of a place.
    """

    geometry: ConvGeometry
    padded: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    channels: int
    group_channels: int
    count: int
    step: int
    order: Order

    @classmethod
    def of(
        cls,
        x: torch.Size,
        w: torch.Size,
        geometry: ConvGeometry,
        *,
        count: int = 1,
        multiple: int,
        depth: int = 1,
        order: Order = "bytes",
    ) -> "Layout":
        """`multiple`: what channels are padded to; `depth`: what a group's bytes are read in."""
        (top, left), (height, width) = geometry.padding, x[2:]
        padded = (height + 2 * top, width + 2 * left)
        size = geometry.output_size(torch.Size((*x[:2], *padded)), w)
        if order == "channels":  # so that rows are whole words
            padded = (padded[0], padded_to(4, padded[1]))
        channels = padded_to(multiple, w[1])
        group = (-(-count // 4) if order == "words" else count) * channels
        step = (geometry.groups - 1) * group + padded_to(depth, group)
        kernel = (w[2], w[3])
        return cls(geometry, padded, size, kernel, w[1], channels, count, step, order)

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def group_bytes(self) -> int:
        return self.count * self.group_channels

    @property
    def image_items(self) -> int:
        return self.padded[0] * self.padded[1] * self.step

    @property
    def image_bytes(self) -> int:
        return self.image_items * (4 if self.order == "words" else 1)

    @property
    def _place(self) -> int:
        """Items from one place to the next in a row."""
        return 1 if self.order == "channels" else self.step

    def places(self, images: int) -> tuple[int, ...]:
        """Positions in all, in a row, in an image; steps of an image, a row and a column."""
        (rows, columns), (down, right) = self.size, self.geometry.stride
        row = self.padded[1] * self._place
        positions = images * rows * columns
        image = self.padded[0] * row
        return positions, columns, rows * columns, image, down * row, right * self._place

    def channel_items(self, images: int) -> int:
        """In the order "channels": those of a channel of so many images."""
        return padded_to(16, images * self.padded[0] * self.padded[1])

    @property
    def tap_steps(self) -> tuple[int, int, int]:
        """Taps of a kernel's row; steps from a tap to the one below and to the right."""
        down, right = self.geometry.dilation
        return self.kernel[1], down * self.padded[1] * self._place, right * self._place

    def expanded(self, images: Images, planes: PackedPlanes, rows: int) -> Tensor:
        """The images' planes as items in this order, flat."""
        from .cuda_kernels import expand_activations

        x, groups = images.x, self.geometry.groups
        kind = torch.int8 if planes.plain else torch.int32
        by_channel = self.order == "channels"
        channel_items = self.channel_items(x.shape[0])
        size = x.shape[0] * self.image_bytes + SLACK
        if by_channel:
            size = self.group_channels * channel_items + SLACK
        result = torch.empty(size // kind.itemsize, dtype=kind, device=x.device)
        channel_tile = gcd(self.group_channels, 64)
        group_blocks = -(-self.group_channels // channel_tile)
        place_tile = max(1, TILE // channel_tile)
        places = x.shape[0] * self.padded[0] * self.padded[1]
        scale = images.scale
        align = gcd(16, self.channels, x.stride(0), x.stride(2), x.stride(3))
        with on_device(x):
            expand_activations[(-(-places // place_tile), groups * group_blocks)](
                x, images.zero if scale is None else scale, images.zero, planes.words, result,
                images.low, images.high, places, self.padded[1], self.padded[0] * self.padded[1],
                *self.geometry.padding, x.shape[2], x.shape[3],
                x.stride(0) // align, x.stride(2) // align, x.stride(3) // align, x.stride(1),
                self.channels // align, group_blocks, self.group_channels,
                channel_items // 16 if by_channel else self.step,
                scale is not None, planes.plain, rows, planes.count, self.order, align,
                place_tile, channel_tile, num_warps=4,
            )  # fmt: skip
        return result if self.order == "words" else result.view(torch.int8)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights (O, C / groups, kH, kW): real, quantised per output channel, or bit patterns (uint8).

    Bit patterns have no range. `scales`: (O,) where they are given.
    """

    w: Tensor
    low: int = 0
    high: int = 0
    scales: Tensor | None = None

    @property
    def are_real(self) -> bool:
        return self.high > 0


@dataclass(frozen=True, eq=False)
class Kernels:
    """What `prepare` makes of weights; what was not asked for is None.

    `unit`: float32 (1,), of planes in fixed point.
    """

    scales: Tensor | None
    sums: Tensor | None
    real: Tensor | None
    patterns: Tensor | None
    planes: Tensor | None
    rest: Tensor | None
    unit: Tensor | None


@dataclass(frozen=True, eq=False)
class PlaneOrder:
    """Where v[w] lies: `shape`, and the steps of an output channel, a tap, four planes and one.

    Planes below `wide` lie in words of four. `channels` of a plane, `last` from plane `last_planes`
    on, those beyond the weights' own zero; outputs of a group are padded to `padded_outputs`.
    """

    shape: tuple[int, ...]
    output: int
    tap: int
    four: int
    plane: int
    channels: int
    last: int
    last_planes: int
    wide: int
    group_outputs: int
    padded_outputs: int

    @classmethod
    def dense(
        cls, layout: Layout, depth: int, outputs: int, tile: int, parts: int = 1
    ) -> "PlaneOrder":
        """(groups, rows, taps · bytes read of a tap), a tap as the layout's places; `parts` rows an
        output, padded to whole tiles of rows.
        """
        groups, width = layout.geometry.groups, padded_to(depth, layout.group_bytes)
        padded = padded_to(tile, parts * (outputs // groups))
        channels, count = layout.group_channels, layout.count
        row, tail = layout.taps * width, width - layout.group_bytes
        whole = count % 4 == 0
        return cls(
            (groups, padded, row), parts * row, width, 4 * channels, channels, channels,
            channels + (tail // 4 if whole else tail), count - (4 if whole else 1),
            count - count % 4, outputs // groups, padded // parts,
        )  # fmt: skip

    @classmethod
    def pointwise(cls, channels: int, count: int, outputs: int, tile: int) -> "PlaneOrder":
        """(padded outputs, planes · channels), channels being padded."""
        padded, row = padded_to(tile, outputs), count * channels
        return cls(
            (padded, row), row, row, 4 * channels, channels, channels, channels, count, 0,
            outputs, padded,
        )  # fmt: skip

    @classmethod
    def words(cls, channels: int, count: int, outputs: int, tile: int) -> "PlaneOrder":
        """(padded outputs, planes · channels), four planes of a channel side by side."""
        padded, row = padded_to(tile, outputs), count * channels
        return cls(
            (padded, row), row, row, 4 * channels, channels, channels, channels, count, count,
            outputs, padded,
        )  # fmt: skip

    @classmethod
    def depthwise(
        cls, taps: int, planes: "PackedPlanes", outputs: int, parts: int = 1
    ) -> "PlaneOrder":
        """(taps, words, padded outputs, `parts` · four planes); (taps, 1, padded outputs, 1) of
        plain planes.
        """
        words, size = planes.word_count, parts * (1 if planes.plain else 4)
        padded = padded_to(64, outputs)
        row = padded * size
        return cls(
            (taps, words, padded, size), size, words * row, row, 1, 1, 1, planes.count, 0,
            outputs, padded,
        )  # fmt: skip


def prepare(
    weights: Weights,
    *,
    columns: int,
    v: Tensor | None = None,
    v_words: Tensor | None = None,
    mixture: Tensor | None = None,
    order: PlaneOrder | None = None,
    patterns: bool = False,
    real: torch.dtype | None = None,
    split: bool = True,
    unit: float | None = None,
) -> Kernels:
    """Quantise weights and lay out v[w] in `order`, in one kernel.

    v: (planes, columns) int8 with `v_words`, the same in words of four planes, int32 (words,
    columns); or float32 (M, planes, columns), weighed by `mixture` (M,): v[w] is laid out rounded
    to bfloat16, and where `split` a second part, what is left; or, where a `unit` is given, in
    fixed point: two rows of int8 an output, of an order of two parts. `unit`: a power of two, at
    least max |v| / 32639. `real`: the type of the quantised weights' real values.
    """
    from .cuda_kernels import prepare_weights

    w = weights.w
    last = w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous()
    w = w if last else w.contiguous()
    outputs, channels, taps = w.shape[0], w.shape[1], w.shape[2] * w.shape[3]
    align = gcd(16, channels) if last or taps == 1 else 1
    steps = (channels * taps // align, channels // align if last else 1, 1 if last else taps)
    mixed = v is not None and v.is_floating_point()
    form = 0 if v is None else 1 if not mixed else 4 if unit else 2 if split else 3
    kernels = _empty_kernels(weights, w, form, order, patterns, real)
    order = order or PlaneOrder((), 0, 0, 0, 0, channels, channels, 0, 0, outputs, outputs)
    plane_align = gcd(16, order.channels, order.last)
    in_units = (order.output, order.tap, order.four, order.plane)
    if any(step % plane_align for step in in_units):
        plane_align = 1
    tap_tile = power_of_two(taps)
    tile = MIXED_TILE if mixed else 4096 if channels * taps >= 2048 else 2048
    channel_tile = max(1, min(power_of_two(order.last), tile // tap_tile))

    def pointer(tensor: Tensor | None) -> Tensor:
        return w if tensor is None else tensor

    with on_device(w):
        prepare_weights[(outputs,)](
            w, pointer(weights.scales), pointer(v), pointer(v_words), pointer(mixture),
            pointer(kernels.planes), pointer(kernels.rest), pointer(kernels.unit),
            pointer(kernels.patterns), pointer(kernels.real), pointer(kernels.scales),
            pointer(kernels.sums), weights.low, weights.high, SMALLEST_SCALE, unit or 1.0,
            channels // align, taps, *steps, order.group_outputs,
            order.padded_outputs, order.channels // plane_align, order.last // plane_align,
            order.last_planes, order.wide, *(step // plane_align for step in in_units),
            0 if v is None else v.shape[-2],
            weights.are_real, weights.scales is not None, columns,
            0 if mixture is None else len(mixture),
            form, patterns, real is not None,
            align, plane_align, tap_tile, channel_tile, num_warps=max(4, tile // 512),
        )  # fmt: skip
    return kernels


def _empty_kernels(
    weights: Weights,
    w: Tensor,
    form: int,
    order: PlaneOrder | None,
    patterns: bool,
    real: torch.dtype | None,
) -> Kernels:
    """`form`: how v[w] is laid out, as `prepare_weights` names it."""

    def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=w.device)

    outputs, channels, taps = w.shape[0], w.shape[1], w.shape[2] * w.shape[3]
    planes = rest = None
    if form and order is not None:
        # The interpreter has no products of bfloat16.
        half = torch.float32 if _interpreted() else torch.bfloat16
        planes = empty(order.shape, half if form in (2, 3) else torch.int8)
        rest = empty(order.shape, half) if form == 2 else None
    return Kernels(
        empty((outputs,), torch.float32) if weights.are_real else None,
        empty((outputs,), torch.int32) if weights.are_real else None,
        torch.empty_like(w, dtype=real) if real is not None else None,
        empty((outputs, channels, taps), torch.uint8) if patterns else None,
        planes,
        rest,
        empty((1,), torch.float32) if form == 4 else None,
    )


@dataclass(frozen=True, eq=False)
class Columns:
    """A table transposed: (columns + 1, rows), the last row zero products.

    `pairs`: in unsigned 16 bits, too large by `bias`; else int32.
    """

    table: Tensor
    bias: int
    pairs: bool


@lru_cache(maxsize=256)
def biased_columns(lut: LUT, device: torch.device) -> Columns:
    table = np.zeros((lut.table.shape[1] + 1, lut.table.shape[0]), np.int64)
    table[:-1] = lut.table.T
    bias = max(0, -int(table.min()))
    if int(table.max()) + bias >= 1 << 16:
        return Columns(torch.from_numpy(table.astype(np.int32)).to(device), 0, False)
    halves = (table + bias).astype(np.uint16).view(np.int16)
    return Columns(torch.from_numpy(halves).to(device), bias, True)


@lru_cache(maxsize=256)
def transposed_table(lut: LUT, device: torch.device) -> Tensor:
    """(columns, rows), in 16 bits where the products fit."""
    table = lut.table.T
    types = (np.int16, np.uint16)
    fitting = [
        t for t in types if np.iinfo(t).min <= table.min() and table.max() <= np.iinfo(t).max
    ]
    kind = fitting[0] if fitting else np.int32
    return torch.from_numpy(np.ascontiguousarray(table.astype(kind))).to(device)


def padded_to(multiple: int, count: int) -> int:
    return -(-count // multiple) * multiple


def power_of_two(count: int) -> int:
    """The least that is at least `count`."""
    return 1 << max(0, count - 1).bit_length()


@contextmanager
def on_device(tensor: Tensor) -> Iterator[None]:
    """Launches go to the device of `tensor`."""
    if tensor.is_cuda:
        with torch.cuda.device(tensor.device):
            yield
    else:
        yield
