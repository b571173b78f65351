"""Supernet, genotype, network and objective: the relations that hold between them."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from cosearch.choices import Form, dirichlet_mean
from cosearch.genotype import CELL_TYPES, CellGenotype, Gene, Genotype, MultiplierChoice
from cosearch.layers import layer_macs
from cosearch.network import Network, float_arithmetic
from cosearch.operations import OPERATIONS, Arithmetic
from cosearch.strategies import STRATEGIES, Batch, Step, strategy
from cosearch.strategies.strategy import Optimisers
from cosearch.supernet import Supernet
from cosearch.terms import EnergyMeasure
from hw.errors import InputError
from lut import ApproxConv2d, Candidates

from .costed import ENERGIES, costed, objective_of
from .small import LUTS, SHAPE, SPACE, images, supernet

HUGE = 1e4  # a logit whose softmax is one-hot in fp32


def one_hot(net: Supernet, genotype: Genotype) -> None:
    """Alphas and betas that are one-hot at the genotype's genes, and `none` on every other edge."""
    names = [lut.name for lut in LUTS]
    for cell_type in CELL_TYPES:
        cell = genotype.cell(cell_type)
        alphas = torch.zeros(SPACE.edges, len(SPACE.operations))
        alphas[:, SPACE.operations.index("none")] = HUGE
        betas = torch.zeros(SPACE.edges, len(SPACE.operations), len(LUTS))
        first = torch.zeros(2, len(LUTS))
        for row, choice in enumerate(cell.preprocess):
            first[row, names.index(choice.name)] = HUGE
        for edge, (node, source) in enumerate(SPACE.edge_sources()):
            for gene in cell.nodes[node]:
                if gene.source == source:
                    operation = SPACE.operations.index(gene.operation)
                    alphas[edge] = 0
                    alphas[edge, operation] = HUGE
                    if gene.multiplier:
                        betas[edge, operation, names.index(gene.multiplier.name)] = HUGE
        with torch.no_grad():
            net.alphas[cell_type].copy_(alphas)
            net.betas[cell_type].copy_(betas)
            net.preprocess_betas[cell_type].copy_(first)


def arithmetic(choice: MultiplierChoice | None) -> Arithmetic:
    lut = LUTS[0] if choice is None else next(t for t in LUTS if t.digest == choice.sha256)
    return Arithmetic(Candidates([lut]), affine=False)


def _copied_weights(net: Supernet, network: Network, genotype: Genotype) -> None:
    """Give the network the weights and statistics of the supernet's chosen operations."""
    state = net.state_dict()
    edges = list(SPACE.edge_sources())
    renamed = {}
    for name in network.state_dict():
        parts = name.split(".")
        if parts[0] == "cells" and parts[2] == "edges":
            cell = genotype.cell(SPACE.places[int(parts[1])].cell_type)
            node, which = divmod(int(parts[3]), 2)
            gene = cell.nodes[node][which]
            edge = edges.index((node, gene.source))
            middle = ["edges", str(edge), "operations", gene.operation]
            renamed[name] = state[".".join([*parts[:2], *middle, *parts[4:]])]
        else:
            renamed[name] = state[name]
    network.load_state_dict(renamed)


def _choice(index: int) -> MultiplierChoice:
    return MultiplierChoice(LUTS[index].name, LUTS[index].digest)


GENOTYPE = Genotype(
    CellGenotype(
        (_choice(1), _choice(2)),
        (
            (Gene("sep_conv_3x3", 0, _choice(2)), Gene("max_pool_3x3", 1, None)),
            (Gene("dil_conv_5x5", 1, _choice(1)), Gene("skip_connect", 2, None)),
        ),
    ),
    CellGenotype(
        (_choice(0), _choice(1)),
        (
            (Gene("skip_connect", 0, _choice(2)), Gene("avg_pool_3x3", 1, None)),
            (Gene("sep_conv_5x5", 0, _choice(0)), Gene("dil_conv_3x3", 2, _choice(1))),
        ),
    ),
)


