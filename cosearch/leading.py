"""The first process leads through the stages of a run, the others follow where it calls them.

Only the stages in ``TOGETHER`` are done by all processes; meanwhile the others wait for a call.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from typing import TYPE_CHECKING

from cosearch.world import World, world_of

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

__all__ = ["Call", "calls", "leading"]

TOGETHER = ("search", "train")
END = "end"
ASK_EVERY_S = 0.05  # waiting so, and not in the store, a process still heeds interruptions


@dataclass(frozen=True)
class Call:
    """To do a stage of the run in a folder."""

    stage: str
    folder: str


class Leader:
    """Calls the others; for one process it calls nobody."""

    def __init__(self, store: "Store | None") -> None:
        self._store, self._calls = store, count()

    def call(self, call: Call) -> None:
        if call.stage in TOGETHER:
            self._say(json.dumps(asdict(call)))

    def end(self) -> None:
        """Let the others end."""
        self._say(END)

    def _say(self, text: str) -> None:
        if self._store is not None:
            self._store.set(str(next(self._calls)), text)


@contextlib.contextmanager
def leading() -> Iterator[Leader]:
    """As the first process of the world, or the only one."""
    world = world_of()
    if world.is_alone:
        yield Leader(None)
        return
    from cosearch.distributed import joined

    with joined(world) as store:
        leader = Leader(store)
        try:
            yield leader
        finally:
            leader.end()


def calls(world: World) -> Iterator[Call]:
    """What the first process calls for, until it ends."""
    from cosearch.distributed import connected, joined

    with joined(world) as store:
        for number in count():
            with connected():
                while not store.check([str(number)]):
                    time.sleep(ASK_EVERY_S)
                said = store.get(str(number)).decode()
            if said == END:
                return
            yield Call(**json.loads(said))
