"""Where an epoch stands: how many steps are done, and what they have added up to."""

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cosearch.distributed import first_one_says, gathered
from cosearch.world import World

__all__ = ["Pause", "Tally"]


class Tally:
    """Steps of an epoch, their seconds, and sums of numbers over this process's images.

    Numbers may wait on a device; they are asked for at the end.
    """

    def __init__(self, numbers: int) -> None:
        self.steps = 0
        self.seconds = 0.0
        self._sums: list[float | Tensor] = [0.0] * numbers
        self._since = time.perf_counter()

    def add(self, step: Sequence[float | Tensor]) -> None:
        """The numbers of one more step."""
        own = [number.double() if isinstance(number, Tensor) else number for number in step]
        self._sums = [before + more for before, more in zip(self._sums, own, strict=True)]
        self.steps += 1
        self._look_at_the_clock()

    def totals(self, world: World) -> list[float]:
        """The sums over the images of all processes."""
        everywhere = gathered(self._own(), world)
        self._look_at_the_clock()  # a device has done its work only now
        return [sum(numbers) for numbers in zip(*everywhere, strict=True)]

    def _look_at_the_clock(self) -> None:
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now

    def state(self, world: World) -> dict[str, Any]:
        """For a checkpoint; the same in all processes."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "sums": gathered(self._own(), world),
        }

    @classmethod
    def of(cls, state: dict[str, Any], world: World) -> "Tally":
        """As it was; in a world of another size the first process has all of the sums."""
        sums: list[list[float]] = state["sums"]
        tally = cls(len(sums[0]))
        tally.steps, tally.seconds = int(state["steps"]), float(state["seconds"])
        if len(sums) == world.size:
            tally._sums = list(sums[world.rank])
        elif world.is_first:
            tally._sums = [sum(numbers) for numbers in zip(*sums, strict=True)]
        return tally

    def _own(self) -> list[float]:
        return [float(number) for number in self._sums]


class Pause:
    """When a checkpoint inside an epoch is due: `minutes` after the last one; never for 0."""

    def __init__(self, minutes: float, world: World) -> None:
        self.minutes, self.world = minutes, world
        self._since = time.monotonic()

    def is_due(self) -> bool:
        """Asked by all processes after the same steps; the clock of process 0 counts."""
        if not self.minutes:
            return False
        late = time.monotonic() - self._since >= 60 * self.minutes
        if not first_one_says(late, self.world):
            return False
        self._since = time.monotonic()
        return True
