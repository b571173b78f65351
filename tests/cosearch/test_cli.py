"""The command line: one line for what is wrong, how to go on for an interruption, and resuming."""

import errno
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cosearch.cli import app
from cosearch.config import Config
from cosearch.pipeline import STAGES
from cosearch.progress import Progress
from cosearch.run_folder import STAGE_FILES, RunFolder, is_run

from .example_run import finished_run
from .processes import PATIENCE_S, heed_interrupts, run_python

ROOT = Path(__file__).parents[2]


def cosearch(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> str:
    """The one line that the command says on standard error."""
    result = cosearch(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


class Stages:
    """Stages that write their files; a test may make one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.failure: tuple[str, BaseException] | None = None
        for name in STAGES:
            monkeypatch.setitem(sys.modules, f"cosearch.stages.{name}", self._module(name))

    def _module(self, name: str) -> types.ModuleType:
        def run(folder: RunFolder, progress: Progress) -> None:
            if self.failure is not None and self.failure[0] == name:
                raise self.failure[1]
            for file in STAGE_FILES[name]:
                (folder.path / file).write_text(name)
            self.done.append(name)

        module = types.ModuleType(name)
        module.run = run  # type: ignore[attr-defined]
        return module


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stages:
    monkeypatch.chdir(tmp_path)
    return Stages(monkeypatch)


def test_help_names_every_command() -> None:
    result = cosearch("--help")
    assert result.exit_code == 0
    for name in ("run", *STAGES, "sweep", "doctor"):
        assert f"\n  {name} " in result.output


@pytest.mark.parametrize("name", ["run", *STAGES, "sweep", "doctor"])
def test_every_command_has_help(name: str) -> None:
    assert cosearch(name, "--help").exit_code == 0


def test_run_does_every_stage_in_a_new_folder(stages: Stages, tmp_path: Path) -> None:
    result = cosearch("run", "--name", "mine", "--seed", "4", "-o", "search.epochs=3")
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-mine")
    assert f"run folder: runs/{folder.name}" in result.output
    assert "[6/6] report: summary and report.html" in result.output
    run = RunFolder.open(folder)
    assert (run.config.seed, run.config.search.epochs, run.config.name) == (4, 3, "mine")
    assert stages.done == list(STAGES)


def test_run_takes_a_configuration_file(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("seed = 6\n[train]\nepochs = 2\n")
    assert cosearch("run", "--config", "my.toml", "--out", "out").exit_code == 0
    config = RunFolder.open(tmp_path / "out").config
    assert (config.seed, config.train.epochs) == (6, 2)


def test_single_stages_on_one_folder(stages: Stages, tmp_path: Path) -> None:
    assert cosearch("lut", "--out", "run", "--seed", "5").exit_code == 0
    for name in list(STAGES)[1:]:
        assert cosearch(name, "run").exit_code == 0
    assert stages.done == list(STAGES)
    assert RunFolder.open(tmp_path / "run").config.seed == 5
    again = cosearch("train", "run")
    assert again.exit_code == 0
    assert "train is already finished in run; --force does it again" in again.output
    forced = cosearch("train", "run", "--force")
    assert forced.exit_code == 0
    assert "is now in run/replaced/1" in forced.output


def test_an_interruption_says_how_to_go_on_and_resuming_does(stages: Stages) -> None:
    stages.failure = ("train", KeyboardInterrupt())
    result = cosearch("run", "--out", "run")
    assert result.exit_code == 130
    assert result.stderr == "interrupted; go on with: cosearch run --resume run\n"
    stages.failure = None
    result = cosearch("run", "--resume", "run")
    assert result.exit_code == 0
    assert "[1/6] lut: multipliers, their tables and costs (already finished)" in result.output
    assert stages.done == list(STAGES)


def test_every_form_of_resuming(stages: Stages, tmp_path: Path) -> None:
    stages.failure = ("lut", KeyboardInterrupt())
    assert cosearch("run", "--out", "run", "--resume").exit_code == 130  # begins a new run
    assert is_run(tmp_path / "run")
    for arguments in (["--resume", "run"], ["run", "--resume"], ["--out", "run", "--resume"]):
        assert cosearch("run", *arguments).exit_code == 130
    stages.failure = None
    assert cosearch("run", "--out", "run", "--resume").exit_code == 0


def test_an_interrupted_single_stage_says_how_to_go_on(stages: Stages) -> None:
    stages.failure = ("lut", KeyboardInterrupt())
    assert cosearch("lut", "--out", "run").stderr == ("interrupted; go on with: cosearch lut run\n")
    stages.failure = None
    assert cosearch("lut", "run").exit_code == 0


def test_resuming_with_the_same_settings_is_allowed(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("seed = 6\n")
    settings = ("--config", "my.toml", "-o", "search.epochs=3")
    assert cosearch("run", "--out", "run", *settings).exit_code == 0
    assert cosearch("run", "--resume", "run", *settings).exit_code == 0
    assert cosearch("run", "--resume", "run", "-o", "search.epochs=3").exit_code == 0


def test_resuming_with_other_settings_is_refused(stages: Stages, tmp_path: Path) -> None:
    assert cosearch("run", "--out", "run").exit_code == 0
    before = (tmp_path / "run" / "config.toml").read_text()
    epochs = Config().search.epochs
    line = refused("run", "--resume", "run", "-o", f"search.epochs={epochs + 1}", "--seed", "2")
    assert line == (
        "configuration must be the run's own when it goes on, not differ in "
        f"seed (2, not 0), search.epochs ({epochs + 1}, not {epochs})"
    )
    assert "seed (2, not 0)" in refused("lut", "run", "--seed", "2")
    assert (tmp_path / "run" / "config.toml").read_text() == before


def test_an_existing_folder_is_refused_and_kept(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    assert "must be a new or an empty folder" in refused("run", "--out", "out")
    assert "must be the folder of a run" in refused("run", "--out", "out", "--resume")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
    assert stages.done == []


def test_a_run_is_not_run_again_without_resume(stages: Stages) -> None:
    assert cosearch("run", "--out", "run").exit_code == 0
    assert "go on with it by --resume run" in refused("run", "--out", "run")


WRONG = {
    "unknown key": (("run", "-o", "search.epoch=3"), "did you mean 'search.epochs'?"),
    "unknown multiplier": (
        ("run", "-o", "multipliers.built_also=mul8u_aray"),
        "did you mean 'array'?",
    ),
    "unknown operation": (
        ("run", "-o", "space.operations=skip_conect"),
        "did you mean 'skip_connect'?",
    ),
    "out of range": (("run", "-o", "train.epochs=0"), "train.epochs must be at least 1"),
    "negative seed": (("run", "--seed", "-1"), "seed must be at least 0"),
    "bad name": (("run", "--name", "../up"), "name must be 1 to 64 letters"),
    "no configuration": (("run", "--config", "nope.toml"), "configuration must be a TOML file"),
    "no run": (("search", "nope"), "nope must be the folder of a run"),
    "no run to resume": (("run", "--resume", "nope"), "nope must be the folder of a run"),
    "resume nothing": (("run", "--resume"), "--resume must come with the folder of a run"),
    "folder without resume": (("run", "nope"), "RUN must come with --resume"),
    "two folders": (("run", "--resume", "a", "--out", "b"), "--out must be left out"),
    "two folders for lut": (("lut", "a", "--out", "b"), "--out must be left out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    stages: Stages, tmp_path: Path, case: str
) -> None:
    arguments, message = WRONG[case]
    assert message in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_result_names_the_command(stages: Stages) -> None:
    assert cosearch("lut", "--out", "run").exit_code == 0
    assert refused("evaluate", "run").endswith("run first: cosearch search run")


def test_a_damaged_file_of_a_run_is_one_line(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    run.evaluation.write_text('{"test_images": ')
    assert "evaluation.json must be a JSON file, not corrupt data" in refused("report", run.path)
    assert not run.report.exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")],
)
def test_what_the_system_refuses_is_one_line(stages: Stages, number: int, words: str) -> None:
    stages.failure = ("search", OSError(number, os.strerror(number), "run/search/checkpoint.pt"))
    assert refused("run", "--out", "run") == f"{words}: run/search/checkpoint.pt"
    stages.failure = None
    assert cosearch("run", "--resume", "run").exit_code == 0


def test_a_refusal_that_names_no_file_names_the_run(stages: Stages) -> None:
    """A write to a full disk fails without a name."""
    stages.failure = ("lut", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert refused("run", "--out", "run") == "No space left on device: run"


def test_a_path_through_a_file_is_one_line(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused("run", "--out", "file/run")
    assert "file" in refused("run", "--out", "file")


def test_a_missing_permission_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    result = run_python("-m", "cosearch", "run", "--out", "locked/run", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: Permission denied: locked/")
    assert result.stderr.count("\n") == 1


def test_a_bug_keeps_its_traceback(stages: Stages) -> None:
    stages.failure = ("lut", ValueError("a bug"))
    result = cosearch("run", "--out", "run")
    assert isinstance(result.exception, ValueError)
    assert result.exit_code == 1


def test_doctor_reports() -> None:
    result = cosearch("doctor")
    assert result.exit_code == 0, result.output
    assert "torch" in result.output


WAITING = """
import sys, time, types
def run(folder, progress):
    print("waiting", flush=True)
    # Naps: a signal that comes just before a sleep is heeded after it. In exec: after which Python
    # itself would end by the signal.
    exec("for _ in range(600): time.sleep(0.1)", {"time": time})
module = types.ModuleType("cosearch.stages.lut")
module.run = run
sys.modules["cosearch.stages.lut"] = module
from cosearch.cli import app
app()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_with_one_line(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    arguments = [sys.executable, "-m", "waiting", "run", "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as process:
        assert process.stdout is not None
        while "waiting" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert errors == f"interrupted; go on with: cosearch run --resume {tmp_path / 'run'}\n"
    assert is_run(tmp_path / "run")
