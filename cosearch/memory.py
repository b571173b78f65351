"""How much memory a step will take, said before the first: measured on two tiny batches.

What a step holds at its peak is a fixed part (gradients, tables) and a part for each image; two
sizes of batch tell them apart. On a GPU the allocator counts. Elsewhere storages are counted that
operators return, inside emulated ones, too, from when they are made until they are gone; what a
library takes and gives back inside one of its own is not seen.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hw.errors import InputError
from lut.operators import IMPLEMENTATIONS

__all__ = ["Memory", "check_memory", "measured_memory", "peak_bytes"]

SIZES = (2, 4)
MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """In bytes. resident: parameters, buffers, gradients and optimisers' state between two steps;
    fixed and for each image: what comes and goes in a step, at its peak.
    """

    resident: int
    fixed: float
    each_image: float

    def of_a_step(self, images: int) -> float:
        """What a step of so many images takes beside what is resident."""
        return max(0.0, self.fixed + self.each_image * images)

    def total(self, images: int) -> float:
        """Of a job with batches of so many images, without the data set."""
        return self.resident + self.of_a_step(images)


def measured_memory(
    step: Callable[[int], object],
    network: nn.Module,
    optimisers: Iterable[Optimizer],
) -> Memory:
    """Of a `step` with so many images, which is made three times."""
    device = next(network.parameters()).device
    step(SIZES[0])  # gradients and the optimisers' state are there from the first on
    few, more = (peak_bytes(partial(step, size), device) for size in SIZES)
    each = (more - few) / (SIZES[1] - SIZES[0])
    return Memory(_resident(network, optimisers), few - SIZES[0] * each, each)


def check_memory(memory: Memory, key: str, images: int, device: torch.device) -> str:
    """One line that says it; InputError where a GPU has less. `images` are those of a process."""
    need = memory.of_a_step(images)
    line = f"memory: about {memory.total(images) / MIB:.0f} MiB for {images} images a step"
    if device.type != "cuda":
        return line
    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if need > free:
        raise InputError(
            f"{key} must be small enough for the {free / MIB:.0f} MiB that are free on {device}, "
            f"not {images} images a process, which take about {need / MIB:.0f} MiB: take a smaller "
            "batch, more processes, search.strategy=pc_darts or search.gradient_checkpointing=true"
        )
    return f"{line}, {free / MIB:.0f} MiB free on {device}"


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most that tensors made by `work` take at one time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with _Living() as living:
        work()
    return living.peak


class _Living(TorchDispatchMode):
    """Counts the bytes of storages that operators made and that are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._result(func, args, kwargs or {})
        given = {s.data_ptr() for s in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage.data_ptr() not in given | self._known:
                self._count(storage)
        return result

    def _result(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Of one operator; emulated ones are looked into."""
        if func.namespace != "lut":
            return func(*args, **kwargs)
        schema = func._schema
        rest = [kwargs[a.name] for a in schema.arguments[len(args) :]]
        with self:
            return IMPLEMENTATIONS[schema.name.removeprefix("lut::")](*args, *rest)

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        self._known.add(place)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    """Of all tensors in `values`, but of those that a library packs in its own way."""
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return [tensor.untyped_storage() for tensor in tensors if tensor.layout is torch.strided]


def _resident(network: nn.Module, optimisers: Iterable[Optimizer]) -> int:
    tensors = [*network.parameters(), *network.buffers()]
    tensors += [p.grad for p in network.parameters() if p.grad is not None]
    for optimiser in optimisers:
        for state in optimiser.state.values():
            tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
