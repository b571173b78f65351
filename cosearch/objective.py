"""What the search minimises: cross-entropy + weighted terms, each relative to the exact int8
network.

The terms (energy, latency) are plug-ins of ``cosearch.terms``: each has a weight, or a budget that
is kept by a Lagrangian multiplier.
"""

from dataclasses import dataclass

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
    """The loss of alphas and betas; weights see the cross-entropy alone.

    decay: the weight of beta-decay, a scalar that moves in place; None: off.
    """

    use: LayerUse
    terms: tuple[Term, ...]
    decay: Tensor | None = None

    def __call__(self, supernet: Supernet, logits: Tensor, labels: Tensor) -> Tensor:
        loss = functional.cross_entropy(logits, labels)
        if self.terms:
            shares = self.use(supernet.all_choices())
            loss = loss + torch.stack([term(shares) for term in self.terms]).sum().to(loss.dtype)
        return loss if self.decay is None else loss + self.decay * beta_decay(supernet)

    @torch.no_grad()
    def ascend(self, supernet: Supernet) -> None:
        """Move the budgets' multipliers by the measures as they are now."""
        bound = [term for term in self.terms if term.budget is not None]
        shares = self.use(supernet.all_choices()) if bound else None
        for term in bound:
            assert term.budget is not None and shares is not None
            term.budget.ascend(term.measure.relative(shares))

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

    def set_multipliers(self, multipliers: dict[str, float]) -> None:
        """Of all budgets; KeyError where one has none."""
        for term in self.terms:
            if term.budget is not None:
                term.budget.multiplier.fill_(float(multipliers[term.name]))


def beta_decay(supernet: Supernet) -> Tensor:
    """Mean over all edges of the logsumexp of alphas, a scalar (Ye et al., CVPR 2022, Eq. 12)."""
    return torch.cat([supernet.alpha_logits(kind).logsumexp(-1) for kind in supernet.alphas]).mean()
