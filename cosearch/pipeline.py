"""The stages of a run: each reads the run folder, writes into it and is recorded as finished."""

import importlib
import time
from dataclasses import dataclass

from cosearch.data import check_data_set
from cosearch.leading import Call, Leader, calls, leading
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.world import World, world_of
from hw.errors import InputError, unknown_name


@dataclass(frozen=True)
class Stage:
    """``name`` is a module of ``cosearch.stages``; ``after`` is the stage whose result it reads."""

    name: str
    title: str
    after: str | None


STAGES: dict[str, Stage] = {
    "lut": Stage("lut", "multipliers, their tables and costs", None),
    "search": Stage("search", "operations and multipliers of the cells", "lut"),
    "train": Stage("train", "the found network", "search"),
    "evaluate": Stage("evaluate", "accuracy and energy on the test images", "train"),
    "export": Stage("export", "ONNX, Verilog and manifest", "evaluate"),
    "report": Stage("report", "summary and report.html", "export"),
}


def run_stages(run: RunFolder, progress: Progress) -> None:
    """Every stage that is not finished, in order; at once an error where there are no images."""
    check_data_set(run.config.data)
    with run.locked(), leading() as leader:
        for number, stage in enumerate(STAGES.values(), 1):
            heading = f"[{number}/{len(STAGES)}] {stage.name}: {stage.title}"
            if run.finished(stage.name):
                progress.log(f"{heading} (already finished)")
            else:
                _perform(run, stage, heading, progress, leader)


def run_stage(run: RunFolder, name: str, progress: Progress, *, force: bool = False) -> bool:
    """One stage; whether it ran. With ``force`` a finished one runs anew, its files set aside."""
    if name not in STAGES:
        raise unknown_name("stage", name, STAGES)
    stage = STAGES[name]
    with run.locked(), leading() as leader:
        _require_result(run, stage)
        if run.finished(name) and not force:
            return False
        if force:
            aside = run.set_aside(name)
            if aside is not None:
                progress.log(f"what {name} and later stages wrote is now in {aside}")
        _perform(run, stage, f"{stage.name}: {stage.title}", progress, leader)
    return True


def follow_stages(world: World) -> None:
    """As a process that is not the first: its part of the stages that the first calls for."""
    for call in calls(world):
        _work(RunFolder.open(call.folder), call.stage, Progress(quiet=True))


def _perform(
    run: RunFolder, stage: Stage, heading: str, progress: Progress, leader: Leader
) -> None:
    progress.stage(heading)
    start = time.perf_counter()
    leader.call(Call(stage.name, str(run.path.resolve())))
    try:
        _work(run, stage.name, progress)
    finally:
        progress.close()
    run.finish(stage.name, time.perf_counter() - start)


def _work(run: RunFolder, name: str, progress: Progress) -> None:
    module = importlib.import_module(f"cosearch.stages.{name}")
    if name != "report":
        _use_threads(run.config.threads)
    module.run(run, progress)


def _require_result(run: RunFolder, stage: Stage) -> None:
    """``InputError`` that names the first command to run where an earlier result is missing."""
    missing = None
    before = stage.after
    while before is not None:
        if not run.finished(before):
            missing = before
        before = STAGES[before].after
    if missing is not None:
        raise InputError(
            f"{run.path} must hold the result of {missing!r} before {stage.name!r} is run; "
            f"run first: cosearch {missing} {run.path}"
        )


def _use_threads(number: int) -> None:
    """The processes of one machine divide them."""
    import torch

    torch.set_num_threads(max(1, number // world_of().local_size))
