"""Memory said before the start against what is measured; gradient checkpointing changes no bit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from cosearch.config import config_from_table
from cosearch.memory import MIB, Memory, check_memory, peak_bytes
from cosearch.passes import frozen
from cosearch.searching import Search
from cosearch.strategies import STRATEGIES, Step, strategy
from cosearch.training import Training
from hw.errors import InputError

from .smooth import batch, objective, optimisers, tiny
from .test_searching import _same, small_search

CPU = torch.device("cpu")


def _profiled_peak(work: Any) -> int:
    """The most bytes that the CPU's allocator had given out at one time, beside those of before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    now = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def test_peaks_are_those_of_tensors_that_live() -> None:
    def work() -> None:
        one = torch.zeros(1000)
        two = one + 1
        del one
        three = two * 2
        two.add_(1)
        assert three.view(10, 100).shape == (10, 100)

    assert peak_bytes(work, CPU) == 8000


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"strategy": "gdas"}])
@pytest.mark.parametrize("images", [16, 48])
def test_predicted_memory_of_a_search_is_near_what_the_profiler_sees(
    images: int, settings: dict[str, Any]
) -> None:
    search = small_search(emulated=True, **settings)
    before = copy.deepcopy(search.state())
    predicted = search.memory().of_a_step(images)
    assert _same(before, search.state())
    step = _step_of(search, images)
    step()
    search.draws = torch.Generator().manual_seed(0)
    assert predicted == pytest.approx(_profiled_peak(step), rel=0.25)


def _step_of(search: Search, images: int) -> Callable[[], object]:
    train, validation = (search._first_images(name, images) for name in ("train", "validation"))
    return lambda: search._step(train, validation, 0.0)


@pytest.mark.parametrize("images", [16, 48])
def test_predicted_memory_of_a_training(images: int) -> None:
    search = small_search()
    training = Training("fp32", search.task, search.genotype())
    predicted = training.memory().of_a_step(images)
    some = search._first_images("train", images)
    training._step(some)
    measured = _profiled_peak(lambda: training._step(some))
    assert predicted == pytest.approx(measured, rel=0.25)


def test_what_is_said() -> None:
    memory = Memory(2 * MIB, 1.0 * MIB, 0.5 * MIB)
    assert check_memory(memory, "search.batch_size", 16, CPU) == (
        "memory: about 11 MiB for 16 images a step"
    )


def test_too_little_memory_of_a_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * MIB, 9 * MIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * MIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 * MIB)
    memory, device = Memory(2 * MIB, 0.0, 0.5 * MIB), torch.device("cuda", 1)
    assert check_memory(memory, "search.batch_size", 8, device).endswith("6 MiB free on cuda:1")
    with pytest.raises(InputError) as error:
        check_memory(memory, "search.batch_size", 16, device)
    assert str(error.value) == (
        "search.batch_size must be small enough for the 6 MiB that are free on cuda:1, "
        "not 16 images a process, which take about 8 MiB: take a smaller batch, more processes, "
        "search.strategy=pc_darts or search.gradient_checkpointing=true"
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_gradient_checkpointing_changes_no_bit(name: str) -> None:
    states = []
    for checkpointing in (False, True):
        chosen = strategy(name)
        net = tiny(form=chosen.form)
        net.gradient_checkpointing = checkpointing
        draws, optimiser = torch.Generator().manual_seed(0), optimisers(net)
        chosen.step(Step(net, objective(net), optimiser, batch(0), batch(1), False, 0.0, draws))
        states.append(net.state_dict())
    assert _same(*states)


def test_gradient_checkpointing_keeps_less() -> None:
    def peak(checkpointing: bool) -> int:
        net = tiny()
        net.gradient_checkpointing = checkpointing

        def work() -> None:
            with frozen(net.architecture_parameters()):
                some = batch(0, count=16)
                loss = functional.cross_entropy(net(some.images), some.labels)
                torch.autograd.grad(loss, net.weight_parameters(), allow_unused=True)

        return peak_bytes(work, CPU)

    assert peak(True) < 0.7 * peak(False)


def test_truth_is_read_from_an_override() -> None:
    from cosearch.config import Config, overridden, parse_config

    config = overridden(Config(), ["search.gradient_checkpointing=true"])
    assert config.search.gradient_checkpointing is True
    assert parse_config(config.to_toml()) == config
    for wrong in ("yes", "1"):
        with pytest.raises(InputError, match=f"must be true or false, not '{wrong}'"):
            overridden(Config(), [f"search.gradient_checkpointing={wrong}"])
    with pytest.raises(InputError, match="must be true or false, not 1"):
        config_from_table({"search": {"gradient_checkpointing": 1}})
