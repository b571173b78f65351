"""Selection under a budget against the enumeration of all genotypes of a tiny space."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.assignment import inner_layers
from cosearch.binary_program import Constraint, best_choice, one_of_each
from cosearch.budgeted_selection import (
    PREPROCESS,
    Options,
    budgeted_genotype,
    cheaper_genotypes,
    check_selection_budget,
    dearer_genotypes,
)
from cosearch.config import Config, Search
from cosearch.genotype import CELL_TYPES, Genotype
from cosearch.layers import layer_macs
from cosearch.network import Network
from cosearch.operations import Arithmetic
from cosearch.selection import normal_skips
from cosearch.space import SearchSpace
from cosearch.supernet import Supernet
from hw.errors import InputError
from lut import Candidates

from .small import LUTS, SHAPE

SPACE = SearchSpace(4, 3, 2, ("none", "skip_connect", "sep_conv_3x3"), 1, 10)
TWO = LUTS[:2]
ENERGIES = [1.0, 0.45]
DIGESTS = [lut.digest for lut in TWO]


def supernet(seed: int) -> Supernet:
    torch.manual_seed(seed)
    net = Supernet(SPACE, Candidates(TWO), Candidates(TWO[:1]))
    with torch.no_grad():
        for parameter in net.architecture_parameters():
            parameter.normal_()
    return net


@pytest.fixture(scope="module")
def options() -> Options:
    return Options.of(supernet(0), SHAPE, ENERGIES, ENERGIES[0])


def cells(options: Options, cell_type: str) -> Iterator[tuple[int, ...]]:
    """Every cell of the type, as indices of options."""
    slots: dict[tuple[bool, int], list[int]] = {}
    for index, option in enumerate(options.options):
        if option.cell_type == cell_type:
            slots.setdefault((option.operation == PREPROCESS, option.place), []).append(index)
    for pair in itertools.combinations((2, 3, 4), 2):
        edges = [slots[False, edge] for edge in (0, 1, *pair)]
        yield from itertools.product(slots[True, 0], slots[True, 1], *edges)


def brute_force(
    net: Supernet, options: Options, budget: float, most_skips: int
) -> tuple[float, float]:
    """The highest score of all genotypes within the budget, and the least energy of all."""
    scored = [(_score(net, options, index), index) for index in range(len(options.options))]
    scores = np.array([score for score, _ in scored])
    used = np.array([o.macs * ENERGIES[o.multiplier] for o in options.options])
    exact = np.array([float(o.macs) for o in options.options])
    skips = np.array([o.operation == 1 and o.cell_type == "normal" for o in options.options])
    every = [np.array(list(cells(options, cell_type))) for cell_type in CELL_TYPES]
    if most_skips >= 0:
        every[0] = every[0][skips[every[0]].sum(1) <= most_skips]
    normal, reduction = ([v[cell].sum(1) for v in (scores, used, exact)] for cell in every)
    ratio = (options.fixed_macs + normal[1][:, None] + reduction[1]) / (
        options.fixed_macs + normal[2][:, None] + reduction[2]
    )
    total = np.where(ratio <= budget, normal[0][:, None] + reduction[0], -np.inf)
    return float(total.max()), float(ratio.min())


def _score(net: Supernet, options: Options, index: int) -> float:
    option = options.options[index]
    with torch.no_grad():
        choices = net.choices(option.cell_type)
    if option.operation == PREPROCESS:
        betas = choices.preprocess[option.place].double()
        return float((betas[option.multiplier] / betas.max()).log())
    score = float(choices.alphas[option.place, option.operation].double().log())
    betas = choices.betas[option.place, option.operation].double()
    return score + float((betas[option.multiplier] / betas.max()).log()) * bool(option.macs)


def relative_energy(genotype: Genotype) -> float:
    """Of the network itself, layer by layer."""
    by_digest = {lut.digest: Candidates([lut]) for lut in TWO}
    network = Network(
        SPACE,
        genotype,
        lambda choice: Arithmetic(by_digest[choice.sha256 if choice else DIGESTS[0]], affine=True),
    )
    macs = layer_macs(network, SHAPE)
    energies = dict(zip(DIGESTS, ENERGIES, strict=True))
    inner = inner_layers(network)
    used = sum(
        count * (energies[inner[path].candidates.luts[0].digest] if path in inner else 1.0)
        for path, count in macs.items()
    )
    return used / sum(macs.values())


@given(st.integers(0, 10_000), st.floats(0.5, 1.0), st.sampled_from([-1, 0, 1, 2]))
@settings(max_examples=12)
def test_the_likeliest_genotype_within_the_budget(
    options: Options, seed: int, budget: float, most_skips: int
) -> None:
    net = supernet(seed)
    best, least = brute_force(net, options, budget, most_skips)
    assert options.least_energy(most_skips) == pytest.approx(least)
    if least > budget:
        with pytest.raises(InputError, match=r"search\.selection_budget must be at least"):
            budgeted_genotype(net, options, budget, most_skips)
        return
    genotype = budgeted_genotype(net, options, budget, most_skips)
    chosen = options.choice_of(genotype, DIGESTS)
    assert relative_energy(genotype) == pytest.approx(options.relative_energy(chosen), rel=1e-12)
    assert options.relative_energy(chosen) <= budget
    if most_skips >= 0:
        assert normal_skips(genotype) <= most_skips
    score = sum(_score(net, options, index) for index in np.flatnonzero(chosen))
    usual = net.genotype(most_skips)
    if genotype != usual or most_skips < 0:  # the usual cap replaces skips edge by edge
        assert score == pytest.approx(best, abs=1e-5)


def test_a_budget_that_does_not_bind_changes_nothing(options: Options) -> None:
    for seed in range(5):
        net = supernet(seed)
        assert budgeted_genotype(net, options, 1.0) == net.genotype()
        assert budgeted_genotype(net, options, 1.0, 0) == net.genotype(0)


def test_the_likeliest_of_all_is_the_usual_selection(options: Options) -> None:
    """The sum that is made largest has argmax as its best, so the repair is continuous."""
    net = supernet(3)
    best, _ = brute_force(net, options, 1.0, -1)
    chosen = options.choice_of(net.genotype(), DIGESTS)
    score = sum(_score(net, options, index) for index in np.flatnonzero(chosen))
    assert score == pytest.approx(best, abs=1e-6)


def test_a_budget_out_of_reach_is_one_line(options: Options) -> None:
    least = options.least_energy(-1)
    check_selection_budget(options, least, -1)
    with pytest.raises(InputError) as caught:
        check_selection_budget(options, 0.3, -1)
    message = str(caught.value)
    assert "\n" not in message and message.endswith("not 0.3")
    stated = float(message.split("at least ")[1].split(",")[0])
    assert least <= stated <= least + 1e-4


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_the_integer_program_finds_the_best_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = [0, 0, 0, 1, 1, 2, 2, 2]
    scores, costs = random.normal(size=8), random.random(8)
    limit = float(random.uniform(0.2, 2.5))
    every = [np.array(one) for one in itertools.product((0, 1, 2), (3, 4), (5, 6, 7))]
    kept = [float(scores[one].sum()) for one in every if costs[one].sum() <= limit]
    choice = best_choice(scores, [*one_of_each(groups), Constraint(costs, limit)])
    if not kept:
        assert choice is None
    else:
        assert choice is not None
        assert float(scores[choice].sum()) == pytest.approx(max(kept))
        refused = best_choice(
            scores,
            [*one_of_each(groups), Constraint(costs, limit)],
            lambda found: not np.array_equal(found, choice),
        )
        if len(kept) > 1:
            assert refused is not None
            assert float(scores[refused].sum()) == pytest.approx(sorted(kept)[-2])
        else:
            assert refused is None


def test_the_budget_is_for_argmax_only() -> None:
    with pytest.raises(InputError, match=r"search\.selection must be 'argmax'"):
        Config(search=Search(selection_budget=0.5, selection="perturbation"))


@pytest.mark.parametrize("most_skips", [-1, 1])
def test_cheaper_genotypes_are_the_likeliest_of_their_energies(
    options: Options, most_skips: int
) -> None:
    """Against all genotypes of the space."""
    net = supernet(5)
    own, count = net.genotype(most_skips), 4
    found = cheaper_genotypes(net, options, own, count, most_skips)
    scores = np.array([_score(net, options, index) for index in range(len(options.options))])
    used = np.array([o.macs * ENERGIES[o.multiplier] for o in options.options])
    totals, energies = _of_all(options, scores, used, most_skips)
    energy = options.energy_fj(options.choice_of(own, DIGESTS))
    least = float(energies.min())
    assert found[0] == own and len(set(found)) == len(found) > 2
    assert options.least_energy_fj(most_skips) == pytest.approx(least)
    best = {
        round(float(totals[energies <= most * (1 + 1e-9)].max()), 6)
        for most in (energy * (least / energy) ** (k / count) for k in range(1, count))
    }
    picked = [options.choice_of(genotype, DIGESTS) for genotype in found[1:]]
    assert {round(float(scores[choice].sum()), 6) for choice in picked} == best
    spent = [options.energy_fj(choice) for choice in picked]
    assert spent == sorted(spent, reverse=True) and spent[0] < energy


def test_dearer_genotypes_are_the_likeliest_of_their_energies(options: Options) -> None:
    """Against all genotypes of the space; there is none of more than the dearest energy."""
    net = supernet(5)
    own = net.genotype(-1)
    scores = np.array([_score(net, options, index) for index in range(len(options.options))])
    used = np.array([o.macs * ENERGIES[o.multiplier] for o in options.options])
    totals, energies = _of_all(options, scores, used, -1)
    energy = options.energy_fj(options.choice_of(own, DIGESTS))
    most = float(energies.max())
    steps = int((most / energy - 1) * 4)
    found = dearer_genotypes(net, options, own, steps + 3)
    assert 0 < len(found) <= steps
    best = {
        round(float(totals[energies >= least * (1 - 1e-9)].max()), 6)
        for least in (energy * (1 + k / 4) for k in range(1, steps + 1))
    }
    picked = [options.choice_of(genotype, DIGESTS) for genotype in found]
    assert {round(float(scores[choice].sum()), 6) for choice in picked} == best
    spent = [options.energy_fj(choice) for choice in picked]
    assert spent == sorted(spent) and spent[0] >= energy * 1.25
    assert dearer_genotypes(net, options, own, 0) == []


def _of_all(
    options: Options, scores: np.ndarray, used: np.ndarray, most_skips: int
) -> tuple[np.ndarray, np.ndarray]:
    """Score and energy of every genotype."""
    skips = np.array([o.operation == 1 and o.cell_type == "normal" for o in options.options])
    every = [np.array(list(cells(options, cell_type))) for cell_type in CELL_TYPES]
    if most_skips >= 0:
        every[0] = every[0][skips[every[0]].sum(1) <= most_skips]
    normal, reduction = ([v[cell].sum(1) for v in (scores, used)] for cell in every)
    fixed = options.fixed_macs * options.exact_fj
    return normal[0][:, None] + reduction[0], fixed + normal[1][:, None] + reduction[1]
