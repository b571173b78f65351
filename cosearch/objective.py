"""What the search minimises: cross-entropy + weighted terms, each relative to the exact int8
network.

The terms (energy, latency) are plug-ins of ``cosearch.terms``: each has a weight, or a budget that
is kept by a Lagrangian multiplier.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from cosearch.layer_use import LayerUse
from cosearch.supernet import Supernet
from cosearch.terms import Term
from hw.errors import unknown_name

__all__ = ["Objective", "beta_decay"]


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of alphas and betas; weights see the cross-entropy alone."""

    use: LayerUse
    terms: tuple[Term, ...]
    beta_decay: float = 0.0

    def __call__(self, supernet: Supernet, logits: Tensor, labels: Tensor) -> Tensor:
        loss = functional.cross_entropy(logits, labels)
        if self.terms:
            shares = self.use(supernet.all_choices())
            loss = loss + torch.stack([term(shares) for term in self.terms]).sum().to(loss.dtype)
        return loss + self.beta_decay * beta_decay(supernet) if self.beta_decay else loss

    @torch.no_grad()
    def ascended(self, supernet: Supernet) -> "Objective":
        """With the budgets' multipliers moved by the measures as they are now."""
        if all(term.budget is None for term in self.terms):
            return self
        shares = self.use(supernet.all_choices())
        return replace(self, terms=tuple(term.ascended(shares) for term in self.terms))

    def term(self, name: str) -> Term:
        """The term of that name."""
        by_name = {term.name: term for term in self.terms}
        if name not in by_name:
            raise unknown_name("term", name, by_name)
        return by_name[name]

    @property
    def multipliers(self) -> dict[str, float]:
        """Of the budgets, by the names of their terms."""
        return {term.name: term.multiplier for term in self.terms if term.budget is not None}

    def with_multipliers(self, multipliers: dict[str, float]) -> "Objective":
        """KeyError where a budget has none."""
        terms = [
            term if term.budget is None else term.with_multiplier(float(multipliers[term.name]))
            for term in self.terms
        ]
        return replace(self, terms=tuple(terms))


def beta_decay(supernet: Supernet) -> Tensor:
    """Mean over all edges of the logsumexp of alphas, a scalar (Ye et al., CVPR 2022, Eq. 12)."""
    return torch.cat([alphas.logsumexp(-1) for alphas in supernet.alphas.values()]).mean()
