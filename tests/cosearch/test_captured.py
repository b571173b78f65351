"""A search on a GPU: its steps as CUDA graphs against ordinary steps, and every strategy there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cosearch.checkpoint import load_checkpoint, save_checkpoint
from cosearch.optimisers import set_rate
from cosearch.searching import Search
from cosearch.strategies import STRATEGIES
from cosearch.strategies.bilevel import laid_out_as

from .test_searching import QUIET, small_search

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA device is not here")


def on_gpu(**settings: Any) -> Search:
    return small_search(emulated=True, device="cuda", **settings)


def numbers(search: Search, epochs: int = 3) -> list[float]:
    """Losses and accuracies of a few epochs, three steps each."""
    found: list[float] = []
    for _ in range(epochs):
        result = search.one_epoch(QUIET)
        search.epoch += 1
        found += [result.train_loss, result.train_accuracy, result.validation_loss]
    return found


@on_a_gpu
@pytest.mark.parametrize("name", ["darts", "pc_darts"])
def test_captured_steps_are_ordinary_ones(name: str) -> None:
    settings: dict[str, Any] = {"strategy": name, "energy_budget": 0.6, "beta_decay": 1.0}
    captured, ordinary = on_gpu(epochs=3, **settings), on_gpu(epochs=3, **settings)
    assert captured.captured is not None
    ordinary.captured = None
    # Two of 48 images may be judged otherwise.
    assert numbers(captured) == pytest.approx(numbers(ordinary), rel=0.05, abs=0.05)
    assert captured.objective.multipliers == pytest.approx(ordinary.objective.multipliers, rel=0.05)
    for one, two in zip(
        captured.supernet.architecture_parameters(),
        ordinary.supernet.architecture_parameters(),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=0.05, atol=0.02)


@on_a_gpu
def test_a_captured_search_warms_up_first() -> None:
    search = on_gpu(epochs=4, warmup_share=0.5)
    before = [p.detach().clone() for p in search.supernet.architecture_parameters()]
    numbers(search, 2)
    after = search.supernet.architecture_parameters()
    assert all(map(torch.equal, before, after))
    numbers(search, 2)
    assert not any(map(torch.equal, before, search.supernet.alpha_parameters()))


@on_a_gpu
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_searches_on_a_gpu(name: str, tmp_path: Path) -> None:
    search = on_gpu(strategy=name, hessian_every=1)
    numbers(search, 1)
    save_checkpoint(tmp_path / "c.pt", search.state())
    resumed = on_gpu(strategy=name, hessian_every=1)
    resumed.restore(load_checkpoint(tmp_path / "c.pt"), "c.pt")
    assert numbers(resumed, 1) == pytest.approx(numbers(search, 1), rel=0.1)
    assert search.genotype().digest
    assert search.memory().total(16) > 0


@on_a_gpu
def test_selection_by_perturbation_and_gathered_operands_work_there() -> None:
    search = on_gpu(selection="perturbation", selection_images=16, latency_budget=0.5)
    numbers(search, 1)
    assert search.genotype().digest


def test_a_rate_changes_in_place_where_it_is_a_tensor() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    plain = torch.optim.SGD([weight], 0.1)
    set_rate(plain, 0.2)
    assert plain.param_groups[0]["lr"] == 0.2
    rate = torch.tensor(0.1)
    set_rate(torch.optim.SGD([weight], rate), 0.2)
    assert float(rate) == pytest.approx(0.2)


@pytest.mark.parametrize("shape", [(4, 1, 3, 3), (4, 3, 1, 1), (4, 3, 2, 2), (5,)])
def test_gradients_are_laid_out_as_their_parameters(shape: tuple[int, ...]) -> None:
    gradient = torch.randn(shape)
    parameter = torch.empty(shape)
    if len(shape) == 4:
        parameter = parameter.contiguous(memory_format=torch.channels_last)
    found = laid_out_as(parameter, gradient)
    assert found.stride() == parameter.stride() and torch.equal(found, gradient)
