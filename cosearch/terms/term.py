"""A term of the objective: a measure relative to the exact int8 network, with a weight or a budget.

With a budget B for the relative measure e, weight · e gives way to an augmented Lagrangian (Nocedal
and Wright, Numerical Optimization, section 17.4): ``(max(0, mu + r (e - B))^2 - mu^2) / (2 r)``,
whose slope is ``max(0, mu + r (e - B))``; after each step that slope is the new multiplier mu.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cosearch.layer_use import LayerShares

__all__ = ["Budget", "Measure", "Term"]


class Measure(Protocol):
    """Something of a network that can be expected of a supernet's shares."""

    def relative(self, shares: LayerShares) -> Tensor:
        """Divided by that of the same supernet at uniform alphas with the exact multiplier; a
        scalar, differentiable in the shares.
        """
        ...


@dataclass(frozen=True, eq=False)
class Budget:
    """At most `limit` of the exact network's; `rate` is r, `multiplier` mu >= 0, float32, a scalar
    where the measure is: it moves in place, so that a step may be a CUDA graph.
    """

    limit: float
    rate: float
    multiplier: Tensor

    @classmethod
    def of(
        cls, limit: float, rate: float, multiplier: float = 0.0, device: torch.device | None = None
    ) -> "Budget":
        return cls(limit, rate, torch.tensor(multiplier, dtype=torch.float32, device=device))

    def term(self, relative: Tensor) -> Tensor:
        """What it adds to the loss; zero or less within the limit."""
        slope = (self.multiplier + self.rate * (relative - self.limit)).clamp(min=0.0)
        return (slope**2 - self.multiplier**2) / (2 * self.rate)

    @torch.no_grad()
    def ascend(self, relative: Tensor) -> None:
        """Move the multiplier by the measure as it is now."""
        moved = self.multiplier + self.rate * (relative - self.limit)
        self.multiplier.copy_(moved.clamp(min=0.0))


@dataclass(frozen=True, eq=False)
class Term:
    """`weight` · measure, or what keeps the measure within `budget`."""

    name: str
    measure: Measure
    weight: float = 0.0
    budget: Budget | None = None

    def __call__(self, shares: LayerShares) -> Tensor:
        relative = self.measure.relative(shares)
        return self.weight * relative if self.budget is None else self.budget.term(relative)

    @property
    def multiplier(self) -> float:
        """The weight: fixed, or what the budget has made of it."""
        return self.weight if self.budget is None else float(self.budget.multiplier)
