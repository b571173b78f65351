"""The refinement of a run: multipliers layer by layer under a budget, then fine-tuning.

The trained network keeps its operations and weights; its layers' multipliers are chosen by one of
``cosearch.refinement.REFINEMENTS`` and an integer program. What is chosen is measured, once put
right where layers do each other more harm than the forecast says, and trained on for some epochs.
The result is a new run whose search and training are finished. Work in progress is kept in the
folder ``refining`` of the run that it starts from, so that an interrupted refinement goes on.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cosearch.assignment import inner_layers
from cosearch.checkpoint import load_checkpoint
from cosearch.evaluation import operation_of
from cosearch.genotype import Genotype, check_hardware
from cosearch.layers import layer_kind, layer_macs
from cosearch.progress import Progress
from cosearch.refinement import REFINEMENTS, Indices, Measured, Problem, refinement
from cosearch.refinement.sensitivity import FILE, read_sensitivities
from cosearch.report.heat_map import sensitivity_map
from cosearch.report.standalone import standalone
from cosearch.run_folder import RunFolder
from cosearch.strategies import Batch
from cosearch.task import Task, read_genotype
from cosearch.training import Training, trained_network
from hw.errors import InputError
from hw.files import write_json, write_text
from lut import ApproxConv2d, ApproxLinear, Candidates

__all__ = ["RefinementSettings", "problem_of", "refine"]

FINE_TUNING_RATE = 0.1  # of train.learning_rate
FAR_NATS, FAR_SHARE = 0.02, 0.5  # what a forecast may be wrong by: nats + share of its growth


@dataclass(frozen=True)
class RefinementSettings:
    """energy_budget: relative to the exact multiplier everywhere; epochs: of fine-tuning; images:
    so many of each kind, for losses and for batch norms' statistics; keep_norms: losses are those
    with the statistics as trained.
    """

    energy_budget: float
    method: str = "sensitivity"
    epochs: int = 5
    images: int = 512
    keep_norms: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.energy_budget <= 1:
            raise InputError(
                f"--energy-budget must be more than 0 and at most 1, not {self.energy_budget}"
            )
        refinement(self.method)
        for option, value in (("--epochs", self.epochs), ("--images", self.images)):
            if value < 1:
                raise InputError(f"{option} must be at least 1, not {value}")


@dataclass(frozen=True, eq=False)
class Chosen:
    """An assignment (L,) and what it was measured at; forecast: None where the method has none."""

    multipliers: Indices
    base: Measured
    measured: Measured
    forecast: float | None
    corrected: bool


def refine(
    run: RunFolder, settings: RefinementSettings, out: Path, progress: Progress
) -> RunFolder:
    """The new run at `out`, whose stages lut, search and train are finished.

    InputError where the training of `run` is not finished, `out` is not new or the budget is out of
    reach.
    """
    if not run.finished("train"):
        raise InputError(
            f"{run.path} must hold the result of 'train' before it is refined; "
            f"run first: cosearch train {run.path}"
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out must be a new or an empty folder, not {out}")
    torch.set_num_threads(run.config.threads)
    with run.locked():
        task, genotype = Task.of(run), read_genotype(run)
        check_hardware(genotype, str(run.genotype))
        problem = problem_of(run, task, genotype, settings)
        work = run.path / "refining" / _digest([problem.key, asdict(settings)])[:12]
        refined = _begun(work) or _begin(run, work, problem, genotype, settings, progress)
        _fine_tune(run, refined, settings, progress)
        _move(work, out)
    return RunFolder.open(out)


def problem_of(
    run: RunFolder, task: Task, genotype: Genotype, settings: RefinementSettings
) -> Problem:
    """The trained network of `run` and the multipliers of its configuration."""
    network = trained_network("approximate", task, genotype, run)
    names = task.config.multipliers.candidates
    luts = tuple(task.library.luts(names))
    layers, macs = inner_layers(network), layer_macs(network, task.input_shape)
    digests = [lut.digest for lut in luts]
    weights = hashlib.sha256(run.weights("approximate").read_bytes()).hexdigest()
    assignment = task.assignment.digest if task.assignment else None
    what = [weights, genotype.digest, assignment, digests, settings.images, settings.keep_norms]
    return Problem(
        network=network,
        layers=tuple(layers),
        luts=luts,
        found=np.array([digests.index(la.candidates.luts[0].digest) for la in layers.values()]),
        macs=np.array([macs[path] for path in layers]),
        fixed_macs=sum(count for path, count in macs.items() if path not in layers),
        fixed_fj=_fixed_fj(network, macs, task),
        energies_fj=np.array([task.library[name].cost.energy_fj for name in names]),
        images=_first(task, "validation", settings.images),
        statistics=() if settings.keep_norms else _first(task, "train", settings.images),
        candidates=Candidates(luts, task.library.basis(names), task.config.train.gradient),
        budget=settings.energy_budget,
        key=_digest(what),
        allowed=_allowed(layers, task, genotype),
    )


def _allowed(
    layers: Mapping[str, ApproxConv2d], task: Task, genotype: Genotype
) -> NDArray[np.bool_]:
    """Which candidates each layer may have, (L, M): the exact one alone where its kind is not
    approximated, else those of its operation.
    """
    count, by_operation = len(task.config.multipliers.candidates), task.config.multipliers.allowed()
    allowed = np.zeros((len(layers), count), np.bool_)
    for row, (path, layer) in zip(allowed, layers.items(), strict=True):
        approximated = layer_kind(path, layer) in task.space.approximated
        operation = operation_of(path, task, genotype)
        numbers = by_operation.get(operation, tuple(range(count))) if approximated else (0,)
        row[list(numbers)] = True
    return allowed


def _fixed_fj(network: nn.Module, macs: Mapping[str, int], task: Task) -> float:
    """Energy of one inference outside the cells, in fJ."""
    total = 0.0
    for path, count in macs.items():
        module = network.get_submodule(path)
        layer = module.convolution if isinstance(module, ApproxLinear) else module
        if isinstance(layer, ApproxConv2d) and not path.startswith("cells."):
            total += count * task.library[layer.candidates.luts[0].name].cost.energy_fj
    return total


def chosen_multipliers(problem: Problem, method: str, folder: Path, progress: Progress) -> Chosen:
    """The method's assignment, measured, and put right once where its forecast was far off."""
    if problem.least_energy > problem.budget:
        raise problem.out_of_reach
    scores = REFINEMENTS[method](problem, folder, progress)
    base = problem.measured(problem.found)
    multipliers = problem.best_within_budget(scores)
    measured = problem.measured(multipliers)
    if method != "sensitivity":
        return Chosen(multipliers, base, measured, None, corrected=False)
    growth = -float(scores[np.arange(len(scores)), multipliers].sum())
    chosen = Chosen(multipliers, base, measured, base.loss + growth, corrected=False)
    if measured.loss - base.loss - growth <= FAR_NATS + FAR_SHARE * abs(growth):
        return chosen
    return _corrected(problem, scores, chosen)


