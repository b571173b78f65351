"""Search strategies compared on the digits: skips, test accuracy, energy, and convergence.

``python -m benchmarks.strategies [--out FILE] [--minutes M] [--strategies NAME …] [--random N]
[--settings KEY=VALUE …]``. Every strategy searches with seeds 0, 1 and 2, first-order DARTS also
with the exact multiplier alone; what is found is trained like N random networks. Settings are the
default ones with `SEARCH_EPOCHS` and `TRAIN_EPOCHS` in place of theirs, and those given: another
data set, for example. Each network is a line of the JSON file as soon as it is trained: the same
command goes on where it was stopped. At the end a chart is drawn beside the file, as SVG.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from cosearch.assignment import inner_layers
from cosearch.config import EXACT_MULTIPLIER, STRATEGIES, Config, load_config
from cosearch.genotype import Genotype
from cosearch.layers import layer_macs
from cosearch.pipeline import run_stage
from cosearch.progress import Progress
from cosearch.report.charts import Series, curves
from cosearch.report.standalone import standalone
from cosearch.run_folder import RunFolder
from cosearch.searching import Search
from cosearch.selection import normal_skips
from cosearch.supernet import Supernet
from cosearch.task import Task
from cosearch.training import Training
from export import integerise
from hw.files import read_json, write_json, write_text
from lut import Candidates

SEARCH_EPOCHS, TRAIN_EPOCHS = 5, 6
SEEDS = (0, 1, 2)
RANDOM_NETWORKS = 10
QUIET = Progress(quiet=True)
Row = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A search (or, by the strategy "random", none) and its training."""

    strategy: str
    seed: int
    exact_only: bool = False

    @property
    def name(self) -> str:
        only = ", exact multiplier only" if self.exact_only else ""
        return f"{self.strategy}{only}"

    def of(self, row: Row) -> bool:
        """Whether `row` is this trial's."""
        return bool(row["name"] == self.name and row["seed"] == self.seed)


@dataclass(frozen=True)
class Plan:
    """Which strategies, how many random networks, and settings as on the command line."""

    strategies: Sequence[str] = STRATEGIES
    random: int = RANDOM_NETWORKS
    settings: Sequence[str] = ()

    def config(self, strategy: str = "darts", seed: int = 0) -> Config:
        epochs = [f"search.epochs={SEARCH_EPOCHS}", f"train.epochs={TRAIN_EPOCHS}"]
        own = ["threads=1", f"search.strategy={strategy}", *epochs, *self.settings]
        return load_config(None, own, seed)


def trials(plan: Plan) -> Iterator[Trial]:
    """All of them; the slowest strategy last."""
    yield from (Trial("random", number) for number in range(plan.random))
    ordered = sorted(plan.strategies, key=lambda name: name == "darts_second_order")
    for strategy in ordered:
        yield from (Trial(strategy, seed) for seed in SEEDS)
        if strategy == "darts":
            yield from (Trial(strategy, seed, exact_only=True) for seed in SEEDS)


def row_of(trial: Trial, luts: RunFolder, plan: Plan) -> Row:
    """What the trial has found, trained and judged on the test images as integers."""
    task = task_of(trial, luts, plan)
    genotype, accuracies = searched(task) if trial.strategy != "random" else random_network(task)
    training = Training("approximate", task, genotype)
    while training.epoch < task.config.train.epochs:
        training.one_epoch()
        training.epoch += 1
    test = task.data.splits["test"]
    integers = integerise(training.network, task.input_shape, task.data.pixel_scale)
    correct = integers(test.images).argmax(1) == test.labels
    return {
        "name": trial.name,
        "seed": trial.seed,
        "skips": normal_skips(genotype),
        "without_weights": without_weights(genotype),
        "test_accuracy": int(correct.sum()) / len(test),
        **energies(training.network, task),
        "validation_accuracy": accuracies,
        "genotype": genotype.digest,
    }


def task_of(trial: Trial, luts: RunFolder, plan: Plan) -> Task:
    """The default job with its multipliers, shortened; a random network has the data of a seed."""
    strategy = "darts" if trial.strategy == "random" else trial.strategy
    seed = trial.seed % len(SEEDS)
    config = plan.config(strategy, seed)
    if trial.exact_only:
        only = replace(config.multipliers, candidates=(EXACT_MULTIPLIER,))
        config = replace(config, multipliers=only)
    task = Task.of(RunFolder(luts.path, config, dict(luts.record)))
    return replace(task, config=replace(config, seed=trial.seed))


