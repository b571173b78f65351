"""The pipeline: order, what is skipped, what must come first, and what is done anew."""

import sys
import types
from pathlib import Path

import pytest

from cosearch.config import Config
from cosearch.pipeline import STAGES, run_stage, run_stages
from cosearch.progress import Progress
from cosearch.run_folder import STAGE_FILES, RunFolder
from hw.errors import InputError

QUIET = Progress(quiet=True)


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that write an empty file where the real one writes its result, and say so."""
    done: list[str] = []
    for name in STAGES:
        monkeypatch.setitem(sys.modules, f"cosearch.stages.{name}", _recorder(name, done))
    return done


def _recorder(name: str, done: list[str]) -> types.ModuleType:
    def run(folder: RunFolder, progress: Progress) -> None:
        for file in STAGE_FILES[name]:
            (folder.path / file).write_text(name)
        done.append(name)

    module = types.ModuleType(name)
    module.run = run  # type: ignore[attr-defined]
    return module


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", Config(threads=1))


def test_stages_and_their_files_are_in_the_same_order() -> None:
    assert list(STAGES) == list(STAGE_FILES)


def test_every_stage_runs_once_in_order(run: RunFolder, performed: list[str]) -> None:
    run_stages(run, QUIET)
    assert performed == ["lut", "search", "train", "evaluate", "export", "report"]
    run_stages(RunFolder.open(run.path), QUIET)
    assert len(performed) == 6


def test_a_run_goes_on_after_the_last_finished_stage(run: RunFolder, performed: list[str]) -> None:
    run_stage(run, "lut", QUIET)
    run_stage(run, "search", QUIET)
    run_stages(run, QUIET)
    assert performed == ["lut", "search", "train", "evaluate", "export", "report"]


def test_a_stage_that_fails_is_not_finished(
    run: RunFolder, performed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: RunFolder, progress: Progress) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["cosearch.stages.train"], "run", fail)
    with pytest.raises(KeyboardInterrupt):
        run_stages(run, QUIET)
    again = RunFolder.open(run.path)
    assert [stage for stage in STAGES if again.finished(stage)] == ["lut", "search"]


def test_the_first_missing_result_is_named(run: RunFolder, performed: list[str]) -> None:
    with pytest.raises(InputError) as error:
        run_stage(run, "export", QUIET)
    assert str(error.value) == (
        f"{run.path} must hold the result of 'lut' before 'export' is run; "
        f"run first: cosearch lut {run.path}"
    )
    run_stage(run, "lut", QUIET)
    with pytest.raises(InputError, match=r"run first: cosearch search "):
        run_stage(run, "export", QUIET)
    assert performed == ["lut"]


def test_a_finished_stage_runs_again_only_when_forced(run: RunFolder, performed: list[str]) -> None:
    run_stages(run, QUIET)
    assert run_stage(run, "train", QUIET) is False
    assert len(performed) == 6
    assert run_stage(run, "train", QUIET, force=True) is True
    assert performed[6:] == ["train"]
    assert [stage for stage in STAGES if run.finished(stage)] == ["lut", "search", "train"]
    assert (run.path / "replaced" / "1" / "report.html").read_text() == "report"


def test_an_unknown_stage_is_one_line(run: RunFolder) -> None:
    with pytest.raises(InputError, match=r"did you mean 'search'\?"):
        run_stage(run, "serch", QUIET)
