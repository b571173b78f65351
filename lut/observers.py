"""Observers: the range of real values that a quantiser's levels shall cover, learned from batches.

Four ways, by name in :data:`OBSERVERS`: all values ever seen; a moving average of each batch's
extremes (Jacob et al., CVPR 2018); of its percentiles; of the clipping range with the least mean
squared error (Sung et al., "Resiliency of Deep Neural Networks under Quantization", 2015). None
waits for the device: all may be captured in a CUDA graph.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hw.errors import InputError

__all__ = [
    "OBSERVERS",
    "SMALLEST_SCALE",
    "Levels",
    "MeanSquaredError",
    "MinMax",
    "MovingAverage",
    "Observer",
    "Percentile",
    "divided",
]

SMALLEST_SCALE = 1e-8
MOMENTUM = 0.1
SHARE = 0.999
CANDIDATES = 41
CANDIDATES_PER_OCTAVE = 8


@dataclass(frozen=True)
class Levels:
    """The integers low … high that real values become; symmetric: real zero is level 0."""

    low: int
    high: int
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not self.low <= 0 < self.high:
            raise InputError(
                f"levels must run from at most 0 to at least 1, not from {self.low} to {self.high}"
            )

    def covered(self, low: float, high: float) -> tuple[float, float]:
        """The range that is covered where low … high must be: for symmetric levels symmetric."""
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise InputError(f"a range must be finite and rise, not go from {low} to {high}")
        magnitude = max(abs(low), abs(high))
        return (-magnitude, magnitude) if self.symmetric else (low, high)

    def grid(self, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """scale (float32) and zero point (int32) whose levels cover lowest … highest, and zero.

        Symmetric: the larger magnitude of the two is level `high`.
        """
        if self.symmetric:
            magnitude = torch.maximum(lowest.abs(), highest.abs())
            scale = divided(magnitude, self.high).clamp_min(SMALLEST_SCALE)
            return scale, torch.zeros_like(scale, dtype=torch.int32)
        lowest, highest = lowest.clamp_max(0.0), highest.clamp_min(0.0)
        scale = divided(highest - lowest, self.high - self.low).clamp_min(SMALLEST_SCALE)
        zero_point = torch.round(self.low - lowest / scale).clamp(self.low, self.high)
        return scale, zero_point.to(torch.int32)


class Observer(nn.Module):
    """What was seen of a stream of tensors; the range is -1 … 1 before the first.

    Buffers: ``low_value``, ``high_value`` float32, ``batches`` int64, all 0-dimensional. For
    symmetric levels the range is symmetric. `across`: turns the range of this process's part of a
    batch into that of the whole, where several processes share a batch.
    """

    low_value: Tensor
    high_value: Tensor
    batches: Tensor
    across: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.levels, self.across = levels, None
        self.register_buffer("low_value", torch.tensor(-1.0))
        self.register_buffer("high_value", torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0, dtype=torch.int64))

    @property
    def range(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest real value to cover."""
        return self.low_value, self.high_value

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        lowest, highest = self.batch_range(x.detach())
        if self.across is not None:
            lowest, highest = self.across(lowest, highest)
        self._merge(lowest.float(), highest.float())
        self.batches.add_(1)

    def batch_range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The range that suits `x` alone: its extremes."""
        lowest, highest = torch.aminmax(x)
        if not self.levels.symmetric:
            return lowest, highest
        magnitude = torch.maximum(-lowest, highest)
        return -magnitude, magnitude

    def _merge(self, lowest: Tensor, highest: Tensor) -> None:
        """Take in the range of a batch."""
        raise NotImplementedError

    @torch.no_grad()
    def set_range(self, low: float, high: float) -> None:
        """Force the range; it counts as one batch."""
        lowest, highest = self.levels.covered(low, high)
        self.low_value.fill_(lowest)
        self.high_value.fill_(highest)
        self.batches.fill_(1)


class MinMax(Observer):
    """The extremes of all batches."""

    def _merge(self, lowest: Tensor, highest: Tensor) -> None:
        first = self.batches == 0
        lower = torch.minimum(self.low_value, lowest)
        higher = torch.maximum(self.high_value, highest)
        self.low_value.copy_(torch.where(first, lowest, lower))
        self.high_value.copy_(torch.where(first, highest, higher))


class MovingAverage(Observer):
    """Moving average of each batch's range, by default its extremes; the first batch sets it.

    `momentum` is the weight of the newest batch.
    """

    def __init__(self, levels: Levels, momentum: float = MOMENTUM) -> None:
        super().__init__(levels)
        self.momentum = momentum

    def _merge(self, lowest: Tensor, highest: Tensor) -> None:
        first = self.batches == 0
        for value, newest in ((self.low_value, lowest), (self.high_value, highest)):
            moved = value + self.momentum * (newest - value)
            value.copy_(torch.where(first, newest, moved))


class Percentile(MovingAverage):
    """Moving average of the range that holds at least `share` of each batch's values.

    Of the values outside, half lie at each end; for symmetric levels magnitudes count instead.
    """

    def __init__(self, levels: Levels, momentum: float = MOMENTUM, *, share: float = SHARE) -> None:
        super().__init__(levels, momentum)
        if not 0.0 < share <= 1.0:
            raise InputError(f"share must be above 0 and at most 1, not {share}")
        self.share = share

    def batch_range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = x.reshape(-1)
        outside = len(values) - math.ceil(self.share * len(values))
        if self.levels.symmetric:
            magnitude = _nth_largest(values.abs(), outside + 1)
            return -magnitude, magnitude
        return -_nth_largest(-values, outside // 2 + 1), _nth_largest(values, outside // 2 + 1)


class MeanSquaredError(MovingAverage):
    """Moving average of the clipping range with the least mean squared error over each batch.

    Candidates: values clipped to magnitudes of ``2**(-i / 8)`` of the largest, i = 0 … 40. Each
    costs one rounding of the batch.
    """

    def batch_range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.float()
        lowest, highest = super().batch_range(x)
        steps = torch.arange(CANDIDATES, device=x.device, dtype=torch.float32)
        limits = torch.exp2(steps / -CANDIDATES_PER_OCTAVE)
        limits = limits * torch.maximum(-lowest, highest)
        errors = [
            _squared_error(x, self.levels, torch.maximum(lowest, -t), torch.minimum(highest, t))
            for t in limits.unbind()
        ]
        best = limits.gather(0, torch.stack(errors).argmin().view(1)).view(())
        return torch.maximum(lowest, -best), torch.minimum(highest, best)


def divided(values: Tensor, number: int) -> Tensor:
    """values / number, rounded once: a GPU multiplies by the reciprocal of a bare number."""
    return values / values.new_full((), number)


def _nth_largest(values: Tensor, n: int) -> Tensor:
    """The n-th largest value, counted from 1; of any number of values, and without sorting them."""
    return values.topk(n, sorted=False).values.amin()


def _squared_error(x: Tensor, levels: Levels, lowest: Tensor, highest: Tensor) -> Tensor:
    """Mean of (x - its quantised value)²."""
    scale, zero_point = levels.grid(lowest, highest)
    quantised = (x / scale).round_().add_(zero_point).clamp_(levels.low, levels.high)
    return quantised.sub_(zero_point).mul_(scale).sub_(x).square_().mean()


OBSERVERS: dict[str, type[Observer]] = {
    "min_max": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "mse": MeanSquaredError,
}
