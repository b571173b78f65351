"""Operations by edge: selections, refusals, and what they are bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cosearch.budgeted_selection import PREPROCESS, Options, budgeted_genotype
from cosearch.checkpoint import load_checkpoint, save_checkpoint
from cosearch.config import Config, EdgeOperations, overridden
from cosearch.genotype import CELL_TYPES, Genotype
from cosearch.network import Network
from cosearch.objective import beta_decay
from cosearch.operations import Arithmetic
from cosearch.perturbation import perturbation_scores
from cosearch.selection import selected
from cosearch.supernet import Supernet
from cosearch.sweep.members import check_space
from hw.errors import InputError
from lut import Candidates

from .costed import ENERGIES
from .robust_spaces import S1_BY_EDGE, S1_OPERATIONS
from .small import LUTS, SHAPE, SPACE, images
from .smooth import TINY, batch, without_tables
from .test_searching import QUIET, _same, small_search

BY_EDGE = (
    EdgeOperations("normal", 0, ("none", "sep_conv_3x3")),
    EdgeOperations("normal", 2, ("none", "skip_connect")),
    EdgeOperations("normal", 3, ("skip_connect", "sep_conv_3x3")),
    EdgeOperations("reduction", 1, ("avg_pool_3x3",)),
    EdgeOperations("reduction", 4, ("none", "avg_pool_3x3", "sep_conv_3x3")),
)
FEW = replace(TINY, by_edge=BY_EDGE)


def supernet(seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    net = Supernet(FEW, Candidates(LUTS), Candidates(LUTS[:1]))
    with torch.no_grad():
        for parameter in net.architecture_parameters():
            parameter.normal_()
    return net


def own(genotype: Genotype) -> bool:
    sources = list(FEW.edge_sources())
    return all(
        gene.operation in FEW.edge_operations(kind, sources.index((node, gene.source)))
        for kind in CELL_TYPES
        for node, genes in enumerate(genotype.cell(kind).nodes)
        for gene in genes
    )


def test_lists_of_everything_change_no_bit() -> None:
    every = tuple(EdgeOperations(k, e, SPACE.operations) for k in CELL_TYPES for e in range(5))
    results = []
    for by_edge in ((), every):
        torch.manual_seed(0)
        net = Supernet(replace(SPACE, by_edge=by_edge), Candidates(LUTS), Candidates(LUTS[:1]))
        logits = net(images())
        gradients = torch.autograd.grad(logits.square().sum(), net.architecture_parameters())
        results.append([logits, *gradients, net.state_dict()])
    assert _same(*results)


def test_a_one_hot_supernet_is_the_network() -> None:
    one, space = Candidates(LUTS[:1]), replace(FEW, nodes=1)
    torch.manual_seed(0)
    net = Supernet(space, one, one)
    genotype = net.genotype()
    with torch.no_grad():
        for kind, alphas in net.alphas.items():
            alphas.zero_()
            for edge, gene in enumerate(genotype.cell(kind).nodes[0]):
                alphas[edge, space.operations.index(gene.operation)] = 1e4
    network = Network(space, genotype, lambda _: Arithmetic(one, affine=False))
    network.stem[1] = nn.BatchNorm2d(space.stem_channels)
    state, renamed = net.state_dict(), {}
    for name in network.state_dict():
        parts = name.split(".")
        if parts[0] == "cells" and parts[2] == "edges":
            kind = space.places[int(parts[1])].cell_type
            operation = genotype.cell(kind).nodes[0][int(parts[3])].operation
            parts[4:4] = ["operations", operation]
        renamed[name] = state[".".join(parts)]
    network.load_state_dict(renamed)
    with torch.no_grad():
        assert torch.equal(net.eval()(images()), network.eval()(images()))


def test_perturbation_chooses_what_an_edge_has() -> None:
    net = supernet()
    without_tables(net)
    scores = perturbation_scores(net, [batch(1)])
    for kind in CELL_TYPES:
        for edge in range(FEW.edges):
            for row, name in enumerate(FEW.operations):
                there = name != "none" and name in FEW.edge_operations(kind, edge)
                assert (float(scores[kind].operations[edge, row]) >= 0) is there
    assert own(selected(FEW, net.candidates.luts, net.all_choices(), scores))


@pytest.mark.parametrize("seed", range(6))
def test_a_budget_chooses_what_an_edge_has(seed: int) -> None:
    net = supernet(seed)
    options = Options.of(net, SHAPE, ENERGIES, ENERGIES[0])
    for option in (one for one in options.options if one.operation != PREPROCESS):
        names = FEW.edge_operations(option.cell_type, option.place)
        assert FEW.operations[option.operation] in names
    assert budgeted_genotype(net, options, 1.0) == net.genotype()
    found = budgeted_genotype(net, options, options.least_energy(-1) + 0.02)
    assert own(found)
    chosen = options.choice_of(found, [lut.digest for lut in LUTS])
    assert options.relative_energy(chosen) <= options.least_energy(-1) + 0.02


def test_beta_decay_is_of_what_is_there() -> None:
    net = supernet()
    value = beta_decay(net)
    rows = []
    for kind in CELL_TYPES:
        for edge in range(FEW.edges):
            names = FEW.edge_operations(kind, edge)
            rows.append(net.alphas[kind][edge, [FEW.operations.index(n) for n in names]])
    expected = torch.stack([row.logsumexp(0) for row in rows]).mean()
    torch.testing.assert_close(value, expected)
    gradient = torch.autograd.grad(value, [net.alphas["normal"]])[0]
    assert bool(gradient.isfinite().all()) and int((gradient[0] != 0).sum()) == 2


@pytest.mark.parametrize("strategy", ["darts", "gdas", "pc_darts", "darts_second_order"])
def test_a_search_goes_on_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    by_edge = (
        EdgeOperations("normal", 0, ("skip_connect", "sep_conv_3x3")),
        EdgeOperations("reduction", 1, ("avg_pool_3x3", "sep_conv_3x3")),
    )
    straight = small_search(by_edge=by_edge, strategy=strategy)
    straight.one_epoch(QUIET)
    straight.epoch = 1
    save_checkpoint(tmp_path / "c.pt", straight.state())
    straight.one_epoch(QUIET)
    resumed = small_search(by_edge=by_edge, strategy=strategy)
    resumed.restore(load_checkpoint(tmp_path / "c.pt"), "c.pt")
    resumed.one_epoch(QUIET)
    resumed.epoch = 1
    assert _same(straight.state(), resumed.state())


def test_refusals() -> None:
    config = overridden(
        Config(),
        ["space.nodes=4", f"space.operations={','.join(S1_OPERATIONS)}",
         f"space.by_edge={','.join(S1_BY_EDGE)}", "search.most_skips=1"],
    )  # fmt: skip
    with pytest.raises(InputError, match=r"space\.by_edge must be empty in a sweep"):
        check_space(config.space)
    with pytest.raises(
        InputError, match=r"most_skips must be -1 where normal\.0 of space\.by_edge"
    ):
        overridden(Config(), ["space.by_edge=normal.0: none skip_connect", "search.most_skips=1"])
