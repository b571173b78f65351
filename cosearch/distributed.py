"""What the processes of a world say to each other: gradients, batch norms, ranges, digests.

Data parallel: every process has the whole network and takes its share of each batch. Gradients are
averaged right before an optimiser's step, in buckets; batch norms and observers see the whole batch
(:mod:`cosearch.shared_batch_norm`), so that the result is that of one process up to rounding.
Tensors on the CPU go by gloo, those on a GPU by NCCL. All processes must call the same functions in
the same order; one that waits longer than ``LIMIT`` ends with an error.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import overload

import torch
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from cosearch.shared_batch_norm import SharedBatchNorm2d
from cosearch.world import ALONE, CommonError, World
from lut.observers import Observer

__all__ = [
    "averaged",
    "connected",
    "current_world",
    "first_one_says",
    "gathered",
    "joined",
    "same_everywhere",
    "shared",
]

LIMIT = timedelta(minutes=10)
BUCKET = 2**22  # numbers

_joined: list[World] = []  # the world whose process group stands: it is one of the whole process


def current_world() -> World:
    """The world this process has joined."""
    return _joined[-1] if _joined else ALONE


@contextlib.contextmanager
def joined(world: World) -> Iterator[Store]:
    """With a process group of `world`, of several processes; what they may leave notes in."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(world.local_rank)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    with connected():
        meeting = rendezvous("env://", world.rank, world.size, timeout=LIMIT)
        store, rank, size = next(meeting)
        group_store = PrefixStore("group", store)
        distributed.init_process_group(
            backend, store=group_store, rank=rank, world_size=size, timeout=LIMIT
        )
    _joined.append(world)
    try:
        yield PrefixStore("notes", store)
        with connected():  # not after an error: it would wait for the others
            distributed.barrier()
            distributed.destroy_process_group()
    finally:
        _joined.clear()


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Failures of a connection, or of another process, as one line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise CommonError(
            f"all processes must go on to the end, but one has ended or does not answer ({reason})"
        ) from None


@overload
def averaged(gradients: list[Tensor], world: World) -> list[Tensor]: ...
@overload
def averaged(gradients: Sequence[Tensor | None], world: World) -> Sequence[Tensor | None]: ...
def averaged(gradients: Sequence[Tensor | None], world: World) -> Sequence[Tensor | None]:
    """The means over all processes; None stays, and must be None everywhere."""
    if world.is_alone:
        return gradients
    result = list(gradients)
    for places in _buckets(gradients):
        parts = [part for place in places if (part := gradients[place]) is not None]
        flat = torch.cat([part.reshape(-1) for part in parts])
        with connected():
            distributed.all_reduce(flat)
        flat.div_(world.size)
        means = flat.split([part.numel() for part in parts])
        for place, part, mean in zip(places, parts, means, strict=True):
            result[place] = mean.view(part.shape)
    return result


def _buckets(tensors: Sequence[Tensor | None]) -> Iterator[list[int]]:
    """Places of tensors of one kind, at most ``BUCKET`` numbers together unless one has more."""
    there = [(place, tensor) for place, tensor in enumerate(tensors) if tensor is not None]
    for _, group in groupby(there, key=lambda pair: (pair[1].dtype, pair[1].device)):
        bucket: list[int] = []
        numbers = 0
        for place, tensor in group:
            if bucket and numbers + tensor.numel() > BUCKET:
                yield bucket
                bucket, numbers = [], 0
            bucket.append(place)
            numbers += tensor.numel()
        yield bucket


def gathered(values: Sequence[float], world: World) -> list[list[float]]:
    """The numbers of every process, in the order of ranks."""
    own = torch.tensor(values, dtype=torch.float64)
    if world.is_alone:
        return [own.tolist()]
    everywhere = [torch.empty_like(own) for _ in range(world.size)]
    with connected():
        distributed.all_gather(everywhere, own)
    return [one.tolist() for one in everywhere]


def first_one_says(wish: bool, world: World) -> bool:
    """What process 0 wishes."""
    return gathered([float(wish)], world)[0] == [1.0]


def same_everywhere(groups: Mapping[str, Iterable[Tensor]], world: World) -> None:
    """InputError, of all processes, naming the groups that differ and where."""
    if world.is_alone:
        return
    own = {name: _digest(tensors) for name, tensors in groups.items()}
    everywhere: list[dict[str, str]] = [{} for _ in range(world.size)]
    with connected():
        distributed.all_gather_object(everywhere, own)
    differing = {
        name: [rank for rank, other in enumerate(everywhere) if other[name] != everywhere[0][name]]
        for name in own
    }
    said = [
        f"{name} of {'process' if len(ranks) == 1 else 'processes'} {', '.join(map(str, ranks))}"
        for name, ranks in differing.items()
        if ranks
    ]
    if said:
        raise CommonError(
            f"all processes must hold the same numbers, but not those of process 0 are the "
            f"{' and the '.join(said)}"
        )


def _digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of all bits, types and shapes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def shared(network: nn.Module, world: World) -> None:
    """Let batch norms and observers of `network` see the batches of all processes as one.

    Ranges of observers are the widest of the processes' own: for extremes that is the range of the
    whole batch, for percentiles and least squared errors it is near it.
    """
    if world.is_alone:
        return
    for module in network.modules():
        if isinstance(module, Observer):
            module.across = _widest
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SharedBatchNorm2d.of(child, _gather_rows, _sum))


def _widest(lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    ends = torch.stack([-lowest, highest])
    with connected():
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    return -ends[0], ends[1]


def _gather_rows(own: Tensor) -> Tensor:
    """(processes, *own's shape)"""
    everywhere = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    with connected():
        distributed.all_gather(everywhere, own)
    return torch.stack(everywhere)


def _sum(values: Tensor) -> Tensor:
    with connected():
        distributed.all_reduce(values)
    return values
