"""Steps as CUDA graphs: their thousands of small kernels are started at once.

The first steps of each kind are ordinary ones, which compile kernels and make an optimiser's state;
the next is captured, and replayed from then on. All that a step reads but its batches must stay
where it is: weights, optimisers' state and rates, an objective's multipliers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from cosearch.strategies import Batch

__all__ = ["CapturedSteps"]

ORDINARY = 3
"""Steps before one is captured."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Graph:
    """A captured step; it reads and writes the same memory each time."""

    graph: torch.cuda.CUDAGraph
    batches: tuple[Batch, ...]
    result: Any

    @classmethod
    def of(cls, work: Callable[..., Any], batches: tuple[Batch, ...]) -> "Graph":
        """Captured without being run."""
        graph, own = torch.cuda.CUDAGraph(), tuple(batch.copy() for batch in batches)
        with torch.cuda.graph(graph):
            result = work(*own)
        return cls(graph, own, result)

    def __call__(self, *batches: Batch) -> Any:
        """The result is valid until the next call."""
        for own, given in zip(self.batches, batches, strict=True):
            own.images.copy_(given.images)
            own.labels.copy_(given.labels)
        self.graph.replay()
        return self.result

    def fits(self, batches: tuple[Batch, ...]) -> bool:
        pairs = zip(self.batches, batches, strict=True)
        return all(own.images.shape == given.images.shape for own, given in pairs)


class CapturedSteps:
    """Makes steps of one or several kinds; batches of another size are made as ordinary steps."""

    def __init__(self) -> None:
        self._made: dict[str, int] = {}
        self._graphs: dict[str, Graph] = {}

    def __call__(self, kind: str, work: Callable[..., Result], *batches: Batch) -> Result:
        """One step of `work`, which takes the batches and does the same in all steps of a kind."""
        made = self._made[kind] = self._made.get(kind, 0) + 1
        if made <= ORDINARY:
            return _aside(work, batches)
        if kind not in self._graphs:
            self._graphs[kind] = Graph.of(work, batches)
        graph = self._graphs[kind]
        result: Result = graph(*batches) if graph.fits(batches) else work(*batches)
        return result


def _aside(work: Callable[..., Result], batches: tuple[Batch, ...]) -> Result:
    """On a stream of its own, as what is captured later wants it."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        result = work(*batches)
    current.wait_stream(stream)
    return result
