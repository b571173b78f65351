"""Betas of a trained network's layers: operations and weights at rest, only multipliers move.

Every layer mixes all candidates by a softmax of its own betas, which follow the cross-entropy and
the energy by Adam; the budget is kept on average by an augmented Lagrangian
and exactly by the choice that follows. The softmax's temperature falls pass by pass, so that the
mixtures end near single multipliers, and their energy near that of the choice.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cosearch.assignment import inner_layers
from cosearch.passes import frozen, undisturbed
from cosearch.progress import Progress
from cosearch.strategies import Batch
from cosearch.terms.term import Budget

from .problem import Problem

__all__ = ["beta_scores", "mixed_layers"]

PASSES = 12  # over the images
LEARNING_RATE = 0.05
BUDGET_RATE = 0.1
TEMPERATURE, TEMPERATURE_END = 1.0, 0.1


def beta_scores(problem: Problem, folder: Path, progress: Progress) -> NDArray[np.float64]:
    """Logarithms of the shares at a temperature of 1, (L, M), after `PASSES` over the images; 0
    for what a layer may not have, whose share is 0.
    """
    device = problem.images[0].images.device
    shape = (len(problem.layers), len(problem.luts))
    betas = nn.Parameter(torch.zeros(shape, device=device))
    optimiser = torch.optim.Adam([betas], LEARNING_RATE, betas=(0.5, 0.999))
    energy = _relative_energy(problem, device)
    budget = Budget.of(problem.budget, BUDGET_RATE, device=device)
    temperature = TEMPERATURE
    forbidden = torch.from_numpy(~problem.options).to(device)

    def shares() -> Tensor:
        return (betas / temperature).masked_fill(forbidden, -torch.inf).softmax(-1)

    with (
        undisturbed(problem.network),
        frozen(list(problem.network.parameters())),
        mixed_layers(problem, shares),
    ):
        for number in progress.track(range(PASSES), "passes"):
            fall = (TEMPERATURE_END / TEMPERATURE) ** (number / (PASSES - 1))
            temperature = TEMPERATURE * fall
            for batch in problem.images:
                loss = _loss(problem, batch) + budget.term(energy(shares()))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                with torch.no_grad():
                    budget.ascend(energy(shares()))
    among = betas.detach().double().masked_fill(forbidden, -torch.inf).log_softmax(-1)
    return np.asarray(among.masked_fill(forbidden, 0.0).cpu().numpy())


@contextlib.contextmanager
def mixed_layers(problem: Problem, shares: Callable[[], Tensor]) -> Iterator[None]:
    """Inside, layer l of the network mixes the candidates by ``shares()[l]``, (L, M) in all, and
    batch norms use the batch's own statistics where the problem has images for them.
    """
    layers = inner_layers(problem.network)
    norms = [module for module in problem.network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = {path: layers[path].candidates for path in problem.layers}
    handles = []
    for number, path in enumerate(problem.layers):
        layers[path].candidates = problem.candidates
        handles.append(layers[path].register_forward_pre_hook(_mixing(number, shares)))
    try:
        for norm in norms:
            norm.train(bool(problem.statistics))
        yield
    finally:
        problem.network.eval()
        for handle in handles:
            handle.remove()
        for path, candidates in before.items():
            layers[path].candidates = candidates


def _mixing(
    number: int, shares: Callable[[], Tensor]
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return arguments[0], shares()[number]

    return hook


def _loss(problem: Problem, batch: Batch) -> Tensor:
    return functional.cross_entropy(problem.network(batch.images), batch.labels)


def _relative_energy(problem: Problem, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Expected relative energy of shares (L, M), a scalar."""
    costs = problem.macs[:, None] * problem.energies_fj / problem.exact_fj
    each = torch.from_numpy(costs).to(device, torch.float32)
    fixed = problem.fixed_fj / problem.exact_fj
    return lambda shares: (shares * each).sum() + fixed
