"""Samplers of Optuna whose whole state is the study's journal, so that a study goes on as if it had
never been interrupted, and nothing has to be unpickled.

Each trial draws from generators of its own, seeded by the study's seed and the trial's rank: the
lowest number that no trial has, failed ones aside. A trial that is lost has failed; its successor
has its rank and draws the same.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

__all__ = ["JournalledSampler", "enqueue_next", "nsga2_sampler", "random_sampler"]

RANK = "rank"


class OrderedNSGAII(NSGAIISampler):
    """NSGA-II (Deb, Pratap, Agarwal, Meyarivan, IEEE TEC 6(2), 2002), its parents in the order of
    their trials: the order in which Optuna reads them from the storage, too.
    """

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)


class JournalledSampler(BaseSampler):
    """Draws as `make(seed)` does, from a seed for each rank; what that leaves open, uniformly."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._relative, self._independent = make(0), RandomSampler(seed=0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        rank = trial.user_attrs.get(RANK)
        # Without one where two workers asked at once; then its number will do.
        stream = [1, trial.number] if rank is None else [0, int(rank)]
        one, two = np.random.SeedSequence([self._seed, *stream]).generate_state(2)
        self._relative, self._independent = self._make(int(one)), RandomSampler(seed=int(two))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def enqueue_next(study: Study) -> None:
    """Make ready the trial that `study.ask` is to give, with its rank, unless one is ready."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.FAIL]
    if not any(trial.state == TrialState.WAITING for trial in trials):
        taken = {trial.user_attrs.get(RANK) for trial in trials}
        rank = next(number for number in count() if number not in taken)
        study.enqueue_trial({}, user_attrs={RANK: rank})


def random_sampler(seed: int, population: int) -> BaseSampler:
    """Every choice uniformly."""
    return JournalledSampler(lambda drawn: RandomSampler(seed=drawn), seed)


def nsga2_sampler(seed: int, population: int) -> BaseSampler:
    """Uniform crossover with probability 0.9; one choice in all is mutated on average."""
    return JournalledSampler(
        lambda drawn: OrderedNSGAII(population_size=population, seed=drawn), seed
    )
