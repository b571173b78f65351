"""What a refinement decides: one of M multipliers for each of L layers of a trained network."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from cosearch.assignment import Assignment, inner_layers
from cosearch.binary_program import Constraint, best_choice, exactly, one_of_each
from cosearch.genotype import MultiplierChoice
from cosearch.passes import undisturbed
from cosearch.strategies import Batch
from hw.errors import InputError
from lut import LUT, Candidates

__all__ = ["Indices", "Measured", "Problem", "re_estimated"]

Indices = NDArray[np.int64]  # (L,): which multiplier each layer has


@dataclass(frozen=True)
class Measured:
    """Mean cross-entropy and share of right images."""

    loss: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Problem:
    """`network` in eval mode with its trained weights and, `found` (L,), its multipliers.

    macs (L,) and fixed_macs (stem and classifier, whose multipliers stay): multiplications of one
    inference; fixed_fj: energy of the latter; energies_fj (M,) of one multiplication, the exact
    multiplier's first. Losses are those on
    `images`, after batch norms have been re-estimated on `statistics` where there are any.
    `budget`: largest relative energy; `key`: says what measurements depend on. `allowed` (L, M):
    which multipliers a layer may have, None: any.
    """

    network: nn.Module
    layers: tuple[str, ...]
    luts: tuple[LUT, ...]
    found: Indices
    macs: Indices
    fixed_macs: int
    fixed_fj: float
    energies_fj: NDArray[np.float64]
    images: Sequence[Batch]
    statistics: Sequence[Batch]
    candidates: Candidates
    budget: float
    key: str
    allowed: NDArray[np.bool_] | None = None

    @property
    def options(self) -> NDArray[np.bool_]:
        """Which multipliers a layer may have, (L, M)."""
        shape = (len(self.layers), len(self.energies_fj))
        return np.ones(shape, np.bool_) if self.allowed is None else self.allowed

    def relative_energy(self, chosen: Indices) -> float:
        """Energy of all multiplications relative to that with the exact multiplier everywhere."""
        inside = float((self.macs * self.energies_fj[chosen]).sum())
        return (self.fixed_fj + inside) / self.exact_fj

    @property
    def exact_fj(self) -> float:
        """Energy of one inference with the exact multiplier everywhere."""
        return float(self.energies_fj[0]) * (self.fixed_macs + int(self.macs.sum()))

    @property
    def least_energy(self) -> float:
        """What no assignment can be below."""
        energies = np.where(self.options, self.energies_fj, np.inf)
        return self.relative_energy(energies.argmin(1))

    def best_within_budget(self, scores: NDArray[np.float64]) -> Indices:
        """The assignment of the highest sum of scores (L, M) that keeps the budget.

        A multiple-choice knapsack: one multiplier a layer. InputError where none keeps the budget.
        """
        layers, multipliers = scores.shape
        costs = self.macs[:, None] * self.energies_fj
        limit = self.budget - self.fixed_fj / self.exact_fj
        groups = np.repeat(np.arange(layers), multipliers).tolist()

        def kept(choice: NDArray[np.bool_]) -> bool:
            return self.relative_energy(_indices(choice, multipliers)) <= self.budget

        choice = best_choice(
            scores.ravel(),
            [
                *one_of_each(groups),
                exactly(0, ~self.options.ravel()),
                Constraint(costs.ravel() / self.exact_fj, limit),
            ],
            kept,
        )
        if choice is None:
            raise self.out_of_reach
        return _indices(choice, multipliers)

    @property
    def out_of_reach(self) -> InputError:
        """What a budget below `least_energy` gives."""
        least = math.ceil(self.least_energy * 1e4) / 1e4
        return InputError(
            f"--energy-budget must be at least {least}, what the network needs with its cheapest "
            f"multipliers, not {self.budget}"
        )

    def assignment(self, genotype: str, chosen: Indices) -> Assignment:
        """What `chosen` says, by name and digest."""
        luts = [self.luts[index] for index in chosen]
        named = [MultiplierChoice(lut.name, lut.digest) for lut in luts]
        return Assignment(genotype, dict(zip(self.layers, named, strict=True)))

    @torch.no_grad()
    def measured(self, chosen: Indices) -> Measured:
        """The network with these multipliers; afterwards it is as it was."""
        with self._with(chosen), re_estimated(self.network, self.statistics):
            loss, right, count = 0.0, 0, 0
            for batch in self.images:
                logits = self.network(batch.images).double()
                loss += float(functional.cross_entropy(logits, batch.labels, reduction="sum"))
                right += int((logits.argmax(1) == batch.labels).sum())
                count += len(batch.labels)
        return Measured(loss / count, right / count)

    @contextlib.contextmanager
    def _with(self, chosen: Indices) -> Iterator[None]:
        layers = inner_layers(self.network)
        before = {path: layers[path].candidates for path in self.layers}
        gradient = self.candidates.gradient
        alone = [Candidates([lut], gradient=gradient) for lut in self.luts]
        for path, index in zip(self.layers, chosen, strict=True):
            layers[path].candidates = alone[index]
        try:
            yield
        finally:
            for path, candidates in before.items():
                layers[path].candidates = candidates


@contextlib.contextmanager
def re_estimated(network: nn.Module, statistics: Sequence[Batch]) -> Iterator[None]:
    """Inside, batch norms have the statistics of these images (those they had where there are
    none); afterwards the network is as it was.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    with undisturbed(network):
        if statistics:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean of all batches
                norm.train()
            for batch in statistics:
                network(batch.images)
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
        yield


def _indices(choice: NDArray[np.bool_], multipliers: int) -> Indices:
    indices: Indices = choice.reshape(-1, multipliers).argmax(1)
    return indices