def test_one_hot_supernet_equals_the_discrete_network_bit_for_bit() -> None:
    net = supernet()
    one_hot(net, GENOTYPE)
    assert net.genotype() == GENOTYPE
    net.train()(images(8))
    network = Network(SPACE, GENOTYPE, arithmetic)
    for module in network.modules():  # stem and classifier have gains in both
        assert not isinstance(module, nn.Conv2d)
    network.stem[1] = nn.BatchNorm2d(SPACE.stem_channels)
    _copied_weights(net, network, GENOTYPE)
    expected = network.eval()(images(8, seed=1))
    with torch.no_grad():
        assert torch.equal(net.eval()(images(8, seed=1)), expected)
    # The same of one-hot shares given by hand: in the form of DrNAS, and as GDAS evaluates them.
    shares = net.all_choices()
    net.form = Form(relaxation=dirichlet_mean)
    single = {
        name: replace(one, sampled=tuple(one.alphas.argmax(-1).tolist()))
        for name, one in shares.items()
    }
    with torch.no_grad():
        for choices in (shares, single):
            assert torch.equal(net(images(8, seed=1), choices), expected)


def test_genotype_survives_json_and_refuses_what_is_none() -> None:
    data = GENOTYPE.to_json()
    assert Genotype.from_json(data) == GENOTYPE
    data["normal"]["genes"][0][0]["operation"] = "sep_conv_3x4"
    with pytest.raises(InputError, match="did you mean 'sep_conv_3x3'"):
        Genotype.from_json(data)
    with pytest.raises(
        InputError, match="g.json must be a genotype, not data with a fault at 'normal'"
    ):
        Genotype.from_json({"format": 1}, "g.json")
    data = GENOTYPE.to_json()
    data["normal"]["genes"][0][0]["source"] = 2
    with pytest.raises(InputError, match="source of a gene of node 0 must be 0 to 1, not 2"):
        Genotype.from_json(data)


def test_genotype_takes_the_strongest_edges_and_never_none() -> None:
    net = supernet()
    with torch.no_grad():
        for cell_type in CELL_TYPES:
            net.alphas[cell_type].zero_()
            net.alphas[cell_type][:, SPACE.operations.index("none")] = 5
            for edge, strength in enumerate([0.1, 0.2, 0.3, 0.1, 0.4]):
                net.alphas[cell_type][edge, SPACE.operations.index("dil_conv_3x3")] = strength
            net.betas[cell_type][..., 1] = 1.0
    cell = net.genotype().normal
    assert [[gene.source for gene in node] for node in cell.nodes] == [[0, 1], [0, 2]]
    genes = [gene for node in cell.nodes for gene in node]
    assert all(gene.operation == "dil_conv_3x3" and gene.multiplier == _choice(1) for gene in genes)


