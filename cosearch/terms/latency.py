"""Expected latency of one inference on the array: expected clocks · expected period of the clock.

Clocks: ``sum over layers l of alpha_l · clocks_l``, one layer after the other, as ``hw.array``
counts them. The clock is as slow as the slowest multiplier that is used anywhere. Multiplier m is
used with probability ``p_m = 1 - prod over choices u of (1 - alpha_u · beta_um)``, choices taken as
independent, and the period is the mean of the maximum,

    E[period] = sum over m, slowest first, of period_m · p_m · prod over slower n of (1 - p_n)

It is smooth, has no temperature, and is exact for one-hot shares. A choice is one row of betas, so
layers that share it count once. Layers without a choice use the exact multiplier: the period is
never below its.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cosearch.layer_use import LayerShares

from .costed import CostedSpace

__all__ = ["LatencyMeasure", "latency_ms"]

SMALLEST = 1e-30  # in place of 0, whose logarithm has no gradient


@dataclass(frozen=True, eq=False)
class LatencyMeasure:
    """clocks (L,); periods_ps (M,), the clock's period if that candidate is the slowest, with
    `order` from the slowest on, least_ps if none is used; reference_ms: at uniform alphas with the
    exact multiplier.
    """

    clocks: Tensor
    periods_ps: Tensor
    order: Tensor
    least_ps: float
    reference_ms: float

    @classmethod
    def of(cls, space: CostedSpace) -> "LatencyMeasure":
        array, clocks = space.array, space.clocks()
        exact = array.period_ps(space.exact.delay_ps)
        periods = [array.period_ps(one.delay_ps) for one in space.candidates]
        least = exact if any(space.use.exact) else min(periods)
        periods_ps = torch.tensor(periods, device=clocks.device).clamp(min=least)
        reference = latency_ms(float((space.use.uniform * clocks).sum()), exact)
        order = periods_ps.argsort(descending=True)
        return cls(clocks, periods_ps, order, least, reference)

    def relative(self, shares: LayerShares) -> Tensor:
        return self.expected_ms(shares) / self.reference_ms

    def expected_ms(self, shares: LayerShares) -> Tensor:
        """Expected latency of one inference in ms, a scalar."""
        return (shares.operations * self.clocks).sum() * self.expected_period_ps(shares) * 1e-9

    def expected_period_ps(self, shares: LayerShares) -> Tensor:
        """Expected period of the clock in ps, a scalar."""
        unused = (1 - shares.uses).clamp(min=SMALLEST).log().sum(0)[self.order]
        none_slower = torch.cat([torch.zeros_like(unused[:1]), unused.cumsum(0)]).exp()
        periods = self.periods_ps[self.order]
        falls = none_slower[:-1] - none_slower[1:]
        return (falls * periods).sum() + none_slower[-1] * self.least_ps


def latency_ms(clocks: float, period_ps: float) -> float:
    """So many clocks of that period."""
    return clocks * period_ps * 1e-9
