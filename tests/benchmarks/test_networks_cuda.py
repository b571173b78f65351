"""The benchmark of networks on a GPU, as far as it goes without one."""

import json
from dataclasses import dataclass
from enum import Enum

import pytest
import torch
from torch import Tensor, nn

from benchmarks import networks_cuda
from benchmarks.emulation_cuda import table_of
from benchmarks.networks_cuda import (
    PROFILED,
    Batch,
    Case,
    Times,
    Work,
    check,
    checked_cases,
    checked_layers,
    emulated,
    heaviest,
    in_turn,
    inference,
    parser,
    prepare,
    print_memory,
    print_times,
    target,
    training,
)
from lut import ApproxConv2d


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False),
        nn.Conv2d(8, 12, 1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.Conv2d(12, 8, 3, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


@pytest.fixture
def only_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks_cuda, "NETWORKS", {"small": small})


def images(count: int = 4) -> Tensor:
    return Batch.random(count, "cpu").images


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("rank", ["1", "5", "full"])
def test_an_emulated_network_passes(only_small: None, rank: str) -> None:
    network = Case("small", rank).build(images())
    assert list(checked_layers(network)) == ["0", "3", "4", "7"]
    check(network, images())


class Off(ApproxConv2d):
    """One part in a hundred too much."""

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        return super().forward(x, mixture) * 1.01


def test_a_layer_with_other_results_does_not_pass(only_small: None) -> None:
    network = Case("small", "5").build(images())
    network.get_submodule("7").__class__ = Off
    with pytest.raises(AssertionError, match="results of 7 must be the scaled sums"):
        check(network, images())


def test_sums_other_than_the_tables_do_not_pass(
    only_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Case("small", "5").build(images())
    right = networks_cuda.approx_conv2d

    def off(*operands: Tensor, backend: str | None, **settings: int) -> Tensor:
        return right(*operands, backend=backend, **settings) + (backend is None)

    monkeypatch.setattr(networks_cuda, "approx_conv2d", off)
    with pytest.raises(AssertionError, match="sums of 0 must be those of the table"):
        check(network, images())


def test_a_case_that_fails_is_one_line(
    only_small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusing(rank: str) -> object:
        if rank == "5":
            raise ValueError("no table\nof this rank")
        return table_of(rank)

    monkeypatch.setattr(networks_cuda, "table_of", refusing)
    assert checked_cases("small", ["5", "full"], "cpu") == [Case("small", "full")]
    assert printed(capsys) == [
        {"metric": "cuda_check_small_rank_5", "error": "ValueError: no table"}
    ]


def test_values_stay_finite_whatever_the_table() -> None:
    layers = [
        layer
        for _ in range(24)
        for layer in (nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
    ]
    network = emulated(nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), *layers), table_of("full"))
    prepare(network, images(2))
    with torch.no_grad():
        result = network.eval()(images(2))
    assert 0.5 < result.std() < 2
    assert {n.momentum for n in network.modules() if isinstance(n, nn.BatchNorm2d)} == {0.1}


def test_the_work_of_both_modes(only_small: None) -> None:
    batch, network = Batch.random(4, "cpu"), Case("small", "5").build(images())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inference(network, batch)()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    step = training(network, batch)
    step()
    step()
    for name, parameter in network.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_images_are_the_same_in_every_run() -> None:
    assert torch.equal(images(), images())
    assert images().is_contiguous(memory_format=torch.channels_last)


def test_measured_in_turn() -> None:
    calls: list[str] = []

    def clock(work: Work, repetitions: int) -> float:
        for _ in range(repetitions):
            work()
        return 30.0 if calls[-1] == "emulated" else 10.0

    times = in_turn(lambda: calls.append("emulated"), lambda: calls.append("exact"), clock)
    assert times == Times(emulated=30.0, exact=10.0)
    assert times.ratio == 3.0
    assert calls[-6:] == ["emulated", "exact", "exact"] * 2


@pytest.mark.parametrize(
    ("mode", "rank", "limit"),
    [
        ("inference", "1", 1.5),
        ("inference", "2", 2.5),
        ("inference", "5", 2.5),
        ("training", "18", 2.5),
        ("training", "19", 4.5),
        ("training", "full", 4.5),
        ("inference", "full", 10.0),
    ],
)
def test_targets(mode: str, rank: str, limit: float) -> None:
    assert target(mode, rank) == limit


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_times(Case("darts", "5"), "inference", "graph", Times(2.0, 1.0))
    print_memory(Case("darts", "5"), 3200.0, 2000.0)
    found = [tuple(row.values()) for row in printed(capsys)]
    assert found == [
        ("cuda_inference_graph_darts_rank_5", 2.0, "ratio", 2.5, True),
        ("cuda_inference_graph_darts_rank_5_emulated", 2.0, "ms", None, None),
        ("cuda_inference_graph_darts_rank_5_exact", 1.0, "ms", None, None),
        ("cuda_training_memory_darts_rank_5", 1.6, "ratio", 1.5, False),
        ("cuda_training_memory_darts_rank_5_emulated", 3200.0, "MiB", None, None),
        ("cuda_training_memory_darts_rank_5_exact", 2000.0, "MiB", None, None),
    ]


class Kind(Enum):
    CPU = 0
    CUDA = 1


@dataclass
class Event:
    key: str
    self_device_time_total: float
    count: int = PROFILED
    device_type: Kind = Kind.CUDA
    is_user_annotation: bool = False


def test_the_heaviest_kernels() -> None:
    events = [
        Event("small", 30.0),
        Event("large", 600.0, 2 * PROFILED),
        Event("aten::conv2d", 900.0, device_type=Kind.CPU),
        Event("step", 900.0, is_user_annotation=True),
        *(Event(f"tiny {number}", 3.0) for number in range(40)),
    ]
    rows = heaviest(events)
    assert rows[:3] == [
        {"kernel": "all kernels", "us": 250.0, "calls": 43.0},
        {"kernel": "large", "us": 200.0, "calls": 2.0},
        {"kernel": "small", "us": 10.0, "calls": 1.0},
    ]
    assert len(rows) == 26


def test_arguments() -> None:
    usual = parser().parse_args([])
    assert usual.networks == ["darts", "resnet20", "resnet50", "mobilenet_v2"]
    assert usual.ranks == ["1", "5", "18", "full"]
    assert usual.mode == ["inference", "training"]
    assert usual.batch is None and not usual.eager and not usual.profile
    given = parser().parse_args(["--networks", "darts", "--mode", "training", "--batch", "8"])
    assert (given.networks, given.mode, given.batch) == (["darts"], ["training"], 8)


@pytest.mark.parametrize("rank", ["0", "256", "half", "-1"])
def test_ranks_that_there_are_not(rank: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args([f"--ranks={rank}"])
    assert f"a rank must be 1 to 255 or 'full', not '{rank}'" in capsys.readouterr().err
