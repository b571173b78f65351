"""Operands on a CUDA device as the kernels take them: images as bytes, weights as planes.

The kernels are Triton's. With ``TRITON_INTERPRET=1`` in the environment before triton is first
imported they run on the CPU, slowly: that is how they are tested where there is no GPU.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..geometry import ConvGeometry
from ..table import LUT

__all__ = [
    "Images",
    "Kernels",
    "Layout",
    "PackedPlanes",
    "PlaneOrder",
    "Weights",
    "cuda_refusal",
    "on_device",
    "padded_to",
    "power_of_two",
    "prepare",
    "transposed_table",
]

WORD_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SMALLEST_SCALE = 1e-8
TILE = 1024


def cuda_refusal(x: Tensor) -> str | None:
    """Why the kernels cannot run on `x` (N, C, H, W); None if they can."""
    device = x.device.type
    if device != "cuda" and not (device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"on a CUDA device, not on {device}"
    if find_spec("triton") is None:
        return "where triton is installed, not here"
    return None


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
    """The activation side of factors, in signed bytes: ``words`` (words, rows) of `per_word` planes
    each, the first plane lowest; `count` planes in all.

    `plain`: there is one plane and it is the operand itself, so that nothing need be looked up.
    """

    words: Tensor
    per_word: int
    count: int
    plain: bool

    @classmethod
    def of(cls, u: NDArray[np.int64], device: torch.device) -> "PackedPlanes":
        """u (rows, planes), entries from -128 to 127."""
        rows, count = u.shape
        words = -(-count // 8)
        per_word = -(-count // words)
        size = next(size for size in WORD_TYPES if size >= per_word)
        packed = torch.zeros(words, rows, size, dtype=torch.int8)
        for plane in range(count):
            column = torch.from_numpy(u[:, plane].astype(np.int8))
            packed[plane // per_word, :, plane % per_word] = column
        plain = count == 1 and np.array_equal(u[:, 0].astype(np.int8), _own_patterns(rows))
        words_of = packed.view(WORD_TYPES[size])[:, :, 0].contiguous()
        return cls(words_of.to(device), per_word, count, plain)

    @classmethod
    def bare(cls, rows: int, device: torch.device) -> "PackedPlanes":
        """The bit patterns themselves."""
        return cls(torch.empty(1, rows, dtype=torch.int8, device=device), 1, 1, True)


def _own_patterns(rows: int) -> NDArray[np.int8]:
    return np.arange(rows).astype(np.uint8).view(np.int8)


@dataclass(frozen=True, eq=False)
class Layout:
    """How one convolution lies in memory: images of bytes with their padding, `step` bytes a place.

    `group_channels`: channels of a group, padded; `count` planes of them follow each other.
    """

    geometry: ConvGeometry
    padded: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    channels: int
    group_channels: int
    count: int
    step: int

    @classmethod
    def of(
        cls,
        x: torch.Size,
        w: torch.Size,
        geometry: ConvGeometry,
        *,
        count: int,
        multiple: int,
        depth: int = 1,
    ) -> "Layout":
        """`multiple`: what channels are padded to; `depth`: what a group's bytes are read in."""
        (top, left), (height, width) = geometry.padding, x[2:]
        padded = (height + 2 * top, width + 2 * left)
        channels = padded_to(multiple, w[1])
        group = count * channels
        step = (geometry.groups - 1) * group + padded_to(depth, group)
        size = geometry.output_size(torch.Size((*x[:2], *padded)), w)
        kernel = (w[2], w[3])
        return cls(geometry, padded, size, kernel, w[1], channels, count, padded_to(8, step))

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def group_bytes(self) -> int:
        return self.count * self.group_channels

    @property
    def image_bytes(self) -> int:
        return self.padded[0] * self.padded[1] * self.step

    def places(self, images: int) -> tuple[int, ...]:
        """Positions in all, in a row, in an image; steps of an image, a row and a column."""
        (rows, columns), (down, right) = self.size, self.geometry.stride
        row = self.padded[1] * self.step
        positions = images * rows * columns
        return positions, columns, rows * columns, self.image_bytes, down * row, right * self.step

    @property
    def tap_steps(self) -> tuple[int, int, int]:
        """Taps of a kernel's row; steps from a tap to the one below and to the right."""
        down, right = self.geometry.dilation
        return self.kernel[1], down * self.padded[1] * self.step, right * self.step

    def expanded(self, images: Images, planes: PackedPlanes, rows: int) -> Tensor:
        """The images' planes, int8 (N, Hp, Wp, step)."""
        from .cuda_kernels import expand_activations

        x, groups = images.x, self.geometry.groups
        result = torch.empty(
            x.shape[0], *self.padded, self.step, dtype=torch.int8, device=x.device
        )
        channel_tile = power_of_two(min(self.group_channels, 64))
        group_blocks = -(-self.group_channels // channel_tile)
        place_tile = max(1, (2048 if planes.count == 1 else TILE) // channel_tile)
        places = x.shape[0] * self.padded[0] * self.padded[1]
        scale = images.scale
        with on_device(x):
            expand_activations[(-(-places // place_tile), groups * group_blocks)](
                x, images.zero if scale is None else scale, images.zero, planes.words, result,
                images.low, images.high, places, self.padded[1], self.padded[0] * self.padded[1],
                *self.geometry.padding, x.shape[2], x.shape[3],
                x.stride(0), x.stride(2), x.stride(3), x.stride(1),
                self.channels, group_blocks, self.group_channels, self.step,
                scale is not None, not planes.plain, rows, planes.count, planes.per_word,
                place_tile, channel_tile, num_warps=4,
            )  # fmt: skip
        return result


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
    """What `prepare` makes of weights; what was not asked for is None."""

    scales: Tensor | None
    sums: Tensor | None
    real: Tensor | None
    patterns: Tensor | None
    planes: Tensor | None
    rest: Tensor | None


@dataclass(frozen=True, eq=False)
class PlaneOrder:
    """Where v[w] lies: `shape`, and the steps of an output channel, a tap and a plane.

    `channels` of a plane, `last` of the last one, the rest of them zero; outputs of a group are
    padded to `padded_outputs`.
    """

    shape: tuple[int, ...]
    output: int
    tap: int
    plane: int
    channels: int
    last: int
    group_outputs: int
    padded_outputs: int

    @classmethod
    def dense(cls, layout: Layout, depth: int, outputs: int, tile: int) -> "PlaneOrder":
        """(groups, padded outputs, taps · bytes read of a tap)."""
        groups, width = layout.geometry.groups, padded_to(depth, layout.group_bytes)
        padded = padded_to(tile, outputs // groups)
        last = width - (layout.count - 1) * layout.group_channels
        row = layout.taps * width
        return cls(
            (groups, padded, row), row, width, layout.group_channels, layout.group_channels, last,
            outputs // groups, padded,
        )  # fmt: skip

    @classmethod
    def depthwise(cls, taps: int, count: int, outputs: int) -> "PlaneOrder":
        """(taps, planes, outputs)."""
        shape = (taps, count, outputs)
        return cls(shape, 1, count * outputs, outputs, 1, 1, outputs, outputs)


def prepare(
    weights: Weights,
    *,
    columns: int,
    v: Tensor | None = None,
    order: PlaneOrder | None = None,
    split: bool = False,
    patterns: bool = False,
    real: torch.dtype | None = None,
) -> Kernels:
    """Quantise weights and lay out v[w] in `order`, in one kernel.

    v: (planes, columns) int8 or float32; `split`: v[w] in two parts of bfloat16. `real`: the type
    of the quantised weights' real values.
    """
    from .cuda_kernels import prepare_weights

    w = weights.w
    last = w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous()
    w = w if last else w.contiguous()
    outputs, channels, taps = w.shape[0], w.shape[1], w.shape[2] * w.shape[3]
    steps = (channels * taps, 1, channels) if last else (channels * taps, taps, 1)
    kernels = _empty_kernels(weights, w, v, order, split, patterns, real)
    order = order or PlaneOrder((), 0, 0, 0, channels, channels, outputs, outputs)
    tap_tile = power_of_two(taps)
    channel_tile = max(1, min(power_of_two(order.last), 2048 // tap_tile))

    def pointer(tensor: Tensor | None) -> Tensor:
        return w if tensor is None else tensor

    with on_device(w):
        prepare_weights[(outputs,)](
            w, pointer(weights.scales), pointer(v), pointer(kernels.planes), pointer(kernels.rest),
            pointer(kernels.patterns), pointer(kernels.real), pointer(kernels.scales),
            pointer(kernels.sums), weights.low, weights.high, SMALLEST_SCALE, channels, taps,
            *steps, order.group_outputs, order.padded_outputs, order.channels, order.last,
            order.output, order.tap, order.plane, 0 if v is None else v.shape[0],
            weights.are_real, weights.scales is not None, columns,
            0 if v is None else 2 if split else 1, patterns, real is not None,
            tap_tile, channel_tile, num_warps=4,
        )  # fmt: skip
    return kernels


def _empty_kernels(
    weights: Weights,
    w: Tensor,
    v: Tensor | None,
    order: PlaneOrder | None,
    split: bool,
    patterns: bool,
    real: torch.dtype | None,
) -> Kernels:
    def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=w.device)

    outputs, channels, taps = w.shape[0], w.shape[1], w.shape[2] * w.shape[3]
    planes = rest = None
    if v is not None and order is not None:
        # The interpreter has no products of bfloat16.
        half = torch.bfloat16 if w.is_cuda else torch.float32
        planes = empty(order.shape, half if split else v.dtype)
        rest = empty(order.shape, half) if split else None
    return Kernels(
        empty((outputs,), torch.float32) if weights.are_real else None,
        empty((outputs,), torch.int32) if weights.are_real else None,
        torch.empty_like(w, dtype=real) if real is not None else None,
        empty((outputs, channels, taps), torch.uint8) if patterns else None,
        planes,
        rest,
    )


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
