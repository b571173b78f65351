"""Grains of betas, approximated kinds, and one fixed multiplier: supernet, genotype and network."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from cosearch.choices import Form, dirichlet_mean
from cosearch.config import BETA_GRAINS, INSIDE_CELLS, LAYER_KINDS
from cosearch.genotype import CellGenotype, Genotype, MultiplierChoice
from cosearch.layers import layer_kind, layer_records
from cosearch.network import Network
from cosearch.network_costs import network_costs
from cosearch.strategies.drnas import dirichlet_choices, divergence
from cosearch.strategies.gdas import gumbel_choices
from cosearch.supernet import Supernet
from cosearch.terms import EnergyMeasure, LatencyMeasure
from lut import ApproxConv2d, Candidates

from .costed import costed
from .small import LUTS, SHAPE, SPACE, images
from .test_supernet import HUGE, arithmetic
from .test_terms import slope_is_met

SMALL = replace(SPACE, operations=("none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"))
SOME_KINDS = (INSIDE_CELLS, LAYER_KINDS, ("pointwise", "classifier"), ())


def _net(grain: str, kinds: tuple[str, ...] = INSIDE_CELLS, **settings: Any) -> Supernet:
    torch.manual_seed(0)
    space = replace(SMALL, approximated=kinds)
    return Supernet(space, Candidates(LUTS), Candidates(LUTS[:1]), grain=grain, **settings)


def _decided(net: Supernet, seed: int = 0) -> None:
    """Random one-hot betas; alphas that keep two edges a node, every other edge `none`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for betas in net.beta_parameters():
            rows = torch.randint(len(LUTS), betas.shape[:-1], generator=generator)
            betas.copy_(HUGE * nn.functional.one_hot(rows, len(LUTS)))
        for alphas in net.alphas.values():
            alphas.zero_()
            alphas[:, 0] = HUGE
            for edge in (0, 1, 2, 4):
                alphas[edge, 0] = 0
                alphas[edge, int(torch.randint(1, 4, (), generator=generator))] = HUGE


def _network(net: Supernet, genotype: Genotype) -> Network:
    """The network of the genotype with the weights and statistics of the supernet."""
    network = Network(net.space, genotype, arithmetic)
    network.stem[1] = nn.BatchNorm2d(net.space.stem_channels)
    state, edges = net.state_dict(), list(net.space.edge_sources())
    renamed = {}
    for name in network.state_dict():
        parts = name.split(".")
        source = name
        if parts[0] == "cells" and parts[2] == "edges":
            cell = genotype.cell(net.space.places[int(parts[1])].cell_type)
            node, which = divmod(int(parts[3]), 2)
            gene = cell.nodes[node][which]
            edge = edges.index((node, gene.source))
            middle = ["edges", str(edge), "operations", gene.operation]
            source = ".".join([*parts[:2], *middle, *parts[4:]])
        renamed[name] = state[source]
    network.load_state_dict(renamed)
    return network.eval()


@pytest.mark.parametrize(("grain", "kinds"), list(product(BETA_GRAINS, SOME_KINDS)))
def test_one_hot_supernet_equals_the_network_of_its_genotype(
    grain: str, kinds: tuple[str, ...]
) -> None:
    """Bit for bit, and so do every line of energy and the latency."""
    net = _net(grain, kinds)
    _decided(net, seed=len(kinds))
    net.train()(images(4))
    genotype = net.genotype()
    assert Genotype.from_json(genotype.to_json()) == genotype
    network = _network(net, genotype)
    with torch.no_grad():
        assert torch.equal(net.eval()(images(4, seed=1)), network(images(4, seed=1)))
    layers = [(p, m) for p, m in network.named_modules() if isinstance(m, ApproxConv2d)]
    names = [module.candidates.luts[0].name for _, module in layers]
    for name, (path, module) in zip(names, layers, strict=True):
        assert layer_kind(path, module) in kinds or name == LUTS[0].name
    space = costed(net)
    used = [space.candidates[[lut.name for lut in LUTS].index(name)] for name in names]
    expected = network_costs(layer_records(network, SHAPE), used, space.array)
    with torch.no_grad():
        shares = space.use(net.all_choices())
    for line, energy in expected.lines_nj.items():
        found = EnergyMeasure.of(space, [line]).expected_fj(shares)
        assert float(found) == pytest.approx(energy * 1e6, rel=1e-6)
    latency = LatencyMeasure.of(space)
    assert float(latency.expected_period_ps(shares)) == expected.period_ps
    assert float(latency.expected_ms(shares)) == pytest.approx(expected.latency_ms, rel=1e-6)


@pytest.mark.parametrize("grain", BETA_GRAINS)
def test_gradients_of_terms_by_finite_differences(grain: str) -> None:
    space, net = costed(_net(grain, LAYER_KINDS)), _net(grain, LAYER_KINDS).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.architecture_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).double() / 2)
    slope_is_met(EnergyMeasure.of(space, ["multiplications"]), net, space)
    slope_is_met(LatencyMeasure.of(space), net, space)