def _corrected(problem: Problem, scores: NDArray[np.float64], chosen: Chosen) -> Chosen:
    """Choose again, each changed layer scored by what it costs among the others as chosen; the
    better of the two assignments.
    """
    scores, multipliers = scores.copy(), chosen.multipliers
    for layer in np.flatnonzero(multipliers != problem.found):
        without = multipliers.copy()
        without[layer] = problem.found[layer]
        harm = chosen.measured.loss - problem.measured(without).loss
        scores[layer, multipliers[layer]] = -harm
    again = problem.best_within_budget(scores)
    measured = problem.measured(again)
    if measured.loss >= chosen.measured.loss:
        return chosen
    return replace(chosen, multipliers=again, measured=measured, corrected=True)


def _begun(work: Path) -> RunFolder | None:
    """The refined run in `work` as an interruption left it, None where it is not whole yet."""
    if not (work / "run.json").exists():
        return None
    found = RunFolder.open(work)
    return found if found.finished("search") else None


def _begin(
    run: RunFolder,
    work: Path,
    problem: Problem,
    genotype: Genotype,
    settings: RefinementSettings,
    progress: Progress,
) -> RunFolder:
    """Choose the multipliers; a run in `work` that has them, with the rest as in `run`."""
    folder = run.path / "refining"
    chosen = chosen_multipliers(problem, settings.method, folder, progress)
    shutil.rmtree(work, ignore_errors=True)
    refined = RunFolder.create(work, run.config)
    content = _content(problem, genotype, settings, chosen)
    write_json(refined.assignment, content)
    _write_sensitivities(problem, folder, refined, chosen)
    shutil.copytree(run.luts, refined.luts)
    shutil.copytree(run.path / "search", work / "search")
    shutil.copy(run.genotype, refined.genotype)
    (work / "train").mkdir()
    for path in (run.weights("exact"), run.weights("fp32"), run.train_metrics):
        shutil.copy(path, work / "train" / path.name)
    for stage in ("lut", "search"):
        refined.finish(stage, run.record["stages"][stage]["seconds"])
    for line in _lines(content):
        progress.log(line)
    return refined


