"""Operands of the CUDA kernels: images with channels last, and where each operand of a sum lies.

The kernels are Triton's. With ``TRITON_INTERPRET=1`` in the environment before triton is first
imported they run on the CPU, slowly: that is how they are tested where there is no GPU.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from math import gcd

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from .backend import Problem

__all__ = ["Operands", "cuda_refusal", "on_device", "padded_to"]

VECTOR_BYTES = 16


@dataclass(frozen=True, eq=False)
class Operands:
    """x uint8 (N, H, W, C); `offsets` int32 (length,), where each operand of a sum lies in x.

    Operands are numbered tap · channels + channel; those beyond the last tap lie anywhere in x.
    `result` int32 (N, H', W', O), not filled.
    """

    x: Tensor
    offsets: Tensor
    result: Tensor
    geometry: ConvGeometry
    channels: int

    @classmethod
    def of(cls, problem: Problem, multiple: int) -> "Operands":
        """Operands whose number is rounded up to a `multiple`."""
        x = problem.x.permute(0, 2, 3, 1).contiguous()
        batch, outputs, *size = problem.output_shape
        result = torch.empty(batch, *size, outputs, dtype=torch.int32, device=x.device)
        return cls.within(x, problem, problem.w.shape[1], multiple, result)

    @classmethod
    def within(
        cls, x: Tensor, problem: Problem, channels: int, multiple: int, result: Tensor
    ) -> "Operands":
        """Operands in other images than those of `problem`, of so many `channels` a group."""
        height, width = problem.w.shape[2:]
        length = padded_to(multiple, channels * problem.taps)
        row = (x.shape[2], x.shape[3])
        dilation = problem.geometry.dilation
        offsets = _offsets((height, width), dilation, row, channels, length, x.device)
        return cls(x, offsets, result, problem.geometry, channels)

    @property
    def length(self) -> int:
        return self.offsets.shape[0]

    @property
    def positions(self) -> int:
        return self.result[..., 0].numel()

    @property
    def steps(self) -> tuple[int, ...]:
        """Positions in all, in a row and in an image; steps in x of an image, a row, a column."""
        _, rows, columns, _ = self.result.shape
        _, height, width, channels = self.x.shape
        down, right = self.geometry.stride
        image = height * width * channels
        places = rows * columns
        return self.positions, columns, places, image, down * width * channels, right * channels

    @property
    def vector(self) -> int:
        """How many operands lie side by side in x, from a multiple of it on: 1, 2, 4, 8 or 16."""
        return gcd(self.channels, VECTOR_BYTES)

    @property
    def accumulators(self) -> Tensor:
        """The result as int32 (N, O, H', W'), channels last."""
        return self.result.permute(0, 3, 1, 2)


@lru_cache(maxsize=1024)
def _offsets(
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    row: tuple[int, int],
    channels: int,
    length: int,
    device: torch.device,
) -> Tensor:
    """`row`: places in a row of x, and channels of one place."""
    down = torch.arange(kernel[0]) * dilation[0] * row[0] * row[1]
    right = torch.arange(kernel[1]) * dilation[1] * row[1]
    offsets = (down[:, None, None] + right[:, None] + torch.arange(channels)).flatten()
    return offsets[torch.arange(length) % len(offsets)].to(device, torch.int32)


def padded_to(multiple: int, count: int) -> int:
    return -(-count // multiple) * multiple


def cuda_refusal(problem: Problem) -> str | None:
    """Why the kernels cannot run for `problem`; None if they can."""
    device = problem.x.device.type
    if device != "cuda" and not (device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"on a CUDA device, not on {device}"
    if find_spec("triton") is None:
        return "where triton is installed, not here"
    if problem.x.shape[1:].numel() >= 1 << 31:
        return f"for images of less than 2**31 operands, not {problem.x.shape[1:].numel()}"
    return None


@contextmanager
def on_device(tensor: Tensor) -> Iterator[None]:
    """Launches go to the device of `tensor`."""
    if tensor.is_cuda:
        with torch.cuda.device(tensor.device):
            yield
    else:
        yield
