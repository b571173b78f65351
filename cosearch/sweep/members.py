"""The work of one member of a sweep: a search and the judgement of what it found, or a baseline."""

import importlib.util
from dataclasses import replace

import torch

from cosearch.config import NOISE, Space
from cosearch.metrics import read_metrics
from cosearch.pipeline import run_stage
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.sweep.assessment import Assessment, assess, epoch_images, search_images
from cosearch.sweep.folder import SweepFolder, claimed
from cosearch.sweep.plan import BASELINES, Member, Plan
from cosearch.sweep.records import Evaluation, read_evaluations, write_evaluations
from cosearch.sweep.selections import found_genotypes
from cosearch.task import Task
from hw.errors import InputError

__all__ = ["baseline_images", "check_baselines", "check_budget", "check_space", "work_on"]


def work_on(sweep: SweepFolder, member: Member, progress: Progress, *, join: bool) -> bool:
    """Work on `member` unless another process does; whether it is finished now.

    join: work on a baseline together with the process that has it.
    """
    torch.set_num_threads(sweep.config.threads)
    if join and member.is_baseline and not sweep.finished(member):
        _work_on_baseline(sweep, member, progress)
        return sweep.finished(member)
    with claimed(sweep.lock(member)) as mine:
        if not mine:
            return False
        if not sweep.finished(member):
            work = _work_on_baseline if member.is_baseline else _work_on_search
            work(sweep, member, progress)
    return sweep.finished(member)


def baseline_images(plan: Plan, task: Task) -> int:
    """The budget of a baseline member: as given, or what one strategy sees with all weights."""
    if plan.budget_images:
        return plan.budget_images
    search = search_images(task, task.config.search.epochs)
    judgements = (plan.selections + plan.dearer) * _judgement_images(task, plan.epochs)
    return len(plan.weights) * (search + judgements)


def check_baselines(plan: Plan) -> None:
    """InputError where the plan has baselines and Optuna is missing."""
    asked = [method for method in plan.methods if method in BASELINES]
    if asked and importlib.util.find_spec("optuna") is None:
        raise InputError(
            f"methods must not hold {', '.join(asked)} where Optuna is not installed; "
            "install cosearch[baselines], or optuna"
        )


def check_space(space: Space) -> None:
    """InputError where a sweep cannot compare what may be found in a space."""
    if NOISE in space.operations:
        raise InputError(
            f"space.operations must hold operations that hardware has in a sweep, not {NOISE!r}"
        )
    if space.by_edge:
        raise InputError(
            "space.by_edge must be empty in a sweep, whose baselines choose among the same "
            f"operations on every edge, not have {len(space.by_edge)} entries"
        )


def check_budget(plan: Plan, task: Task) -> None:
    """InputError where a baseline's images do not suffice for one genotype."""
    budget, each = baseline_images(plan, task), _judgement_images(task, plan.epochs)
    if budget < each and any(method in BASELINES for method in plan.methods):
        raise InputError(
            f"budget images must be at least {each}, those of one genotype's {plan.epochs} epochs, "
            f"not {budget}"
        )


def _work_on_search(sweep: SweepFolder, member: Member, progress: Progress) -> None:
    run = sweep.member(member)
    run_stage(run, "search", progress)
    task, plan, path = Task.of(run), sweep.plan, sweep.evaluations(member)
    judged = read_evaluations(path)
    found = found_genotypes(run, task, plan.selections, plan.dearer)
    genotypes = found[len(judged) :]
    for genotype in progress.track(genotypes, f"{member.name}, genotypes"):
        assessment = assess(task, genotype, plan.epochs)
        if not judged:
            assessment = _with_search(assessment, run, task)
        judged.append(Evaluation(genotype, assessment))
        write_evaluations(path, judged)
    sweep.finish(member)


def _with_search(first: Assessment, run: RunFolder, task: Task) -> Assessment:
    """The images and seconds of the search are those of its first genotype."""
    rows = read_metrics(run.search_metrics)
    return replace(
        first,
        images=first.images + search_images(task, len(rows)),
        seconds=first.seconds + sum(float(row["seconds"]) for row in rows),
    )


def _work_on_baseline(sweep: SweepFolder, member: Member, progress: Progress) -> None:
    from cosearch.sweep.baselines import Baseline, worker_number

    run = sweep.member(member)
    task = Task.of(run)
    locks = sweep.path / "locks" / f"{member.name}-worker"
    with worker_number(locks) as worker:
        baseline = Baseline(
            task,
            member.method,
            run.path / "journal.jsonl",
            locks,
            worker=worker,
            epochs=sweep.plan.epochs,
            budget_images=baseline_images(sweep.plan, task),
            population=sweep.plan.population,
        )
        for _ in progress.track(
            baseline.judged(), f"{member.name}, genotypes", baseline.evaluations
        ):
            write_evaluations(sweep.evaluations(member), baseline.complete())
        if baseline.finished:
            write_evaluations(sweep.evaluations(member), baseline.complete())
            sweep.finish(member)


def _judgement_images(task: Task, epochs: int) -> int:
    return epochs * epoch_images(task.data.splits["train"], task.config.train.batch_size)
