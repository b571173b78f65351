"""A small task for tests of sweeps: three tables, few digits, two operations."""

from pathlib import Path
from typing import Any

import pytest

from cosearch import task as task_module
from cosearch.config import Config, config_from_table
from cosearch.data import DataSet, Split, load_data_set
from cosearch.sweep.folder import SweepFolder
from cosearch.sweep.plan import Plan
from cosearch.task import Task
from hw.costs import Cost
from lut import LUT, LibraryEntry, MultiplierLibrary, error_metrics
from lut.library import NamedBasis

from ..lut.tables import truncated

NAMES = ("mul8s_array", "mul8s_truncated_k5", "mul8s_truncated_k7")
TABLES = {"mul8s_array": 0, "mul8s_truncated_k5": 5, "mul8s_truncated_k7": 7}
ENERGIES = {"mul8s_array": 800.0, "mul8s_truncated_k5": 600.0, "mul8s_truncated_k7": 400.0}
IMAGES = 48


def config(**space: Any) -> Config:
    return config_from_table(
        {
            "threads": 1,
            "space": {
                "channels": 4,
                "nodes": 1,
                "operations": ["none", "skip_connect", "sep_conv_3x3"],
                **space,
            },
            "multipliers": {"candidates": NAMES, "built_also": []},
            "search": {"epochs": 1, "batch_size": 16, "warmup_share": 0.0},
            "train": {"epochs": 1, "batch_size": 16},
        }
    )


def library() -> MultiplierLibrary:
    entries = tuple(_entry(name) for name in NAMES)
    built = MultiplierLibrary(entries, "example", 500.0)
    return MultiplierLibrary(entries, "example", 500.0, (NamedBasis(NAMES, built.basis(NAMES)),))


def few_digits(name: str, seed: int, settings: object = None) -> DataSet:
    data = load_data_set(name, seed)
    splits = {
        name: Split(split.images[:IMAGES], split.labels[:IMAGES])
        for name, split in data.splits.items()
    }
    return DataSet(data.name, data.classes, data.channels, data.size, data.pixel_scale, splits)


def sweep_folder(path: Path, plan: Plan, settings: Config | None = None) -> SweepFolder:
    """A new sweep whose multipliers are there."""
    sweep = SweepFolder.create(path, settings or config(), plan)
    run = sweep.multipliers()
    library().save(run.luts)
    run.finish("lut", 0.0)
    return sweep


def small_task(path: Path, monkeypatch: pytest.MonkeyPatch, settings: Config | None = None) -> Task:
    monkeypatch.setattr(task_module, "load_data_set", few_digits)
    plan = Plan(("random",), (0.1,), (0,))
    return Task.of(sweep_folder(path, plan, settings).multipliers())


def _entry(name: str) -> LibraryEntry:
    plain = truncated(TABLES[name])
    lut = LUT(plain.table, a_signed=True, b_signed=True, name=name)
    energy = ENERGIES[name]
    cost = Cost(energy, energy, 0.0, 0.0, 1000.0, 300.0, 0.0, "example", 500.0, "uniform")
    return LibraryEntry(lut, "truncated", cost, error_metrics(lut))
