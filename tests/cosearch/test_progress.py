"""Progress: plain lines without a terminal, bars with one, and the items themselves untouched."""

import io
import time

import pytest

from cosearch import progress as module
from cosearch.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_without_a_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.stage("search: cells")
    assert list(progress.track(range(3), "epochs")) == [0, 1, 2]
    progress.log("epoch 1: 97 %")
    assert stream.getvalue() == "search: cells\nepoch 1: 97 %\n"


def test_a_long_loop_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.0)
    stream = io.StringIO()
    assert list(Progress(stream).track(iter("ab"), "steps", total=2)) == ["a", "b"]
    assert stream.getvalue() == "  steps: 1/2\n  steps: 2/2\n"


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    progress.stage("a")
    progress.log("b")
    assert list(progress.track([1], "c")) == [1]
    assert capsys.readouterr().out == ""


def test_nested_bars_and_lines_on_a_terminal() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.stage("[1/6] lut: [tables]")
    for _ in progress.track(range(2), "epochs"):
        for _ in progress.track(range(2), "steps [x]"):
            progress.log("[red]a line[/red] as it stands")
    shown = stream.getvalue()
    assert "[1/6] lut: [tables]" in shown
    assert shown.count("[red]a line[/red] as it stands") == 4


def test_a_loop_that_is_left_closes_its_bar() -> None:
    progress = Progress(Terminal())
    loop = progress.track(range(3), "epochs")
    next(loop)
    loop.close()  # type: ignore[attr-defined]
    assert list(progress.track(range(2), "again")) == [0, 1]


def test_bars_are_gone_after_an_interruption() -> None:
    stream = Terminal()
    progress = Progress(stream)
    loop = iter(progress.track(range(3), "steps"))
    next(loop)
    progress.close()
    shown = len(stream.getvalue())
    time.sleep(0.3)
    assert len(stream.getvalue()) == shown
