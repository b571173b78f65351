"""What each of several processes does in test_distributed.py: ``python -m … folder``.

Every process writes what it ends with, and what its batch norm and its observer gave.
"""

import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosearch.batches import Batches
from cosearch.config import config_from_table
from cosearch.data import DataSet, Split, load_data_set
from cosearch.distributed import joined, same_everywhere, shared
from cosearch.genotype import Genotype
from cosearch.progress import Progress
from cosearch.searching import Search
from cosearch.space import SearchSpace
from cosearch.strategies.strategy import Step
from cosearch.task import Task
from cosearch.training import Training
from cosearch.world import World, world_of
from hw.errors import InputError
from lut import MultiplierLibrary
from lut.observers import Levels, MovingAverage

from .small import SHAPE
from .smooth import ONE_NODE, objective, smooth
from .smooth import optimisers as smooth_optimisers
from .test_searching import SmallLibrary

STRATEGIES = ("darts", "darts_second_order", "gdas")
STEPS = 2


def task(batch_size: int = 16) -> Task:
    names = ["mul8s_array", "mul8s_truncated_k5", "mul8s_truncated_k7"]
    table = {
        "search": {"epochs": 1, "batch_size": batch_size, "warmup_share": 0.0},
        "train": {"epochs": 1, "batch_size": batch_size},
        "space": {"channels": 4, "nodes": 1, "operations": ONE_NODE.operations},
        "multipliers": {"candidates": names, "built_also": []},
    }
    data = load_data_set("digits", 0)
    splits = {
        name: Split(split.images[:32], split.labels[:32]) for name, split in data.splits.items()
    }
    few = DataSet(data.name, data.classes, data.channels, data.size, data.pixel_scale, splits)
    space = SearchSpace(4, 3, 1, ONE_NODE.operations, SHAPE[0], 10)
    return Task(config_from_table(table), few, space, cast(MultiplierLibrary, SmallLibrary()))


def smooth_results(name: str, world: World) -> dict[str, Tensor]:
    """Parameters and buffers after some steps in float64, without quantisation."""
    from cosearch.strategies import strategy

    net = smooth(form=strategy(name).form)
    goal, optimiser = objective(net), smooth_optimisers(net)
    shared(net, world)
    chosen, draws = strategy(name), torch.Generator().manual_seed(1)
    data, generator = load_data_set("digits", 0), torch.Generator().manual_seed(2)
    split = Split(
        data.splits["train"].images[: 8 * STEPS], data.splits["train"].labels[: 8 * STEPS]
    )
    parts = list(Batches(split, data.pixel_scale, 8, world=world).epoch(generator))
    for part in parts:
        part = type(part)(part.images.double(), part.labels)
        chosen.step(Step(net, goal, optimiser, part, part, False, 0.5, draws, world))
    return {key: value.detach() for key, value in net.state_dict().items()}


def layers(world: World) -> dict[str, Tensor]:
    """A batch norm's result and gradients, and a range, of this process's part of a batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 4, 4, generator=generator) * 3 + 1
    own = images[world.span(8)].clone().requires_grad_()
    net = nn.Sequential(nn.BatchNorm2d(3))
    observer = MovingAverage(Levels(-127, 127))
    net.append(observer)
    shared(net, world)
    result = net[0](own)
    (result * result.sin()).sum().backward()
    observer.observe(own)
    norm = net[0]
    return {
        "result": result.detach(),
        "gradient": cast(Tensor, own.grad),
        "weight": cast(Tensor, norm.weight.grad),
        "mean": norm.running_mean.clone(),
        "variance": norm.running_var.clone(),
        "batches": norm.num_batches_tracked.clone(),
        "high": observer.high_value.clone(),
    }


def emulated(world: World) -> dict[str, Any]:
    """One epoch of search and of training, of two batches, as they are in use."""
    search = Search(task(), world)
    first = next(search._pairs_left()[0])
    search.begun = None
    with torch.no_grad():
        logits = search.supernet(first[0].images)
    loss = float(functional.cross_entropy(logits, first[0].labels))
    search = Search(task(), world)
    result = search.one_epoch(Progress(quiet=True))
    search._check_processes()
    genotype: Genotype = search.genotype()
    training = Training("fp32", task(), genotype, world=world)
    row = training.one_epoch()
    training._check_processes()
    return {
        "loss": loss,
        "supernet": search.supernet.state_dict(),
        "train_loss": result.train_loss,
        "network": training.network.state_dict(),
        "loss of training": row["loss"],
    }


def mismatch(world: World) -> str:
    """What is said where one process holds something else."""
    torch.manual_seed(0)
    alphas = torch.zeros(3)
    if world.rank == world.size - 1:
        alphas[1] = 1e-30
    try:
        same_everywhere({"alphas and betas": [alphas], "weights": [torch.ones(2)]}, world)
    except InputError as error:
        return str(error)
    return ""


def results(world: World) -> dict[str, Any]:
    return {
        "layers": layers(world),
        "smooth": {name: smooth_results(name, world) for name in STRATEGIES},
        "emulated": emulated(world),
        "mismatch": mismatch(world),
    }


def main() -> None:
    torch.set_num_threads(1)
    world = world_of()
    with joined(world):
        torch.save(results(world), Path(sys.argv[1]) / f"{world.rank}.pt")


if __name__ == "__main__":
    main()
