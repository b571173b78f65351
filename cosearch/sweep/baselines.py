"""Random search and NSGA-II over the genotypes of the search, through Optuna.

NSGA-II over operations and multipliers, each genotype trained from scratch for few epochs, is what
EvoApproxNAS does (Piňos, Mrázek, Sekanina, Genetic Programming and Evolvable Machines 23, 2022).
Minimised:
error, energy and parameters.

Several workers, on several machines with one file system, share a journal. Each holds the lock of
its number; a trial whose worker's lock is free has been abandoned, counts as failed and is drawn
again.
"""

import contextlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from cosearch.genotype import Genotype
from cosearch.sweep.assessment import Assessment, assess, epoch_images
from cosearch.sweep.encoding import Encoding
from cosearch.sweep.folder import claimed
from cosearch.sweep.records import Evaluation
from cosearch.sweep.sampling import enqueue_next, nsga2_sampler, random_sampler
from cosearch.task import Task
from hw.errors import InputError

__all__ = ["Baseline", "worker_number"]

STUDY = "genotypes"
DRAWS_PER_EVALUATION = 20  # genotypes that were judged before cost nothing; there is an end to it
SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "random": random_sampler,
    "nsga2": nsga2_sampler,
}


class Baseline:
    """One worker of a baseline: asks for genotypes and judges them until the images are used up.

    `journal` is the study's file; `locks` the path of the workers' locks, less their numbers.
    """

    def __init__(
        self,
        task: Task,
        method: str,
        journal: Path,
        locks: Path,
        *,
        worker: int,
        epochs: int,
        budget_images: int,
        population: int,
    ) -> None:
        self.task, self.epochs, self.worker, self.locks = task, epochs, worker, locks
        size, split = task.config.train.batch_size, task.data.splits["train"]
        self.images_each = epochs * epoch_images(split, size)
        self.evaluations = budget_images // self.images_each
        self.encoding = Encoding.of(task)
        self.distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(tuple(range(alternatives)))
            for name, alternatives in self.encoding.alternatives.items()
        }
        if self._is_alone():
            _mend(journal)
        self.study = _study(journal, SAMPLERS[method](task.config.seed, population))

    def judged(self) -> Iterator[Evaluation]:
        """Judge genotype by genotype until the images are used up by all workers together."""
        self._fail_abandoned()
        while self._has_budget():
            yield self._judge_next()
            self._fail_abandoned()

    @property
    def finished(self) -> bool:
        """Whether the images are used up and no other worker is at its last genotype."""
        return not self._has_budget() and not self._trials(TrialState.RUNNING)

    def complete(self) -> list[Evaluation]:
        """What all workers have judged, in order of time."""
        trials = self._trials(TrialState.COMPLETE)
        return [self._evaluation(trial) for trial in sorted(trials, key=_time)]

    def _judge_next(self) -> Evaluation:
        enqueue_next(self.study)
        trial = self.study.ask(self.distributions)
        trial.set_user_attr("worker", self.worker)
        genotype = self.encoding.genotype(trial.params)
        assessment = self._known(genotype) or assess(self.task, genotype, self.epochs)
        trial.set_user_attr("assessment", assessment.to_json())
        self.study.tell(trial, assessment.objectives)
        return Evaluation(genotype, assessment)

    def _known(self, genotype: Genotype) -> Assessment | None:
        """What an earlier trial says of the same genotype, for nothing."""
        for trial in self._trials(TrialState.COMPLETE):
            known = self._evaluation(trial)
            if known.genotype == genotype:
                found = known.assessment
                return Assessment(found.accuracy, found.energy_nj, found.parameters, 0, 0.0)
        return None

    def _evaluation(self, trial: FrozenTrial) -> Evaluation:
        assessment = Assessment.from_json(trial.user_attrs["assessment"])
        return Evaluation(self.encoding.genotype(trial.params), assessment)

    def _has_budget(self) -> bool:
        complete = self._trials(TrialState.COMPLETE)
        paid = sum(trial.user_attrs["assessment"]["images"] > 0 for trial in complete)
        paid += len(self._trials(TrialState.RUNNING))
        return paid < self.evaluations and len(complete) < DRAWS_PER_EVALUATION * self.evaluations

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(state,))

    def _fail_abandoned(self) -> None:
        """Trials whose worker is gone have failed. This worker has none of its own now."""
        for trial in self._trials(TrialState.RUNNING):
            worker = trial.user_attrs.get("worker")
            if self._is_alone() if worker is None else self._is_free(worker):
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _is_free(self, worker: int) -> bool:
        if worker == self.worker:
            return True
        with claimed(_lock(self.locks, worker)) as free:
            return free

    def _is_alone(self) -> bool:
        locks = self.locks.parent.glob(f"{self.locks.name}-*")
        return all(self._is_free(int(lock.name.rpartition("-")[2])) for lock in locks)


@contextlib.contextmanager
def worker_number(locks: Path) -> Iterator[int]:
    """The lowest number that no worker has, and its lock."""
    for number in count():
        with claimed(_lock(locks, number)) as mine:
            if mine:
                yield number
                return


def _lock(locks: Path, number: int) -> Path:
    return locks.with_name(f"{locks.name}-{number}")


def _time(trial: FrozenTrial) -> tuple[float, int]:
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp(), trial.number


def _study(journal: Path, sampler: BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        # An absolute path: the backend's lock is a link to it.
        storage = JournalStorage(JournalFileBackend(str(journal.resolve())))
        return optuna.create_study(
            storage=storage,
            sampler=sampler,
            study_name=STUDY,
            directions=["minimize"] * 3,
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError) as error:  # of bytes that are no journal
        raise InputError(f"{journal} must be a journal of Optuna, not corrupt ({error})") from None


def _mend(journal: Path) -> None:
    """Drop a last line that was not written whole."""
    data = journal.read_bytes() if journal.exists() else b""
    if not data.endswith(b"\n") and data:
        with journal.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
