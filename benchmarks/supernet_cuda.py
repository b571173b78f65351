"""Time of a search on a GPU: the DARTS supernet of CIFAR-10, as `cosearch search` makes its steps.

``python -m benchmarks.supernet_cuda --library FOLDER [--batch N] [--kinds NAME …]``. FOLDER is a
run's ``luts``. Each kind is a search with random images in bf16: epochs of a few steps, the first
of which are ordinary ones and the others CUDA graphs; the last epoch is timed, loading of images
included. The time of a whole search is that of 50 epochs over 25,000 + 25,000 images. Kinds:
`plain`: convolutions in real numbers; `exact`: the first multiplier of the library emulated; `one`:
one whose rank is the joint rank of all signed ones; `all`: all signed ones together, ``_quarter``
with betas that learn by a quarter of the images; ``_pc`` by PC-DARTS, whose alphas rest for 15 of
50 epochs. Merged and plain cells are compared
before anything is timed.
"""

import argparse
import copy
import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measurement import Measurement, print_machine, print_measurement
from benchmarks.networks_cuda import Batch
from cosearch.config import OPERATIONS, Config, config_from_table
from cosearch.data import DataSet, Split
from cosearch.progress import Progress
from cosearch.searching import Search
from cosearch.space import SearchSpace
from cosearch.supernet import Cell, Supernet
from cosearch.task import Task
from lut import LUT, Candidates, MultiplierLibrary

EPOCHS, IMAGES = 50, 25_000
RESTING = 15  # epochs of PC-DARTS
STEPS = 12
SPACE = SearchSpace(16, 8, 4, OPERATIONS, image_channels=3, classes=10)


@dataclass(frozen=True)
class Kind:
    """Which multipliers are searched over, how, and the most minutes a search may take."""

    multipliers: str
    strategy: str = "darts"
    minutes: float | None = None
    beta_share: float = 1.0

    def settings(self, library: MultiplierLibrary) -> dict[str, Any]:
        names = [entry.name for entry in library if entry.lut.a_signed]
        joint = library.basis(names).rank
        ranks = {name: library[name].lut.rank for name in names}
        fixed = {
            "plain": names[0],
            "exact": names[0],
            "one": next((name for name, rank in ranks.items() if rank == joint), names[-1]),
            "all": "",
        }
        search = {
            "strategy": self.strategy,
            "epochs": 2,
            "warmup_share": 0.5,
            "fixed_multiplier": fixed[self.multipliers],
            "beta_share": self.beta_share,
            "arithmetic": "real" if self.multipliers == "plain" else "emulated",
        }
        return {"search": search, "multipliers": {"candidates": names, "built_also": []}}


KINDS = {
    "plain": Kind("plain", minutes=15.0),
    "exact": Kind("exact"),
    "one": Kind("one"),
    "all": Kind("all", minutes=25.0),
    "all_quarter": Kind("all", minutes=25.0, beta_share=0.25),
    "plain_pc": Kind("plain", "pc_darts", 8.0),
    "all_pc": Kind("all", "pc_darts"),
}


def task_of(kind: Kind, library: MultiplierLibrary, batch: int) -> Task:
    """Random images enough for the steps of an epoch."""
    table = kind.settings(library)
    table["search"]["batch_size"] = batch
    table |= {"device": "cuda", "precision": "bf16"}
    table["space"] = {"channels": SPACE.channels, "cells": SPACE.cells, "nodes": SPACE.nodes}
    splits = {name: _random(STEPS * batch) for name in ("train", "validation", "test")}
    data = DataSet("random", SPACE.classes, 3, 32, 1 / 255, splits)
    config: Config = config_from_table(table)
    return Task(config, data, SPACE, library)


def _random(count: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, 32, 32)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(SPACE.classes, (count,), generator=generator))


@torch.no_grad()
def check() -> None:
    """Raises AssertionError where merged cells differ from plain ones, in float32."""
    torch.manual_seed(0)
    exact = Candidates([LUT.exact(a_signed=True, b_signed=True)])
    plain = Supernet(SPACE, exact, exact, real=True).cuda()
    merged = copy.deepcopy(plain)
    for net, merges in ((plain, False), (merged, True)):
        for cell in net.cells:
            assert isinstance(cell, Cell)
            cell.merged = merges
    images = Batch.random(16, "cuda").images
    torch.testing.assert_close(merged(images), plain(images), rtol=1e-3, atol=1e-3)


def milliseconds(search: Search, epoch: int) -> float:
    """Of a step of that epoch, once its steps are graphs; its losses are finite."""
    search.epoch = epoch
    quiet = Progress(quiet=True)
    search.one_epoch(quiet)
    result = search.one_epoch(quiet)
    assert abs(result.train_loss) < 1e4, result
    return 1e3 * result.seconds / STEPS


def measure(name: str, library: MultiplierLibrary, batch: int) -> None:
    kind = KINDS[name]
    torch.cuda.reset_peak_memory_stats()
    search = Search(task_of(kind, library, batch))
    resting, full = (milliseconds(search, epoch) for epoch in (0, 1))
    print_measurement(Measurement(f"cuda_search_step_{name}", round(full, 1), "ms"))
    print_measurement(Measurement(f"cuda_search_resting_step_{name}", round(resting, 1), "ms"))
    rest = RESTING if kind.strategy == "pc_darts" else 0
    taken = full * (EPOCHS - rest) + resting * rest
    minutes = taken * (IMAGES // batch) / 60_000
    metric = f"cuda_search_{name}"
    print_measurement(Measurement(metric, round(minutes, 1), "min", kind.minutes))
    gib = torch.cuda.max_memory_allocated() / 2**30
    print_measurement(Measurement(f"{metric}_memory", round(gib, 2), "GiB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, required=True, help="a run's luts folder")
    parser.add_argument("--batch", type=int, default=256, help="images")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("a CUDA device must be here, there is none")
    torch.backends.cudnn.benchmark = True
    print_machine()
    print(json.dumps({"gpu": torch.cuda.get_device_name()}), flush=True)
    check()
    library = MultiplierLibrary.load(arguments.library)
    for name in arguments.kinds:
        measure(name, library, arguments.batch)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
