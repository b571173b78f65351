"""Terms of the objective beside the cross-entropy: one file each, and their registry.

A new term is a file with a measure and one line here; its weight and budget are settings.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cosearch.config import Search

from .costed import CostedSpace as CostedSpace
from .costed import MultiplierFigures as MultiplierFigures
from .energy import EnergyMeasure as EnergyMeasure
from .latency import LatencyMeasure as LatencyMeasure
from .term import Budget as Budget
from .term import Measure as Measure
from .term import Term as Term

__all__ = ["TERMS", "TermKind", "terms_of"]


@dataclass(frozen=True)
class TermKind:
    """How a term is made, and which settings are its weight and its budget (0: none)."""

    measure: Callable[[CostedSpace, Search], Measure]
    weight: Callable[[Search], float]
    budget: Callable[[Search], float]


TERMS: dict[str, TermKind] = {
    "energy": TermKind(
        lambda space, settings: EnergyMeasure.of(space, settings.energy_lines),
        lambda settings: settings.energy_weight,
        lambda settings: settings.energy_budget,
    ),
    "latency": TermKind(
        lambda space, settings: LatencyMeasure.of(space),
        lambda settings: settings.latency_weight,
        lambda settings: settings.latency_budget,
    ),
}


def terms_of(space: CostedSpace, settings: Search) -> tuple[Term, ...]:
    """Those that the settings ask for; a budget's multiplier begins at the weight."""
    found = []
    for name, kind in TERMS.items():
        weight, limit = kind.weight(settings), kind.budget(settings)
        device = space.use.operations.device
        budget = Budget.of(limit, settings.budget_rate, weight, device) if limit else None
        if weight or budget:
            found.append(Term(name, kind.measure(space, settings), weight, budget))
    return tuple(found)