def test_every_operation_keeps_its_shape() -> None:
    for candidates in (None, Candidates(LUTS[1:2])):
        arithmetic = Arithmetic(candidates, affine=True)
        for name, build in OPERATIONS.items():
            for stride in (1, 2):
                result = build(6, stride, arithmetic)(torch.randn(2, 6, 8, 8))
                assert result.shape == (2, 6, 8 // stride, 8 // stride), name


def test_multiplications_of_known_layers() -> None:
    network = Network(SPACE, GENOTYPE, float_arithmetic)
    macs = layer_macs(network, SHAPE)
    assert macs["stem.0"] == 12 * 9 * 64
    assert macs["cells.0.preprocess.0.layers.1"] == 12 * 4 * 64
    assert macs["cells.0.edges.0.layers.1"] == 4 * 9 * 64
    assert macs["classifier"] == SPACE.output_channels * 10


def test_expected_energy_of_a_one_hot_supernet_is_that_of_its_network() -> None:
    net = supernet()
    space = costed(net)
    energy = EnergyMeasure.of(space, ["multiplications"])
    one_hot(net, GENOTYPE)
    network = Network(SPACE, GENOTYPE, arithmetic)
    costs = {lut.digest: fj for lut, fj in zip(LUTS, ENERGIES, strict=True)}
    macs = layer_macs(network, SHAPE)
    expected = sum(
        macs[name.removesuffix(".convolution")] * costs[module.candidates.luts[0].digest]
        for name, module in network.named_modules()
        if isinstance(module, ApproxConv2d)
    )
    with torch.no_grad():
        assert torch.isclose(
            energy.expected_fj(space.use(net.all_choices())), torch.tensor(expected), rtol=1e-5
        )


def test_relative_energy_starts_at_the_mean_of_the_candidates() -> None:
    net = supernet()
    space = costed(net, [1.0, 1.0, 1.0])
    energy = EnergyMeasure.of(space, ["multiplications"])
    with torch.no_grad():
        for parameter in net.architecture_parameters():
            parameter.zero_()
        assert torch.isclose(
            energy.relative(space.use(net.all_choices())), torch.tensor(1.0), rtol=1e-5
        )


def test_gradients_of_alphas_and_betas_by_finite_differences() -> None:
    net = supernet().eval()
    objective = objective_of(net, 0.7)
    labels = torch.tensor([1, 5, 3, 7])

    def value() -> torch.Tensor:
        return objective(net, net(images()), labels)

    parameters = net.architecture_parameters()
    gradients = torch.autograd.grad(value(), parameters)
    generator = torch.Generator().manual_seed(1)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            step = 0.02
            parameter += step * direction
            above = float(value())
            parameter -= 2 * step * direction
            below = float(value())
            parameter += step * direction
        slope = float((gradient * direction).sum())
        measured = (above - below) / (2 * step)
        # Quantisation makes the loss a staircase at the finest scale: the slope is met, not hit.
        assert abs(measured - slope) < 0.15 * max(abs(slope), 0.02)


def _optimisers(net: Supernet) -> Optimisers:
    weights = torch.optim.SGD(net.weight_parameters(), 0.1)
    architecture = torch.optim.Adam(net.architecture_parameters(), 0.1)
    return Optimisers(weights, architecture, 5.0)


def test_darts_moves_architecture_on_validation_and_weights_on_train() -> None:
    net = supernet()
    objective = objective_of(net, 0.5)
    train = Batch(images(), torch.tensor([0, 1, 2, 3]))
    validation = Batch(images(seed=1), torch.tensor([4, 5, 6, 7]))
    before = {name: value.clone() for name, value in net.named_parameters()}
    step = strategy("darts").step
    result = step(Step(net, objective, _optimisers(net), train, validation, True))
    assert result.train_loss > 0 and result.train_logits.shape == (4, 10)
    moved = {name for name, value in net.named_parameters() if not value.equal(before[name])}
    architecture = {id(p) for p in net.architecture_parameters()}
    names = {name for name, value in net.named_parameters() if id(value) in architecture}
    assert moved and not moved & names
    step(Step(net, objective, _optimisers(net), train, validation, False))
    moved = {name for name, value in net.named_parameters() if not value.equal(before[name])}
    assert names <= moved


def test_weights_follow_the_cross_entropy_alone() -> None:
    """With the weights' step repeated by hand on a copy the result is the same."""
    batch = Batch(images(), torch.tensor([0, 1, 2, 3]))
    net, twin = supernet(), supernet()
    objective = objective_of(net, 100.0)
    strategy("darts").step(Step(net, objective, _optimisers(net), batch, batch, True))
    optimiser = torch.optim.SGD(twin.weight_parameters(), 0.1)
    twin(batch.images)  # the validation pass, which moves running statistics
    functional.cross_entropy(twin(batch.images), batch.labels).backward()
    nn.utils.clip_grad_norm_(twin.weight_parameters(), 5.0)
    optimiser.step()
    for one, two in zip(net.weight_parameters(), twin.weight_parameters(), strict=True):
        assert torch.equal(one, two)


def test_unknown_strategy() -> None:
    from cosearch.config import GRADIENTS as GRADIENT_NAMES
    from cosearch.config import STRATEGIES as NAMES
    from lut.gradients import GRADIENTS

    assert tuple(STRATEGIES) == NAMES
    assert tuple(GRADIENTS) == GRADIENT_NAMES
    with pytest.raises(InputError, match="did you mean 'darts'"):
        strategy("dart")
