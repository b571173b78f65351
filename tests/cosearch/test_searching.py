"""The search's loop on few digits: every strategy resumed, the budget, guards and selection."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from cosearch.checkpoint import load_checkpoint, save_checkpoint
from cosearch.choices import Form
from cosearch.config import BETA_GRAINS, Config, EdgeOperations, config_from_table
from cosearch.data import DataSet, Split, load_data_set
from cosearch.energy_lines import LINES
from cosearch.metrics import read_metrics
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.searching import Search
from cosearch.space import SearchSpace
from cosearch.strategies import STRATEGIES, Strategy
from cosearch.strategies.strategy import Step, StepResult
from cosearch.task import Task
from cosearch.training import Training
from hw.errors import InputError
from lut import LUT, ApproxConv2d, MultiplierLibrary, joint_basis

from .costed import DELAYS, ENERGIES, FIGURES
from .small import LUTS
from .smooth import OPERATIONS, without_tables

QUIET = Progress(quiet=True)


NAMES = Config().multipliers.candidates[: len(LUTS)]
NAMED = [
    LUT(lut.table, a_signed=lut.a_signed, b_signed=lut.b_signed, name=name)
    for name, lut in zip(NAMES, LUTS, strict=True)
]


@dataclass(frozen=True)
class SmallLibrary:
    """Three tables with energies, as a library gives them."""

    def luts(self, names: Sequence[str]) -> list[LUT]:
        return [NAMED[NAMES.index(name)] for name in names]

    def basis(self, names: Sequence[str]) -> Any:
        return joint_basis(NAMED)

    def __getitem__(self, name: str) -> Any:
        index = NAMES.index(name)
        cost = SimpleNamespace(energy_fj=ENERGIES[index], delay_ps=DELAYS[index])
        lut = NAMED[index]
        return SimpleNamespace(cost=cost, name=name, lut=lut, digest=lut.digest)

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, NAMES)


def _config(**settings: Any) -> Config:
    search = {"epochs": 2, "batch_size": 16, "warmup_share": 0.0, "partial_channels": 2}
    space = {"channels": 4, "nodes": 1, "operations": OPERATIONS}
    multipliers = {"candidates": list(NAMES), "built_also": []}
    train = {"batch_size": 16}
    table = {
        "search": search | settings,
        "train": train,
        "space": space,
        "multipliers": multipliers,
    }
    return config_from_table(table)


def small_search(
    *,
    emulated: bool = False,
    luts: Path | None = None,
    device: str = "cpu",
    by_edge: tuple[EdgeOperations, ...] = (),
    **settings: Any,
) -> Search:
    """Convolutions without tables, which are quick, unless `emulated`."""
    config, data = replace(_config(**settings), device=device), load_data_set("digits", 0)
    splits = {
        name: Split(split.images[:48], split.labels[:48]) for name, split in data.splits.items()
    }
    few = DataSet(data.name, data.classes, data.channels, data.size, data.pixel_scale, splits)
    space = SearchSpace(4, 3, 1, OPERATIONS, data.channels, data.classes, by_edge=by_edge)
    search = Search(
        Task(config, few, space, cast(MultiplierLibrary, SmallLibrary()), FIGURES, luts=luts)
    )
    if not emulated:
        without_tables(search.supernet)
    return search


def _folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", _config())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return set(one) == set(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_goes_on_from_a_checkpoint_bit_for_bit(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"strategy": name, "energy_budget": 0.6, "beta_decay": 1.0}
    emulated = name == "darts"
    straight = small_search(emulated=emulated, **settings)
    straight.one_epoch(QUIET)
    straight.epoch = 1
    save_checkpoint(tmp_path / "c.pt", straight.state())
    straight.one_epoch(QUIET)
    resumed = small_search(emulated=emulated, **settings)
    torch.rand(3)  # whatever happened before in the process
    resumed.restore(load_checkpoint(tmp_path / "c.pt"), "c.pt")
    resumed.one_epoch(QUIET)
    resumed.epoch = straight.epoch
    assert _same(straight.state(), resumed.state())
    assert straight.genotype() == resumed.genotype()


class EndedError(Exception):
    """In place of the end of the process."""


def _kill_after(steps: int, save: Callable[[], object]) -> Callable[[], None]:
    """Save after every step, and end after so many."""
    left = iter(range(steps - 1))

    def after_step() -> None:
        save()
        if next(left, None) is None:
            raise EndedError

    return after_step


@pytest.mark.parametrize("name", ["darts", "gdas"])
def test_a_search_that_ends_inside_an_epoch_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"strategy": name, "energy_budget": 0.6, "stop_at_skips": 16}
    straight, cut = (small_search(**settings) for _ in range(2))
    expected = straight.one_epoch(QUIET)
    for _ in range(3):  # the last one ends after all steps, before the epoch is counted
        cut = _ended_after_a_step(cut, tmp_path / "c.pt", settings)
    assert cut.begun is not None and cut.begun.tally.steps == 3
    result = cut.one_epoch(QUIET)
    assert vars(result) | {"seconds": 0} == vars(expected) | {"seconds": 0}
    assert _same(straight.state(), cut.state())


def _ended_after_a_step(search: Search, path: Path, settings: dict[str, Any]) -> Search:
    """Another one that goes on from its checkpoint."""
    with pytest.raises(EndedError):
        search.one_epoch(QUIET, _kill_after(1, lambda: save_checkpoint(path, search.state())))
    other = small_search(**settings)
    torch.rand(3)  # whatever happened before in the process
    other.restore(load_checkpoint(path), "c.pt")
    return other


def test_a_run_writes_checkpoints_inside_epochs_and_goes_on_from_them(tmp_path: Path) -> None:
    straight, folder = small_search(checkpoint_minutes=0.0), _folder(tmp_path)
    straight.run(RunFolder.create(tmp_path / "straight", _config()), QUIET)
    cut = small_search(checkpoint_minutes=1e-9)
    cut.strategy = Dying(cut.strategy, 3 + 5)  # three to see how much memory it takes
    with pytest.raises(EndedError):
        cut.run(folder, QUIET)
    resumed, lines = small_search(checkpoint_minutes=1e-9), io.StringIO()
    resumed.run(folder, Progress(lines))
    assert "goes on after epoch 1 and 2 steps" in lines.getvalue()
    one, other = straight.state(), resumed.state()
    assert one.pop("configuration") != other.pop("configuration")
    assert _same(one, other)
    assert [row["epoch"] for row in read_metrics(folder.search_metrics)] == [1, 2]


@dataclass
class Dying:
    """A strategy that ends the search instead of its next step but so many."""

    strategy: Strategy
    steps: int

    @property
    def form(self) -> Form:
        return self.strategy.form

    @property
    def capturable(self) -> bool:
        return self.strategy.capturable

    def step(self, at: Step) -> StepResult:
        self.steps -= 1
        if self.steps < 0:
            raise EndedError
        return self.strategy.step(at)


def test_a_training_that_ends_inside_an_epoch_goes_on_bit_for_bit(tmp_path: Path) -> None:
    search = small_search()
    genotype = search.genotype()
    straight, cut = (Training("fp32", search.task, genotype) for _ in range(2))
    expected = straight.one_epoch()
    with pytest.raises(EndedError):
        cut.one_epoch(_kill_after(2, lambda: save_checkpoint(tmp_path / "c.pt", cut.state())))
    resumed = Training("fp32", search.task, genotype)
    torch.rand(3)
    resumed.restore(load_checkpoint(tmp_path / "c.pt"), "c.pt")
    row = resumed.one_epoch()
    assert (row["loss"], row["accuracy"]) == (expected["loss"], expected["accuracy"])
    assert _same(straight.state(), resumed.state())


@pytest.mark.parametrize("name", ["darts", "gdas", "drnas"])
def test_a_run_under_a_budget_ends_within_it(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"strategy": name, "epochs": 6, "alpha_learning_rate": 0.1}
    search = small_search(**settings, energy_budget=0.6, energy_weight=0.0)
    folder = _folder(tmp_path)
    search.run(folder, QUIET)
    rows = read_metrics(folder.search_metrics)
    assert rows[0]["expected_energy"] > 0.6
    assert rows[-1]["expected_energy"] <= 0.6
    assert all(row["energy_multiplier"] >= 0 for row in rows)
    assert max(row["energy_multiplier"] for row in rows) > 0


def test_a_latency_budget_is_kept_beside_an_energy_weight(tmp_path: Path) -> None:
    search = small_search(epochs=6, alpha_learning_rate=0.1, latency_budget=0.5, energy_weight=0.1)
    folder = _folder(tmp_path)
    search.run(folder, QUIET)
    rows = read_metrics(folder.search_metrics)
    assert rows[0]["expected_latency"] > 0.5 >= rows[-1]["expected_latency"]
    assert max(row["latency_multiplier"] for row in rows) > 0
    assert "energy_multiplier" not in rows[0]
    for row in rows:
        assert row["expected_latency_ms"] > 0
        assert set(row["expected_lines_nj"]) == set(LINES)


@pytest.mark.parametrize("grain", BETA_GRAINS)
def test_every_grain_goes_on_from_a_checkpoint(grain: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"beta_grain": grain, "strategy": "gdas", "latency_weight": 0.1}
    straight = small_search(**settings)
    straight.one_epoch(QUIET)
    save_checkpoint(tmp_path / "c.pt", straight.state())
    resumed = small_search(**settings)
    resumed.restore(load_checkpoint(tmp_path / "c.pt"), "c.pt")
    for search in (straight, resumed):
        search.one_epoch(QUIET)
    assert _same(straight.state(), resumed.state())


def test_a_fixed_multiplier_is_searched_without_betas(tmp_path: Path) -> None:
    name = Config().multipliers.candidates[1]
    search = small_search(fixed_multiplier=name, emulated=True, epochs=1)
    genotype = search.run(_folder(tmp_path), QUIET)
    assert search.supernet.beta_parameters() == []
    assert {choice.sha256 for choice in genotype.multipliers} == {LUTS[1].digest}


def test_a_search_in_real_numbers_knows_the_energy_alone(tmp_path: Path) -> None:
    name = Config().multipliers.candidates[1]
    settings: dict[str, Any] = {"fixed_multiplier": name, "arithmetic": "real", "epochs": 1}
    search = small_search(emulated=True, **settings)
    assert not any(isinstance(module, ApproxConv2d) for module in search.supernet.modules())
    fixed = small_search(fixed_multiplier=name, emulated=True)
    assert search.use.layers == fixed.use.layers
    folder = _folder(tmp_path)
    genotype = search.run(folder, QUIET)
    assert {choice.sha256 for choice in genotype.multipliers} == {LUTS[1].digest}
    assert 0 < read_metrics(folder.search_metrics)[0]["expected_energy"] < 1


def test_a_budget_that_is_no_burden_has_no_multiplier() -> None:
    search = small_search(energy_budget=5.0, energy_weight=0.5)
    search.one_epoch(QUIET)
    assert search.objective.multipliers == {"energy": 0.0}


def test_too_many_skips_end_the_search_with_the_epoch_before(tmp_path: Path) -> None:
    search = small_search(epochs=3, stop_at_skips=0, alpha_learning_rate=1e-9)
    with torch.no_grad():
        search.supernet.alphas["normal"][:, 1] = 1.0
    before = search.supernet.alphas["reduction"].detach().clone()
    folder = _folder(tmp_path)
    genotype = search.run(folder, QUIET)
    assert search.epoch == 1 and len(read_metrics(folder.search_metrics)) == 1
    assert torch.equal(search.supernet.alphas["reduction"], before)
    resumed = small_search(epochs=3, stop_at_skips=0, alpha_learning_rate=1e-9)
    assert resumed.run(folder, QUIET) == genotype and resumed.epoch == 1


def test_skips_during_the_warm_up_end_nothing(tmp_path: Path) -> None:
    search = small_search(epochs=1, stop_at_skips=0, warmup_share=0.9)
    with torch.no_grad():
        search.supernet.alphas["normal"][:, 1] = 1.0
    search.run(_folder(tmp_path), QUIET)
    assert not search.collapsed


def test_hessian_is_recorded_every_so_many_epochs(tmp_path: Path) -> None:
    search, folder = small_search(epochs=2, hessian_every=2), _folder(tmp_path)
    search.run(folder, QUIET)
    one, two = read_metrics(folder.search_metrics)
    assert "hessian_eigenvalue" not in one
    assert isinstance(two["hessian_eigenvalue"], float)


def test_selection_by_perturbation_is_deterministic_and_capped() -> None:
    search = small_search(selection="perturbation", selection_images=16, most_skips=0)
    before = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    one, two = search.genotype(), search.genotype()
    assert one == two
    assert all(gene.operation != "skip_connect" for node in one.normal.nodes for gene in node)
    assert _same(before, search.supernet.state_dict())


@pytest.mark.parametrize("strategy", ["darts", "pc_darts"])
def test_the_selection_keeps_its_budget(strategy: str) -> None:
    """Whatever the strategy's form: the energy is that of all channels."""
    free = small_search(strategy=strategy)
    bounded = small_search(strategy=strategy, selection_budget=0.6)
    assert free.options is None and bounded.options is not None
    digests = [lut.digest for lut in bounded.supernet.candidates.luts]

    def energy(search: Search) -> float:
        assert bounded.options is not None
        choice = bounded.options.choice_of(search.genotype(), digests)
        return bounded.options.relative_energy(choice)

    with torch.no_grad():
        for search in (free, bounded):
            for betas in (search.supernet.betas, search.supernet.preprocess_betas):
                for parameter in betas.values():
                    parameter[..., 0] += 1  # the exact multiplier is the likeliest
    assert energy(free) == 1 and energy(bounded) <= 0.6


def test_a_selection_budget_out_of_reach_ends_before_the_search() -> None:
    with pytest.raises(InputError, match=r"search\.selection_budget must be at least 0\.\d+"):
        small_search(selection_budget=0.1)


def test_betas_learn_by_a_share_of_the_images() -> None:
    layers = small_search(emulated=True, beta_share=0.5).supernet.modules()
    shares = {
        layer.candidates.tables.mixture_share
        for layer in layers
        if isinstance(layer, ApproxConv2d) and len(layer.candidates) > 1
    }
    assert shares == {0.5}
