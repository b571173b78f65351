"""Steps of a search as CUDA graphs: their thousands of small kernels are started at once.

The first steps of each kind are ordinary ones, which compile kernels and make an optimiser's state;
the next is captured, and replayed from then on. All that a step reads but its batches must stay
where it is: weights, optimisers' state and rates, an objective's multipliers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cosearch.strategies import Batch
from cosearch.strategies.strategy import StepResult

__all__ = ["CapturedSteps"]

ORDINARY = 3
"""Steps before one is captured."""

# A step on a training and a validation batch.
Work = Callable[[Batch, Batch], StepResult]


@dataclass(frozen=True, eq=False)
class Graph:
    """A captured step; it reads and writes the same memory each time."""

    graph: torch.cuda.CUDAGraph
    train: Batch
    validation: Batch
    result: StepResult

    @classmethod
    def of(cls, work: Work, train: Batch, validation: Batch) -> "Graph":
        """Captured without being run."""
        graph, own = torch.cuda.CUDAGraph(), (train.copy(), validation.copy())
        with torch.cuda.graph(graph):
            result = work(*own)
        return cls(graph, *own, result)

    def __call__(self, train: Batch, validation: Batch) -> StepResult:
        """The result is valid until the next call."""
        for own, given in ((self.train, train), (self.validation, validation)):
            own.images.copy_(given.images)
            own.labels.copy_(given.labels)
        self.graph.replay()
        return self.result

    def fits(self, train: Batch, validation: Batch) -> bool:
        pairs = ((self.train, train), (self.validation, validation))
        return all(own.images.shape == given.images.shape for own, given in pairs)


class CapturedSteps:
    """Makes steps of one or several kinds; batches of another size are made as ordinary steps."""

    def __init__(self) -> None:
        self._made: dict[str, int] = {}
        self._graphs: dict[str, Graph] = {}

    def __call__(self, kind: str, work: Work, train: Batch, validation: Batch) -> StepResult:
        """One step of `work`, which does the same for all steps of the kind."""
        made = self._made[kind] = self._made.get(kind, 0) + 1
        if made <= ORDINARY:
            return _aside(work, train, validation)
        if kind not in self._graphs:
            self._graphs[kind] = Graph.of(work, train, validation)
        graph = self._graphs[kind]
        return (graph if graph.fits(train, validation) else work)(train, validation)


def _aside(work: Work, train: Batch, validation: Batch) -> StepResult:
    """On a stream of its own, as what is captured later wants it."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        result = work(train, validation)
    current.wait_stream(stream)
    return result
