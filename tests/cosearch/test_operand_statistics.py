"""Operands gathered in the supernet: histograms against a list of all pairs, energies against the
library, and a search that goes on with them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from cosearch.checkpoint import load_checkpoint, save_checkpoint
from cosearch.config import Config, Hardware
from cosearch.layer_use import LayerUse
from cosearch.mapped_netlists import MappedNetlists, read_mapped_netlists, write_mapped_netlists
from cosearch.operand_statistics import OperandStatistics, gathered_statistics, layer_histograms
from cosearch.progress import Progress
from cosearch.terms import MultiplierFigures
from hw.costs import multiplier_cost
from hw.errors import InputError
from hw.multipliers import build_multiplier
from lut import ApproxConv2d, Candidates

from .costed import costed
from .small import LUTS, SHAPE, images, supernet
from .test_searching import small_search

NAMES = Config().multipliers.candidates[:3]
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def luts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("luts")
    write_mapped_netlists(NAMES, Hardware(), Path("circuits"), folder)
    return folder


@pytest.fixture(scope="module")
def netlists(luts: Path) -> MappedNetlists:
    return read_mapped_netlists(NAMES, Hardware(), luts)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "kernel"),
    [(1, 1, 1, 1, 3), (2, 1, 1, 4, 3), (1, 4, 2, 4, 5), (2, 0, 1, 1, 1), (3, 2, 2, 2, 3)],
)
def test_histograms_are_those_of_all_operand_pairs(
    stride: int, padding: int, dilation: int, groups: int, kernel: int
) -> None:
    torch.manual_seed(0)
    layer = ApproxConv2d(
        4, 4, kernel, Candidates(LUTS[:1]), stride=stride, padding=padding, dilation=dilation,
        groups=groups,
    )  # fmt: skip
    x = torch.randn(2, 4, 8, 8)
    output = layer(x)
    activations, weights = layer_histograms(layer, x, output)
    levels = (x / layer.quantiser.scale).round().clamp(-127, 127)
    columns = functional.unfold(levels, kernel, dilation, padding, stride)
    patterns = columns.to(torch.int64).flatten() & 255
    expected = np.bincount(patterns.numpy(), minlength=256) / patterns.numel()
    assert np.allclose(activations, expected, atol=1e-12)
    used = (layer.quantised_weight()[0].to(torch.int64) & 255).flatten().numpy()
    assert np.allclose(weights, np.bincount(used, minlength=256) / used.size, atol=1e-12)


def test_uniform_operands_give_the_librarys_energy(netlists: MappedNetlists) -> None:
    uniform = np.full(256, 1 / 256)
    for name in NAMES:
        expected = multiplier_cost(build_multiplier(name)).energy_fj
        assert netlists.energy_fj(name, uniform, uniform) == pytest.approx(expected, rel=1e-9)
    resting = np.eye(256)[0]
    assert netlists.energy_fj(NAMES[0], resting, resting) < 10.0  # leakage


def test_gathering_leaves_the_supernet_and_the_generator_as_they_are(
    netlists: MappedNetlists,
) -> None:
    net = supernet()
    use = LayerUse.of(net, SHAPE)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    found = gathered_statistics(net, use, [images(4), images(3, seed=1)], netlists)
    assert torch.equal(generator, torch.get_rng_state())
    for name, value in net.state_dict().items():
        assert torch.equal(before[name], value)
    assert found.images == 7
    assert set(found.histograms) == {"stem", "preprocess", "depthwise", "pointwise", "classifier"}
    for activations, weights in found.histograms.values():
        assert activations.sum() == pytest.approx(1) and weights.sum() == pytest.approx(1)
    # What comes after a ReLU is never negative.
    assert found.histograms["depthwise"][0][128:].sum() == 0
    again = OperandStatistics.from_json(found.to_json(), "operands.json")
    assert again.to_json() == found.to_json()
    with pytest.raises(InputError, match="operands.json must hold statistics of operands"):
        OperandStatistics.from_json({"images": 3}, "operands.json")


def test_energies_by_kind_are_those_of_the_objective() -> None:
    net = supernet()
    space = costed(net)
    by_kind = {"depthwise": 0.25}
    figures = (replace(space.candidates[0], by_kind=by_kind), *space.candidates[1:])
    changed = replace(space, candidates=figures)
    assert MultiplierFigures(1.0, 2.0, by_kind).energy("stem") == 1.0
    for index, layer in enumerate(space.use.layers):
        factor = 0.25 if layer.kind == "depthwise" else 1.0
        fj = float(changed.line_fj("multiplications")[index, 0])
        assert fj == factor * layer.shape.macs


def test_a_search_gathers_after_its_warm_up_and_goes_on_with_it(luts: Path, tmp_path: Path) -> None:
    settings = {"operand_statistics": "gathered", "operand_images": 20, "warmup_share": 0.4}
    straight = small_search(emulated=True, luts=luts, **settings)
    uniform = straight.objective.terms[0]
    straight.one_epoch(QUIET)
    assert straight.task.operands is None and straight.objective.terms[0] is uniform
    straight.epoch = 1
    straight.one_epoch(QUIET)
    assert straight.task.operands is not None and straight.objective.terms[0] is not uniform
    energies = straight.task.operands.energies_fj
    assert energies["depthwise"][NAMES[0]] < energies["classifier"][NAMES[0]]
    save_checkpoint(tmp_path / "c.pt", straight.state())
    resumed = small_search(emulated=True, luts=luts, **settings)
    resumed.restore(load_checkpoint(tmp_path / "c.pt"), "c.pt")
    assert resumed.task.operands is not None
    assert resumed.task.operands.to_json() == straight.task.operands.to_json()
    with torch.no_grad():
        expected = [
            search.expectations(search.use(search.supernet.all_choices()))
            for search in (straight, resumed)
        ]
    assert expected[0] == expected[1]


def test_netlists_that_are_missing_are_asked_for(tmp_path: Path, luts: Path) -> None:
    with pytest.raises(InputError, match="mapped.json must exist .* run: cosearch lut --force"):
        read_mapped_netlists(NAMES, Hardware(), tmp_path)
    with pytest.raises(InputError, match="must hold every candidate on the cells of cosearch45"):
        read_mapped_netlists(["mul8s_truncated_k3"], Hardware(), luts)
