"""Training: drop path and the auxiliary head; on a GPU its steps as CUDA graphs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cosearch.auxiliary import auxiliary_head, auxiliary_place
from cosearch.checkpoint import load_checkpoint, save_checkpoint
from cosearch.drop_path import DropPath
from cosearch.network import DiscreteCell
from cosearch.operations import OPERATIONS as OPERATION_BUILDERS
from cosearch.operations import Arithmetic, changes_nothing
from cosearch.space import SearchSpace
from cosearch.training import Training
from hw.errors import InputError

from .smooth import OPERATIONS
from .test_searching import EndedError, _kill_after, _same, small_search

CPU = torch.device("cpu")


def training(device: str = "cpu", role: str = "fp32", **settings: Any) -> Training:
    """Of what a small search begins with."""
    search = small_search(emulated=device == "cuda" or role == "approximate", device=device)
    train = replace(search.task.config.train, epochs=4, **settings)
    task = replace(search.task, config=replace(search.task.config, train=train))
    return Training(role, task, search.genotype())


def test_drop_path_keeps_the_mean_and_whole_images() -> None:
    torch.manual_seed(0)
    drop = DropPath(CPU)
    drop.set(0.25)
    x = torch.ones(4000, 2, 3, 3)
    y = drop(x)
    values = y.flatten(1)
    assert torch.equal(values.amin(1), values.amax(1))
    assert values.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(y.mean()) == pytest.approx(1.0, abs=0.03)
    drop.set(0.0)
    assert torch.equal(drop(x), x)


def test_skips_are_never_left_out() -> None:
    cell = training().network.cells[0]
    assert isinstance(cell, DiscreteCell)
    cell.edges[0] = OPERATION_BUILDERS["skip_connect"](4, 1, Arithmetic(None, affine=True))
    seen: list[int] = []

    def drop(result: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return result

    x = torch.rand(2, 12, 8, 8)
    whole = cell.eval()(x, x)
    assert torch.equal(cell(x, x, drop), whole)
    skips = sum(changes_nothing(edge) for edge in cell.edges)
    assert skips >= 1 and len(seen) == len(cell.edges) - skips


def test_the_probability_grows_linearly() -> None:
    one = training(drop_path=0.4)
    assert one.drop is not None
    for epoch, expected in ((0, 0.0), (1, 0.1), (3, 0.3)):
        one.epoch = epoch
        one.one_epoch()
        assert float(one.drop.probability) == pytest.approx(expected)


@pytest.mark.parametrize("size", [8, 32, 7])
def test_the_head_adapts_to_the_size_of_images(size: int) -> None:
    space = SearchSpace(4, 3, 2, OPERATIONS, 1, 10)
    assert auxiliary_place(space) == 2
    channels = 2 * space.places[2].channels
    assert auxiliary_head(space)(torch.rand(2, channels, size, size)).shape == (2, 10)
    assert auxiliary_place(replace(space, cells=20)) == 13


def test_the_head_trains_the_network_and_is_no_part_of_it() -> None:
    plain, headed = training(), training(auxiliary_weight=0.4)
    assert headed.auxiliary is not None
    before = [p.detach().clone() for p in headed.auxiliary.parameters()]
    rows = [one.one_epoch() for one in (plain, headed)]
    assert plain.network.state_dict().keys() == headed.network.state_dict().keys()
    assert not any(map(torch.equal, before, headed.auxiliary.parameters()))
    stems = [one.network.stem[0].weight for one in (plain, headed)]
    assert not torch.equal(*stems)
    assert 0 < rows[1]["loss"] < 10


def test_a_regularised_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"auxiliary_weight": 0.4, "drop_path": 0.5, "cutout": 2}
    straight, cut = training(**settings), training(**settings)
    straight.epoch = cut.epoch = 2
    torch.manual_seed(1)
    expected = straight.one_epoch()
    torch.manual_seed(1)
    with pytest.raises(EndedError):
        cut.one_epoch(_kill_after(2, lambda: save_checkpoint(tmp_path / "c.pt", cut.state())))
    resumed = training(**settings)
    torch.rand(3)
    resumed.restore(load_checkpoint(tmp_path / "c.pt"), "c.pt")
    row = resumed.one_epoch()
    assert (row["loss"], row["accuracy"]) == (expected["loss"], expected["accuracy"])
    assert _same(straight.state(), resumed.state())


def test_crops_leave_something_of_an_image() -> None:
    search = small_search()
    data = replace(search.task.config.data, crop_padding=8)
    task = replace(search.task, config=replace(search.task.config, data=data))
    with pytest.raises(InputError, match=r"less than the images' size \(8\), not 8"):
        task.augmentation()


def test_an_approximate_network_trains() -> None:
    one = training(role="approximate", auxiliary_weight=0.4, drop_path=0.2, cutout=2)
    losses = [one.one_epoch()["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    assert one.memory().total(16) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA device is not here")
@pytest.mark.parametrize("role", ["approximate", "fp32"])
def test_captured_steps_of_a_training_are_ordinary_ones(role: str) -> None:
    captured, ordinary = training("cuda", role), training("cuda", role)
    assert captured.captured is not None
    ordinary.captured = None
    for _ in range(3):
        one, two = captured.one_epoch(), ordinary.one_epoch()
        captured.epoch += 1
        ordinary.epoch += 1
        assert one["loss"] == pytest.approx(two["loss"], rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA device is not here")
def test_a_regularised_training_is_captured() -> None:
    one = training("cuda", "approximate", auxiliary_weight=0.4, drop_path=0.2, cutout=2)
    losses = [one.one_epoch()["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    assert one.memory().total(16) > 0
