"""What a backend is: a way to compute the integer convolution, and when it may be used."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from ..padding import padded_images
from ..table import LUT

__all__ = ["Backend", "Problem", "is_installed"]


@dataclass(frozen=True, eq=False)
class Problem:
    """One convolution: x uint8 (N, C, H, W), w uint8 (O, C / groups, kH, kW), both bit patterns.

    The padding of `geometry` is still to be added: positions of `zero_pattern`, which may be a
    0-dimensional tensor.
    """

    x: Tensor
    w: Tensor
    lut: LUT
    geometry: ConvGeometry
    zero_pattern: int | Tensor = 0

    def padded(self) -> "Problem":
        """The same with padding in x, channels last in memory, and none in `geometry`."""
        x = padded_images(self.x, self.geometry.padding, self.zero_pattern)
        return Problem(x, self.w, self.lut, self.geometry.without_padding())

    @property
    def padding_is_zero(self) -> bool:
        """Whether products of padding are known to be 0, whatever the weight."""
        return isinstance(self.zero_pattern, int) and self.zero_pattern in self.lut.zero_rows

    @property
    def taps(self) -> int:
        return self.w.shape[2] * self.w.shape[3]

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel sees one input channel, of several."""
        return self.geometry.groups > 1 and self.w.shape[1] == 1

    @property
    def zero(self) -> Tensor:
        """A zero point that is not used: kernels find padding there already."""
        return _zero(self.x.device)

    def empty_result(self) -> Tensor:
        """int32 (N, H', W', O), not filled."""
        batch, outputs, height, width = self.output_shape
        shape = (batch, height, width, outputs)
        return torch.empty(shape, dtype=torch.int32, device=self.x.device)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        assert self.geometry.padding == (0, 0), "the size is that of a padded problem"
        height, width = self.geometry.output_size(self.x.shape, self.w.shape)
        return self.x.shape[0], self.w.shape[0], height, width


class Backend(Protocol):
    """One file of this package each; all that are not refused give the same integers."""

    def refusal(self, problem: Problem) -> str | None:
        """Why this backend cannot be exact, or not be run, for `problem`; None if it can."""

    def cost(self, problem: Problem) -> float:
        """Expected time for a multiplication, relative to torch's fp32 convolution."""

    def accumulators(self, problem: Problem) -> Tensor:
        """int32 (N, O, H', W')."""


@lru_cache(maxsize=16)
def _zero(device: torch.device) -> Tensor:
    return torch.zeros((), dtype=torch.int32, device=device)


@lru_cache(maxsize=8)
def is_installed(module: str) -> bool:
    """Looked up once: backends are chosen at every call."""
    return find_spec(module) is not None
