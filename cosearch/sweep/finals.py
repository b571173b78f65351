"""The final front of a method: the best networks that it judged, each trained in full and tested.

The same for every method: as many networks, the training of `cosearch train` on training
and validation images together, and the test images on the exported integer network.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from cosearch.evaluation import integer_network
from cosearch.genotype import Genotype
from cosearch.metrics import read_metrics
from cosearch.pareto import best_subset
from cosearch.progress import Progress
from cosearch.sweep.assessment import (
    Assessment,
    Limits,
    epoch_images,
    inference_energy_nj,
    parameter_count,
)
from cosearch.sweep.folder import SweepFolder, claimed
from cosearch.sweep.records import Evaluation, read_evaluations
from cosearch.task import Task
from cosearch.training import Training
from hw.errors import InputError
from hw.files import read_json, write_json

__all__ = ["Final", "chosen", "evaluations_of", "is_done", "read_final", "train_final"]


@dataclass(frozen=True)
class Final:
    """A genotype to be trained in full with one seed; methods that found the same share it."""

    genotype: Genotype
    seed: int

    @property
    def name(self) -> str:
        return self.genotype.digest[:16]


def evaluations_of(sweep: SweepFolder, method: str, seed: int) -> list[Evaluation]:
    """All that the members of a method judged from one seed, in order."""
    members = sweep.plan.members_of(method, seed)
    return [one for member in members for one in read_evaluations(sweep.evaluations(member))]


def chosen(sweep: SweepFolder, method: str, seed: int, limits: Limits) -> list[Final]:
    """Of what was judged, by error and energy, those of most hypervolume, front by front."""
    distinct = {one.genotype: one.assessment for one in evaluations_of(sweep, method, seed)}
    found = list(distinct)
    points = [limits.relative(assessment.objectives)[:2] for assessment in distinct.values()]
    return [
        Final(found[index], seed) for index in best_subset(points, (1.0, 1.0), sweep.plan.finals)
    ]


def train_final(sweep: SweepFolder, final: Final, progress: Progress) -> bool:
    """Train and test unless that was done or another process does; whether it is done now."""
    torch.set_num_threads(sweep.config.threads)
    path = _result(sweep, final)
    with claimed(sweep.path / "locks" / f"final-{path.parent.name}") as mine:
        if mine and not path.exists():
            write_json(path, _trained(sweep, final, progress).to_json())
    return path.exists()


def is_done(sweep: SweepFolder, final: Final) -> bool:
    """Whether it is trained and tested."""
    return _result(sweep, final).exists()


def read_final(sweep: SweepFolder, final: Final) -> Assessment:
    """Accuracy on the test images; images and seconds are those of the training."""
    path = _result(sweep, final)
    try:
        return Assessment.from_json(read_json(path))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} must be the figures of a network, not lack {error}") from None


def _trained(sweep: SweepFolder, final: Final, progress: Progress) -> Assessment:
    run = sweep.final(final.name, final.seed)
    write_json(run.genotype, final.genotype.to_json())
    task = Task.of(run)
    training = Training("approximate", task, final.genotype)
    training.run(run, progress)
    integer = integer_network("approximate", task, final.genotype, run)
    test = task.data.splits["test"]
    right = int((integer(test.images).argmax(1) == test.labels).sum())
    return Assessment(
        right / len(test),
        inference_energy_nj(training.network, task),
        parameter_count(training.network),
        task.config.train.epochs * epoch_images(training.images, task.config.train.batch_size),
        _seconds(run.train_metrics),
    )


def _seconds(metrics: Path) -> float:
    return sum(float(row["seconds"]) for row in read_metrics(metrics))


def _result(sweep: SweepFolder, final: Final) -> Path:
    return sweep.path / "finals" / f"{final.name}-seed{final.seed}" / "final.json"
