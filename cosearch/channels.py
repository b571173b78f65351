"""Channels of images parted and put together again, as PC-DARTS does at every state and node.

Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search", ICLR
2020; the shuffle is that of ShuffleNet (Zhang et al., CVPR 2018). On a CUDA device each is one
kernel, and so is its gradient; elsewhere the same in ordinary operations.
"""

from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lut.backends.cuda_operands import cuda_refusal, on_device, power_of_two

__all__ = ["join", "split"]

TILE = 2048
TYPES = (torch.bfloat16, torch.float16, torch.float32)


def split(whole: Tensor, seen: int) -> tuple[Tensor, Tensor]:
    """The first `seen` channels of `whole` (N, C, H, W), and the others; both channels last."""
    if _has_kernels(whole):
        first, second = _Split.apply(whole, _Parts(seen, whole.shape[1] - seen))
        return first, second
    first, second = whole[:, :seen], whole[:, seen:]
    last = torch.channels_last
    return first.contiguous(memory_format=last), second.contiguous(memory_format=last)


def join(found: Tensor, beside: Tensor, partial: int) -> Tensor:
    """The channels of `found`, then of `beside`, shuffled: channel g · (C / partial) + i of these C
    is channel partial · i + g of the result.
    """
    same = found.dtype == beside.dtype
    if same and _has_kernels(found) and partial == power_of_two(partial):
        parts = _Parts(found.shape[1], beside.shape[1], partial)
        result: Tensor = _Join.apply(found, beside, parts)
        return result
    return functional.channel_shuffle(torch.cat([found, beside], 1), partial)


def _has_kernels(x: Tensor) -> bool:
    return x.dtype in TYPES and cuda_refusal(x) is None


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, parts: "_Parts") -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.parts = parts
        return parts.of(whole)

    @staticmethod
    def backward(ctx: Any, first: Tensor | None, second: Tensor | None) -> tuple[Any, None]:
        if first is None and second is None:
            return None, None
        return ctx.parts.together(first, second), None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, beside: Tensor, parts: "_Parts") -> Tensor:
        ctx.parts = parts
        return parts.together(found, beside)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return *ctx.parts.of(gradient), None


@dataclass(frozen=True)
class _Parts:
    """An image's first channels, `seen` many, and the `rest`; in the whole they are shuffled as
    `partial` groups.
    """

    seen: int
    rest: int
    partial: int = 1

    @property
    def _group(self) -> int:
        return (self.seen + self.rest) // self.partial

    @property
    def _align(self) -> int:
        """What all counts of channels are multiples of."""
        return gcd(16, self.seen, self.rest, self._group)

    @property
    def _counts(self) -> tuple[int, int, int]:
        align = self._align
        return self.seen // align, self.rest // align, self._group // align

    @property
    def _tile(self) -> tuple[int, int]:
        """Positions and channels, of each group, of a program."""
        wide = min(max(1, 128 // self.partial), power_of_two(self._group))
        return max(1, TILE // (wide * self.partial)), wide

    def _grid(self, positions: int) -> tuple[int, int]:
        many, wide = self._tile
        return -(-positions // many), -(-self._group // wide)

    def of(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Both parts of the whole."""
        from .channel_kernels import split_channels

        rows = _rows(whole)
        positions, step = rows.shape[0], rows.stride(0)
        first, second = _empty(whole, self.seen), _empty(whole, self.rest)
        step_align = gcd(16, step)
        with on_device(rows):
            split_channels[self._grid(positions)](
                rows, first, second, positions, *self._counts, step // step_align,
                self.partial, self._align, step_align, *self._tile, num_warps=4,
            )  # fmt: skip
        return first, second

    def together(self, first: Tensor | None, second: Tensor | None) -> Tensor:
        """The whole; a part that is None is zeros. One is there."""
        from .channel_kernels import join_channels

        there = first if first is not None else second
        assert there is not None
        whole = _empty(there, self.seen + self.rest)
        one, two = (whole if part is None else _rows(part).contiguous() for part in (first, second))
        positions = whole.numel() // whole.shape[1]
        with on_device(whole):
            join_channels[self._grid(positions)](
                one, two, whole, positions, *self._counts, first is not None, second is not None,
                self.partial, self._align, *self._tile, num_warps=4,
            )  # fmt: skip
        return whole


def _rows(images: Tensor) -> Tensor:
    """(positions, C), channels side by side; a copy only where the images do not lie so."""
    rows = images.detach().permute(0, 2, 3, 1).reshape(-1, images.shape[1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _empty(images: Tensor, channels: int) -> Tensor:
    batch, _, height, width = images.shape
    shape = (batch, channels, height, width)
    last = torch.channels_last
    return torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=last)
