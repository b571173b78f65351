"""Random search and NSGA-II: interrupted anywhere they judge the same genotypes, workers share a
journal, and nothing is judged twice.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from cosearch.genotype import Genotype
from cosearch.sweep import baselines
from cosearch.sweep.assessment import Assessment
from cosearch.sweep.baselines import Baseline, worker_number
from cosearch.sweep.records import Evaluation
from cosearch.task import Task
from hw.errors import InputError

from .sweep_example import small_task

IMAGES = 48  # of one genotype's epoch


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    return small_task(tmp_path / "sweep", monkeypatch)


def pretended(task: Task, genotype: Genotype, epochs: int) -> Assessment:
    """Figures that follow from the genotype at once."""
    number = int(genotype.digest[:8], 16)
    return Assessment(number % 97 / 97, number % 89 + 1.0, number % 7 + 1, IMAGES * epochs, 0.5)


class Interrupted:
    """Judges as `pretended`, but is interrupted the first time at each of some numbers."""

    def __init__(self, numbers: set[int]) -> None:
        self.numbers, self.count = set(numbers), 0

    def __call__(self, task: Task, genotype: Genotype, epochs: int) -> Assessment:
        if self.count in self.numbers:
            self.numbers.remove(self.count)
            raise KeyboardInterrupt
        self.count += 1
        return pretended(task, genotype, epochs)


@contextlib.contextmanager
def worker(task: Task, folder: Path, method: str, evaluations: int = 6) -> Iterator[Baseline]:
    locks = folder / "locks" / "worker"
    with worker_number(locks) as number:
        yield Baseline(
            task,
            method,
            folder / "journal.jsonl",
            locks,
            worker=number,
            epochs=1,
            budget_images=evaluations * IMAGES + 1,
            population=3,
        )


def straight(task: Task, folder: Path, method: str) -> list[Evaluation]:
    with worker(task, folder, method) as baseline:
        judged = list(baseline.judged())
        assert baseline.finished
        assert judged == baseline.complete()
    return judged


@pytest.mark.parametrize("method", ["random", "nsga2"])
@pytest.mark.parametrize("numbers", [{0, 3}, set(range(6))])
def test_an_interrupted_baseline_ends_as_one_that_was_not(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, numbers: set[int]
) -> None:
    monkeypatch.setattr(baselines, "assess", pretended)
    expected = straight(task, tmp_path / "straight", method)
    judge = Interrupted(numbers)
    monkeypatch.setattr(baselines, "assess", judge)
    for _ in range(len(numbers)):
        with (
            pytest.raises(KeyboardInterrupt),
            worker(task, tmp_path / "resumed", method) as baseline,
        ):
            list(baseline.judged())
    with worker(task, tmp_path / "resumed", method) as baseline:
        list(baseline.judged())
        assert baseline.complete() == expected


def test_seeds_and_methods_differ(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "assess", pretended)
    one = straight(task, tmp_path / "one", "random")
    genetic = straight(task, tmp_path / "two", "nsga2")
    # The first generation of NSGA-II is drawn uniformly, by the same seeds.
    assert one[:3] == genetic[:3]
    assert one[3:] != genetic[3:]
    assert len({evaluation.genotype for evaluation in one}) > 4


def test_what_was_judged_before_costs_nothing(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def judge(task: Task, genotype: Genotype, epochs: int) -> Assessment:
        calls.append(genotype.digest)
        return pretended(task, genotype, epochs)

    monkeypatch.setattr(baselines, "assess", judge)
    monkeypatch.setattr(baselines, "DRAWS_PER_EVALUATION", 3)
    with worker(task, tmp_path, "random", 4) as baseline:
        # Two genotypes in all: the other choices have one alternative.
        first = next(iter(baseline.distributions))
        for name, distribution in list(baseline.distributions.items()):
            if name != first:
                kept = type(distribution)((0,))  # type: ignore[call-arg]
                baseline.distributions[name] = kept
        judged = list(baseline.judged())
    assert len(judged) == 3 * 4 and len(calls) == len(set(calls)) <= 3
    assert sum(evaluation.assessment.images for evaluation in judged) == len(calls) * IMAGES


def test_two_workers_share_one_budget(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "assess", pretended)
    with worker(task, tmp_path, "nsga2") as one, worker(task, tmp_path, "nsga2") as two:
        assert (one.worker, two.worker) == (0, 1)
        turns = [one.judged(), two.judged()]
        for turn in range(5):
            next(turns[turn % 2])
        for rest in turns:
            list(rest)
        assert one.complete() == two.complete()
        assert len(one.complete()) == 6
        assert one.finished and two.finished


def test_a_worker_whose_trial_another_took_draws_its_own(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "assess", pretended)
    monkeypatch.setattr(baselines, "enqueue_next", lambda study: None)
    judged = straight(task, tmp_path, "nsga2")
    assert len({evaluation.genotype for evaluation in judged}) > 4


def test_a_trial_in_hand_is_waited_for_and_an_abandoned_one_is_drawn_again(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "assess", Interrupted({0}))
    with worker(task, tmp_path, "random", 2) as one:
        with worker(task, tmp_path, "random", 2) as two:
            with pytest.raises(KeyboardInterrupt):
                list(two.judged())
            # The lock of `two` is held: its trial may yet end, and it is of the budget.
            assert len(list(one.judged())) == 1
            assert not one.finished
        assert len(list(one.judged())) == 1
        assert one.finished


def test_a_line_that_was_not_written_whole_is_dropped(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "assess", pretended)
    expected = straight(task, tmp_path / "straight", "nsga2")
    folder = tmp_path / "torn"
    with worker(task, folder, "nsga2") as baseline:
        judged = baseline.judged()
        for _ in range(4):
            next(judged)
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"op_code":4,"wor')
    with worker(task, folder, "nsga2") as baseline:
        list(baseline.judged())
        assert baseline.complete() == expected


def test_a_corrupt_journal_is_refused(task: Task, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b"\x80\x04nonsense\n{}\n")
    with (
        pytest.raises(InputError, match="must be a journal of Optuna, not corrupt"),
        worker(task, tmp_path, "random"),
    ):
        pass
