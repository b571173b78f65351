"""Spaces whose edges have operations of their own (S1 of RobustDARTS)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cosearch.choices import Choices, Form
from cosearch.config import Config, EdgeOperations, Space, overridden
from cosearch.genotype import CELL_TYPES
from cosearch.layer_use import LayerUse
from cosearch.selection import normal_skips
from cosearch.strategies import STRATEGIES
from cosearch.supernet import Cell, MixedOp, Supernet
from hw.errors import InputError
from lut import Candidates

from .robust_spaces import S1_BY_EDGE, S1_OPERATIONS
from .small import LUTS, SHAPE, SPACE, images
from .test_merged_cells import in_real_numbers
from .test_searching import QUIET, small_search

CONFIGS = Path(__file__).parents[2] / "configs"
BY_EDGE = (
    EdgeOperations("normal", 0, ("skip_connect", "dil_conv_5x5")),
    EdgeOperations("normal", 3, ("max_pool_3x3", "skip_connect")),
    EdgeOperations("reduction", 1, ("avg_pool_3x3", "sep_conv_3x3")),
)
FEW = replace(SPACE, by_edge=BY_EDGE)


def supernet(form: Form | None = None) -> Supernet:
    torch.manual_seed(0)
    net = Supernet(FEW, Candidates(LUTS), Candidates(LUTS[:1]), form or Form())
    for parameter in net.architecture_parameters():
        nn.init.normal_(parameter)
    return net


def absent(choices: Choices, cell_type: str) -> list[torch.Tensor]:
    """Shares of what edges have not."""
    return [
        choices.alphas[edge, index]
        for edge in range(FEW.edges)
        for index, name in enumerate(FEW.operations)
        if name not in FEW.edge_operations(cell_type, edge)
    ]


def test_what_an_edge_has_not_is_neither_built_nor_weighed() -> None:
    net = supernet()
    for cell, place in zip(net.cells, FEW.places, strict=True):
        assert isinstance(cell, Cell)
        for number, edge in enumerate(cell.edges):
            assert isinstance(edge, MixedOp)
            own = FEW.edge_operations(place.cell_type, number)
            assert list(edge.operations) == [name for name in own if name != "none"]
    choices = net.all_choices()
    for cell_type in CELL_TYPES:
        shares = absent(choices[cell_type], cell_type)
        assert shares and all(float(share.detach()) == 0.0 for share in shares)
        assert torch.allclose(choices[cell_type].alphas.sum(-1), torch.ones(FEW.edges))
    loss = net(images(2)).square().mean()
    for cell_type, gradient in zip(
        CELL_TYPES, torch.autograd.grad(loss, list(net.alphas.parameters())), strict=True
    ):
        assert bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0
        missing = absent(replace(choices[cell_type], alphas=gradient), cell_type)
        assert all(float(one) == 0.0 for one in missing)


@pytest.mark.parametrize("form", [Form(), Form(2, weighs_edges=True)], ids=["all", "partial"])
def test_merged_cells_are_the_plain_ones(form: Form) -> None:
    results = []
    for merged in (False, True):
        net = supernet(form)
        torch.manual_seed(1)
        in_real_numbers(net.cells)
        net.double()
        for cell in net.cells:
            assert isinstance(cell, Cell)
            cell.merged = merged
        logits = net(images(4).double())
        alphas = torch.autograd.grad(logits.square().sum(), list(net.alphas.parameters()))
        norms = [b for name, b in net.named_buffers() if "running" in name]
        results.append([logits, *alphas, *norms])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-8)


def test_only_what_is_there_is_counted() -> None:
    net = supernet()
    use = LayerUse.of(net, SHAPE)
    assert len(use.layers) < len(
        LayerUse.of(Supernet(SPACE, net.candidates, net.exact), SHAPE).layers
    )
    by_path = dict(zip((layer.path for layer in use.layers), use.uniform.tolist(), strict=True))
    shares = {path: by_path[path] for path in by_path if path.startswith("cells.0.edges.0.")}
    assert shares and set(shares.values()) == {0.5}
    others = [by_path[path] for path in by_path if path.startswith("cells.0.edges.1.")]
    assert others and others == pytest.approx([1 / len(FEW.operations)] * len(others))


def test_a_genotype_has_what_its_edges_have() -> None:
    net = supernet()
    with torch.no_grad():  # what edges have not would win
        for cell_type in CELL_TYPES:
            for edge in range(FEW.edges):
                for index, name in enumerate(FEW.operations):
                    if name not in FEW.edge_operations(cell_type, edge):
                        net.alphas[cell_type][edge, index] = 50.0
    genotype = net.genotype()
    sources = list(FEW.edge_sources())
    for cell_type in CELL_TYPES:
        for node, genes in enumerate(genotype.cell(cell_type).nodes):
            for gene in genes:
                edge = sources.index((node, gene.source))
                assert gene.operation in FEW.edge_operations(cell_type, edge)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "drnas"])
def test_every_strategy_but_one_searches_there(name: str) -> None:
    settings: dict[str, Any] = {"strategy": name, "beta_decay": 0.5, "energy_budget": 0.6}
    by_edge = (
        EdgeOperations("normal", 0, ("skip_connect", "sep_conv_3x3")),
        EdgeOperations("reduction", 1, ("avg_pool_3x3", "sep_conv_3x3")),
    )
    search = small_search(by_edge=by_edge, **settings)
    result = search.one_epoch(QUIET)
    assert 0 < result.train_loss < 10
    assert all(bool(p.isfinite().all()) for p in search.supernet.architecture_parameters())
    assert normal_skips(search.genotype()) <= 2


def test_the_preset_is_the_space_s1() -> None:
    operations = ",".join(S1_OPERATIONS)
    given = ["space.nodes=4", f"space.operations={operations}"]
    config = overridden(
        Config(), [*given, f"space.by_edge={','.join(S1_BY_EDGE)}"], name="digits-s1"
    )
    assert (CONFIGS / "digits-s1.toml").read_text() == config.to_toml()
    edges = config.space.edge_operations()
    assert len(edges) == 28 and all(len(entry.operations) == 2 for entry in edges)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        (("normal.9: skip_connect",), "must be normal.0 to normal.4 or reduction.0"),
        (("normal.0: none",), "must hold an operation beside 'none'"),
        (("normal.0: skip",), "did you mean 'skip_connect'"),
        (("normal.0: skip_connect", "normal.0: sep_conv_3x3"), "by_edge"),
    ],
)
def test_wrong_entries_are_refused_in_one_line(entries: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Space(by_edge=entries)


def test_a_dirichlet_distribution_cannot_leave_operations_out() -> None:
    entry = "space.by_edge=normal.0: skip_connect sep_conv_3x3"
    with pytest.raises(InputError, match="another than drnas"):
        overridden(Config(), [entry, "search.strategy=drnas"])
