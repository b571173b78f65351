"""Genotypes as choices and what they are judged by, against the search's and the evaluation's own
code.
"""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cosearch.batches import Batches
from cosearch.config import OPERATIONS
from cosearch.genotype import Genotype, MultiplierChoice
from cosearch.progress import Progress
from cosearch.searching import Search
from cosearch.space import SearchSpace
from cosearch.sweep.assessment import (
    assess,
    epoch_images,
    inference_energy_nj,
    limits,
    parameter_count,
    search_images,
)
from cosearch.sweep.encoding import Encoding
from cosearch.task import Task
from cosearch.training import network_for
from export import integerise

from .small import supernet
from .sweep_example import config, small_task


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    settings = config(nodes=2, operations=OPERATIONS)
    return small_task(tmp_path / "sweep", monkeypatch, settings)


def drawn(encoding: Encoding, generator: random.Random) -> dict[str, int]:
    return {name: generator.randrange(count) for name, count in encoding.alternatives.items()}


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_every_choice_is_a_genotype_and_back(nodes: int) -> None:
    space = SearchSpace(4, 3, nodes, OPERATIONS, image_channels=1, classes=10)
    multipliers = tuple(MultiplierChoice(f"m{i}", f"{i}" * 64) for i in range(3))
    encoding, generator = Encoding(space, multipliers), random.Random(nodes)
    for _ in range(200):
        choices = drawn(encoding, generator)
        genotype = encoding.genotype(choices)
        again = encoding.choices(genotype)
        assert encoding.genotype(again) == genotype
        assert list(again) == list(encoding.alternatives)
        # Only multipliers of what multiplies nothing may differ.
        assert all(again[name] in (choices[name], 0) for name in again)
        assert Genotype.from_json(genotype.to_json()) == genotype


def test_what_a_search_selects_can_be_chosen() -> None:
    for seed in range(5):
        net = supernet(seed)
        for parameter in net.architecture_parameters():
            torch.nn.init.normal_(parameter)
        choices = tuple(MultiplierChoice(lut.name, lut.digest) for lut in net.candidates.luts)
        encoding = Encoding(net.space, choices)
        found = net.genotype()
        assert encoding.genotype(encoding.choices(found)) == found


def test_random_genotypes_train_and_are_within_the_limits(task: Task) -> None:
    encoding, generator, bounds = Encoding.of(task), random.Random(0), limits(task)
    for _ in range(3):
        genotype = encoding.genotype(drawn(encoding, generator))
        judged = assess(task, genotype, 1)
        assert 0 <= judged.accuracy <= 1
        assert all(0 < x <= 1 for x in bounds.relative(judged.objectives)[1:])
        assert judged.images == 48


def test_a_judgement_is_repeated_exactly(task: Task) -> None:
    encoding = Encoding.of(task)
    genotype = encoding.genotype(drawn(encoding, random.Random(3)))
    one = assess(task, genotype, 2)
    torch.rand(5)
    two = assess(task, genotype, 2)
    assert replace(one, seconds=0.0) == replace(two, seconds=0.0)


def test_energy_is_that_of_the_exported_layers(task: Task) -> None:
    encoding, generator = Encoding.of(task), random.Random(1)
    for _ in range(3):
        genotype = encoding.genotype(drawn(encoding, generator))
        network = network_for("approximate", task, genotype)
        energy = inference_energy_nj(network, task)
        with torch.no_grad():  # ranges for the integer network
            network.train()(torch.rand(4, *task.input_shape))
        integer = integerise(network.eval(), task.input_shape, task.data.pixel_scale)
        energies = (
            node.macs * task.library[node.lut.name].cost.energy_fj for node in integer.convolutions
        )
        assert energy == pytest.approx(sum(energies) * 1e-6)


def test_limits_are_those_of_the_dearest_operation(task: Task) -> None:
    bounds, encoding = limits(task), Encoding.of(task)
    sep_conv = encoding.operations.index("sep_conv_5x5")
    choices = {n: sep_conv if n.endswith("operation") else 0 for n in encoding.alternatives}
    network = network_for("approximate", task, encoding.genotype(choices))
    assert bounds.energy_nj == pytest.approx(inference_energy_nj(network, task))
    assert bounds.parameters == parameter_count(network)
    assert bounds.error == pytest.approx(0.9)


@pytest.mark.parametrize("size", [5, 16, 48, 64])
def test_images_are_counted_as_batches_give_them(task: Task, size: int) -> None:
    split = task.data.splits["train"]
    given = Batches(split, 1.0, size).epoch(torch.Generator())
    assert epoch_images(split, size) == sum(len(batch.labels) for batch in given)


def test_images_of_a_search_are_those_of_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = small_task(tmp_path / "sweep", monkeypatch)
    search = Search(task)
    seen = 0

    def step(at: object) -> object:
        nonlocal seen
        seen += len(at.train.labels) + len(at.validation.labels)  # type: ignore[attr-defined]
        return plain(at)  # type: ignore[arg-type]

    plain = search.strategy.step
    search.strategy.step = step  # type: ignore[method-assign, assignment]
    search.one_epoch(Progress(quiet=True))
    assert seen == search_images(task, 1)
