"""The mirror for TensorBoard: each number of each row, by a writer that stands in for its own."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cosearch import mirror as module
from cosearch.cli import app
from cosearch.config import Config
from cosearch.metrics import read_metrics
from cosearch.mirror import check_mirror, mirrored
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from hw.errors import InputError

from .test_searching import small_search

Call = tuple[Any, ...]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What a writer in place of TensorBoard's was told."""
    told: list[Call] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            told.append(("open", Path(folder).name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def flush(self) -> None: ...

        def close(self) -> None:
            told.append(("close",))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    return told


def test_every_number_of_a_row_is_mirrored(written: list[Call], tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config(tensorboard=True))
    row = {"epoch": 3, "network": "fp32", "loss": 0.5, "lines": {"energy": [1, 2.5]}, "no": None}
    with mirrored(run, "train-fp32", 2) as mirror:
        mirror(row)
    assert written == [
        ("open", "train-fp32", 3),
        ("loss", 0.5, 3),
        ("lines/energy/0", 1.0, 3),
        ("lines/energy/1", 2.5, 3),
        ("close",),
    ]


def test_nothing_is_mirrored_where_nobody_asks(written: list[Call], tmp_path: Path) -> None:
    for asked, first in ((False, True), (True, False)):
        run = RunFolder.create(tmp_path / f"run{asked}", Config(tensorboard=asked))
        with mirrored(run, "search", 0, first) as mirror:
            mirror({"epoch": 1, "loss": 0.5})
    assert written == []


def test_a_search_mirrors_its_metrics(written: list[Call], tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config(tensorboard=True))
    small_search(epochs=2).run(run, Progress(quiet=True))
    for row in read_metrics(run.search_metrics):
        assert ("train_loss", row["train_loss"], row["epoch"]) in written
        assert ("skips", float(row["skips"]), row["epoch"]) in written


def test_without_tensorboard_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    check_mirror(Config())
    message = (
        "tensorboard must be false where TensorBoard is not installed, not true; "
        "install it with: pip install 'cosearch[tensorboard]'"
    )
    with pytest.raises(InputError) as error:
        check_mirror(Config(tensorboard=True))
    assert str(error.value) == message
    result = CliRunner().invoke(app, ["run", "--tensorboard", "--out", str(tmp_path / "run")])
    assert result.exit_code == 2 and result.output == f"error: {message}\n"
    assert not (tmp_path / "run").exists()


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder.create(tmp_path / "run", Config(tensorboard=True))
    with mirrored(run, "search", 0) as mirror:
        mirror({"epoch": 1, "loss": 0.5})
    events = EventAccumulator(str(run.path / "tensorboard" / "search")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5)]