def searched(task: Task) -> tuple[Genotype, list[float]]:
    """The genotype, and the validation accuracy of the supernet epoch by epoch."""
    search, accuracies = Search(task), []
    while search.epoch < task.config.search.epochs:
        accuracies.append(search.one_epoch(QUIET).validation_accuracy)
        search.epoch += 1
    return search.genotype(), accuracies


def random_network(task: Task) -> tuple[Genotype, list[float]]:
    """Edges, operations and multipliers at random: those of a supernet with random logits."""
    torch.manual_seed(task.config.seed)
    luts = task.library.luts(task.config.multipliers.candidates)
    supernet = Supernet(task.space, Candidates(luts), Candidates(luts[:1]))
    with torch.no_grad():
        for parameter in supernet.architecture_parameters():
            parameter.normal_()
    return supernet.genotype(), []


def without_weights(genotype: Genotype) -> int:
    """Skips and pools in the normal cell, whose edges compute nothing that is trained."""
    operations = [gene.operation for node in genotype.normal.nodes for gene in node]
    return sum("conv" not in operation for operation in operations)


def energies(network: torch.nn.Module, task: Task) -> dict[str, float]:
    """Energy of all multiplications of one inference in nJ, and relative to the same network with
    the exact multiplier.
    """
    macs = layer_macs(network, task.input_shape)
    of_one = {entry.name: entry.cost.energy_fj for entry in task.library}
    inner, exact = inner_layers(network), of_one[EXACT_MULTIPLIER]
    used = sum(
        count * (of_one[inner[path].candidates.luts[0].name] if path in inner else exact)
        for path, count in macs.items()
    )
    total = exact * sum(macs.values())
    return {"energy_nj": round(used * 1e-6, 2), "relative_energy": used / total}


def table(rows: Sequence[Row]) -> str:
    """Medians in Markdown, a line a strategy."""
    lines = [
        "| search | networks | skips | without weights | accuracy (least) | energy | relative |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        of_name = [row for row in rows if row["name"] == name]
        accuracies = [100 * row["test_accuracy"] for row in of_name]
        skips, weightless = (
            ", ".join(str(row[key]) for row in of_name) for key in ("skips", "without_weights")
        )
        absolute = median(row["energy_nj"] for row in of_name)
        energy = 100 * median(row["relative_energy"] for row in of_name)
        lines.append(
            f"| {name} | {len(of_name)} | {skips} | {weightless} | {median(accuracies):.1f} % "
            f"({min(accuracies):.1f} %) | {absolute:.0f} nJ | {energy:.0f} % |"
        )
    return "\n".join(lines)


def convergence(rows: Sequence[Row]) -> str:
    """Validation accuracy of first-order DARTS's supernet with and without approximate ones."""
    return standalone(
        curves(
            "Convergence of the supernet",
            "validation accuracy (%), mean of seeds",
            [
                _mean_curve(rows, "darts", "with approximate multipliers", "blue"),
                _mean_curve(rows, "darts, exact multiplier only", "exact only", "vermilion"),
            ],
        )
    )


def _mean_curve(rows: Sequence[Row], name: str, label: str, colour: str) -> Series:
    runs = [row["validation_accuracy"] for row in rows if row["name"] == name]
    epochs = list(zip(*runs, strict=True))
    ys = [100 * mean(values) for values in epochs]
    return Series(label, list(range(1, len(ys) + 1)), ys, colour, dashed=colour != "blue")


def measured(out: Path, deadline: float, plan: Plan) -> list[Row]:
    """All rows that there are by `deadline`; those in the file are not made again."""
    rows = list(read_json(out)["networks"]) if out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        config = plan.config()
        luts = RunFolder.create(Path(folder) / "luts", config)
        run_stage(luts, "lut", QUIET)
        for trial in trials(plan):
            if any(trial.of(row) for row in rows) or time.monotonic() > deadline:
                continue
            rows.append(row_of(trial, luts, plan))
            epochs = {
                "search_epochs": config.search.epochs,
                "train_epochs": config.train.epochs,
                "settings": [s for s in plan.settings if not s.startswith("data.path=")],
            }
            write_json(out, {**epochs, "networks": rows})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/strategies.json"))
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no trial after so long")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--random", type=int, default=RANDOM_NETWORKS, help="random networks")
    parser.add_argument("--settings", nargs="*", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    plan = Plan(given.strategies, given.random, given.settings)
    rows = measured(given.out, time.monotonic() + 60 * given.minutes, plan)
    if any(row["name"] == Trial("darts", 0, exact_only=True).name for row in rows):
        write_text(given.out.with_suffix(".svg"), convergence(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