@pytest.mark.parametrize("grain", BETA_GRAINS)
def test_shares_and_draws_of_a_grain_are_one_row(grain: str) -> None:
    net = _net(grain, LAYER_KINDS)
    net.form = Form(relaxation=dirichlet_mean)
    generator = torch.Generator().manual_seed(0)
    for choices in (
        net.all_choices(),
        gumbel_choices(net, 1.0, generator),
        dirichlet_choices(net, generator),
    ):
        normal, reduction = choices["normal"], choices["reduction"]
        assert normal.ends is not None and normal.ends.shape == (2, len(LUTS))
        assert torch.allclose(normal.betas.sum(-1), torch.ones(normal.betas.shape[:-1]))
        rows = torch.cat([normal.betas.flatten(0, -2), normal.preprocess.flatten(0, -2)])
        if grain in ("network", "cell_type"):
            assert len(rows.detach().unique(dim=0)) == 1
        if grain == "network":
            assert torch.equal(normal.betas, reduction.betas)
            assert torch.equal(normal.ends, normal.betas[0, :2])
    assert torch.isfinite(divergence(net))


def test_the_number_of_betas_of_each_grain() -> None:
    edges, operations, count = SMALL.edges, len(SMALL.operations), len(LUTS)
    expected = {
        "network": count,
        "cell_type": 2 * count,
        "edge_operation": 2 * (edges * operations + 2) * count,
        "layer": SMALL.cells * (edges * operations * 4 + 4) * count,
    }
    for grain, number in expected.items():
        assert sum(betas.numel() for betas in _net(grain).beta_parameters()) == number
    assert len(_net("network", LAYER_KINDS).beta_parameters()) == 1
    assert _net("cell_type", LAYER_KINDS).end_betas["network"].shape == (2, count)


@pytest.mark.parametrize("grain", BETA_GRAINS)
def test_one_multiplier_everywhere_has_no_betas(grain: str) -> None:
    torch.manual_seed(0)
    space = replace(SMALL, approximated=LAYER_KINDS)
    net = Supernet(space, Candidates(LUTS[1:2]), Candidates(LUTS[:1]), grain=grain)
    assert net.beta_parameters() == []
    net(images()).sum().backward()
    genotype = net.genotype()
    choice = MultiplierChoice(LUTS[1].name, LUTS[1].digest)
    assert genotype.multipliers == (choice,)
    assert genotype.ends == (choice, choice)
    for module in Network(space, genotype, arithmetic).modules():
        if isinstance(module, ApproxConv2d):
            assert module.candidates.luts[0].name == LUTS[1].name


def test_candidates_that_an_operation_may_not_use_have_no_share() -> None:
    allowed = {"sep_conv_3x3": (0, 2), "preprocess": (1,), "classifier": (2,)}
    for grain in ("edge_operation", "layer"):
        net = _net(grain, LAYER_KINDS, allowed=allowed)
        row = SMALL.operations.index("sep_conv_3x3")
        generator = torch.Generator().manual_seed(0)
        for choices in (net.all_choices(), gumbel_choices(net, 1.0, generator)):
            for one in choices.values():
                assert bool((one.of_type().betas[:, row, 1] == 0).all())
                assert bool((one.of_type().betas[..., 1] != 0).any())
                assert bool((one.preprocess[..., 1] == 1).all())
                assert one.ends is not None and one.ends[1].tolist() == [0, 0, 1]
        net(images()).sum().backward()
        assert all(bool(betas.grad.isfinite().all()) for betas in net.beta_parameters())
        assert "operations_mask" not in "".join(net.state_dict())


def test_genotypes_with_ends_and_layers_survive_json_and_old_ones_are_read() -> None:
    net = _net("layer", LAYER_KINDS)
    genotype = net.genotype()
    assert len(genotype.layers) == SMALL.cells and genotype.ends is not None
    data = genotype.to_json()
    assert Genotype.from_json(data) == genotype
    del data["ends"], data["layers"]
    old = Genotype.from_json(data)
    assert old.ends is None and old.layers == ()
    assert set(old.to_json()) == {"format", "nodes", "normal", "reduction"}
    exact = MultiplierChoice(LUTS[0].name, LUTS[0].digest)
    assert genotype.with_multiplier(exact).multipliers == (exact,)
    assert isinstance(old.normal, CellGenotype)


def test_a_faster_multiplier_wins_under_latency_alone() -> None:
    """Betas follow the expected latency; stem and classifier have a choice, too."""
    for grain in BETA_GRAINS:
        net = _net(grain, LAYER_KINDS)
        space = costed(net)
        latency = LatencyMeasure.of(space)
        optimiser = torch.optim.Adam(net.architecture_parameters(), 0.1)
        with torch.no_grad():
            before = float(latency.expected_period_ps(space.use(net.all_choices())))
        for _ in range(150):
            optimiser.zero_grad()
            latency.relative(space.use(net.all_choices())).backward()
            optimiser.step()
        assert {choice.name for choice in net.genotype().multipliers} == {LUTS[2].name}
        with torch.no_grad():
            after = float(latency.expected_period_ps(space.use(net.all_choices())))
        assert after < before and after < 1000.0


def test_the_exact_multiplier_sets_the_clock_where_a_layer_has_no_choice() -> None:
    net = _net("edge_operation")
    space = costed(net)
    latency = LatencyMeasure.of(space)
    with torch.no_grad():
        shares = space.use(net.all_choices())
    assert float(latency.expected_period_ps(shares)) == space.array.period_ps(1000.0)
