"""What a running job shows: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    import rich.console
    import rich.progress

Item = TypeVar("Item")

HEARTBEAT_S = 15.0  # without a terminal: the longest silence of a loop


class Progress:
    """Shows stages, (nested) loops and lines on ``stream``; ``quiet`` shows nothing."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._quiet = quiet
        self._terminal = not quiet and self._stream.isatty()
        self._bars: rich.progress.Progress | None = None
        self._open_loops = 0
        self._last_line = time.monotonic()

    def stage(self, title: str) -> None:
        """Begin a part of the job under a title of its own."""
        if self._terminal:
            from rich.markup import escape

            self._console().print(f"[bold]{escape(title)}[/bold]", highlight=False)
        else:
            self.log(title)

    def log(self, line: str) -> None:
        """Show one line, above the bars where there are any."""
        self._last_line = time.monotonic()
        if self._terminal:
            self._console().print(line, markup=False, highlight=False)
        elif not self._quiet:
            print(line, file=self._stream, flush=True)

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Iterator[Item]:
        """``items`` one by one with a bar; ``total`` is their number where they do not tell it."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        if self._terminal:
            return self._with_bar(items, description, total)
        return self._with_heartbeat(items, description, total)

    def _with_bar(
        self, items: Iterable[Item], description: str, total: int | None
    ) -> Iterator[Item]:
        bars = self._opened_bars()
        task = bars.add_task(description, total=total)
        try:
            for item in items:
                yield item
                bars.advance(task)
        finally:
            bars.remove_task(task)
            self._close_bars()

    def _with_heartbeat(
        self, items: Iterable[Item], description: str, total: int | None
    ) -> Iterator[Item]:
        of_total = "" if total is None else f"/{total}"
        for number, item in enumerate(items, 1):
            yield item
            if time.monotonic() - self._last_line >= HEARTBEAT_S:
                self.log(f"  {description}: {number}{of_total}")

    def _opened_bars(self) -> "rich.progress.Progress":
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        if self._bars is None:
            self._bars = Bars(
                TextColumn("  {task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console(),
                transient=True,
            )
            self._bars.start()
        self._open_loops += 1
        return self._bars

    def close(self) -> None:
        """Take bars away that an error or an interruption left."""
        self._open_loops = 0
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _close_bars(self) -> None:
        self._open_loops -= 1
        if self._open_loops <= 0:
            self.close()

    def _console(self) -> "rich.console.Console":
        from rich.console import Console

        return Console(file=self._stream) if self._bars is None else self._bars.console