def _write_sensitivities(
    problem: Problem, folder: Path, refined: RunFolder, chosen: Chosen
) -> None:
    """Copy them, where the method measured some, and draw them."""
    measured = read_sensitivities(folder / FILE)
    if measured is None or measured["key"] != problem.key:
        return
    write_json(refined.assignment.with_name(FILE), measured)
    names = [problem.luts[index].name for index in chosen.multipliers]
    drawing = sensitivity_map(measured, dict(zip(problem.layers, names, strict=True)))
    write_text(refined.assignment.with_name("sensitivities.svg"), standalone(drawing))


def _content(
    problem: Problem, genotype: Genotype, settings: RefinementSettings, chosen: Chosen
) -> dict[str, Any]:
    """What ``assignment.json`` holds."""
    return {
        **problem.assignment(genotype.digest, chosen.multipliers).to_json(),
        "settings": asdict(settings),
        "relative_energy": problem.relative_energy(chosen.multipliers),
        "relative_energy_before": problem.relative_energy(problem.found),
        "before": asdict(chosen.base),
        "measured": asdict(chosen.measured),
        "forecast_loss": chosen.forecast,
        "corrected": chosen.corrected,
    }


def _lines(content: dict[str, Any]) -> list[str]:
    forecast = content["forecast_loss"]
    said = "" if forecast is None else f", forecast {forecast:.3f}"
    again = ", chosen again after measuring" if content["corrected"] else ""
    before, after = content["relative_energy_before"], content["relative_energy"]
    return [
        f"  energy relative to exact int8: {after:.4f}, before {before:.4f}",
        f"  validation loss: {content['measured']['loss']:.3f}{said}, "
        f"before {content['before']['loss']:.3f}{again}",
    ]


def _fine_tune(
    run: RunFolder, refined: RunFolder, settings: RefinementSettings, progress: Progress
) -> None:
    """Train on from the weights of `run` with a small rate, without what a training from scratch
    adds; the other networks stay.
    """
    task = Task.of(refined)
    rate = FINE_TUNING_RATE * task.config.train.learning_rate
    train = replace(
        task.config.train,
        epochs=settings.epochs,
        learning_rate=rate,
        auxiliary_weight=0.0,
        drop_path=0.0,
    )
    task = replace(task, config=replace(task.config, train=train))
    start = time.perf_counter()
    training = Training("approximate", task, read_genotype(refined))
    training.network.load_state_dict(load_checkpoint(run.weights("approximate")))
    training.run(refined, progress)
    refined.finish("train", time.perf_counter() - start)


def _move(work: Path, out: Path) -> None:
    """The folder at `out` is there whole or not at all, on whatever file system."""
    part = out.parent / f".{out.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(work, part)
    part.rename(out)
    shutil.rmtree(work)


def _first(task: Task, split: str, count: int) -> tuple[Batch, ...]:
    """The same images every time, in batches."""
    images, size = task.data.splits[split], task.config.train.batch_size
    pixels = images.images[:count].to(torch.float32) * task.data.pixel_scale
    pairs = zip(pixels.split(size), images.labels[:count].split(size), strict=True)
    return tuple(Batch(*pair) for pair in pairs)


def _digest(what: list[Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
