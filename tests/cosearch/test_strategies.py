"""Sampled and partial-channel strategies: what a pass evaluates, and what its gradients are."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cosearch.choices import Choices, Form, dirichlet_mean
from cosearch.config import Search
from cosearch.energy_lines import LINES
from cosearch.objective import beta_decay
from cosearch.passes import at
from cosearch.strategies import STRATEGIES, Step, strategy
from cosearch.strategies.drnas import dirichlet_choices, divergence
from cosearch.strategies.gdas import gumbel_choices
from cosearch.supernet import MixedOp, Supernet
from hw.errors import InputError

from .costed import costed
from .smooth import TINY, batch, objective, optimisers, smooth, tiny


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _evaluated(net: Supernet, choices: dict[str, Choices]) -> set[str]:
    """Paths of the operations that a pass runs."""
    ran: set[str] = set()
    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: ran.add(name))
        for name, module in net.named_modules()
        if ".operations." in name and name.count(".") == 5
    ]
    net(batch(0).images, choices)
    for handle in handles:
        handle.remove()
    return ran


def test_gdas_evaluates_the_sampled_operation_alone() -> None:
    net = tiny()
    choices = gumbel_choices(net, 1.0, _seeded(3))
    expected = set()
    for index, place in enumerate(TINY.places):
        sampled = choices[place.cell_type].sampled
        assert sampled is not None
        names = [TINY.operations[operation] for operation in sampled]
        paths = [f"cells.{index}.edges.{e}.operations.{n}" for e, n in enumerate(names)]
        expected |= {path for path in paths if not path.endswith(".none")}
    assert _evaluated(net, choices) == expected
    assert len(_evaluated(net, net.all_choices())) == 3 * TINY.edges * 3  # three but `none`


def test_a_sampled_pass_is_the_pass_with_one_hot_shares_bit_for_bit() -> None:
    net = tiny().eval()
    choices = gumbel_choices(net, 0.5, _seeded(3))
    whole = {name: replace(choice, sampled=None) for name, choice in choices.items()}
    for choice in choices.values():
        for shares in (choice.alphas, choice.betas, choice.preprocess):
            assert torch.equal(shares.sum(-1), torch.ones_like(shares.sum(-1)))
            assert set(shares.unique().tolist()) == {0.0, 1.0}
    images = batch(1).images
    assert torch.equal(net(images, choices), net(images, whole))


def test_gumbel_samples_follow_the_softmax() -> None:
    net = smooth()
    generator, counts = _seeded(0), torch.zeros_like(net.alphas["normal"])
    for _ in range(400):
        counts += gumbel_choices(net, 10.0, generator)["normal"].alphas.detach()
    assert (counts / 400 - net.choices("normal").alphas).abs().max() < 0.1


def test_gradient_of_a_gumbel_sample_is_that_of_its_softmax() -> None:
    net, temperature = smooth(), 2.0
    logits = net.alphas["normal"]
    weights = torch.randn(logits.shape, generator=_seeded(5), dtype=torch.float64)
    sample = gumbel_choices(net, temperature, _seeded(3))["normal"].alphas
    gradient = torch.autograd.grad((weights * sample).sum(), logits)[0]
    noise = torch.empty(logits.shape).exponential_(generator=_seeded(3)).log().neg()
    soft = ((logits.log_softmax(-1) + noise) / temperature).softmax(-1)
    expected = torch.autograd.grad((weights * soft).sum(), logits)[0]
    assert torch.allclose(gradient, expected, rtol=1e-12)


def test_dirichlet_gradients_by_the_mean_of_many_samples() -> None:
    """Of a smooth function f, d E[f] / d logits by central differences of a quadrature."""
    net = smooth(form=Form(relaxation=dirichlet_mean))
    for choice in net.all_choices().values():
        assert torch.allclose(choice.alphas.sum(-1), torch.ones(TINY.edges, dtype=torch.float64))
    logits = net.alphas["normal"]
    generator, draws = _seeded(0), 500
    total = torch.zeros_like(logits)
    mean = torch.zeros_like(logits)
    for _ in range(draws):
        sample = dirichlet_choices(net, generator)["normal"].alphas
        total += torch.autograd.grad(sample[:, 0].sum(), logits)[0] / draws
        mean += sample.detach() / draws
    assert (mean - net.choices("normal").alphas).abs().max() < 0.06
    expected = torch.autograd.grad(net.choices("normal").alphas[:, 0].sum(), logits)[0]
    assert (total - expected).abs().max() < 0.06


def test_draws_of_drnas_leave_torchs_generator_alone_and_follow_theirs() -> None:
    net = tiny(form=Form(relaxation=dirichlet_mean))
    before = torch.get_rng_state()
    one, two = (dirichlet_choices(net, _seeded(4)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one["normal"].betas, two["normal"].betas)
    assert not torch.equal(one["normal"].betas, dirichlet_choices(net, _seeded(5))["normal"].betas)


def test_divergence_is_zero_for_uniform_concentrations_alone() -> None:
    net = smooth(form=Form(relaxation=dirichlet_mean))
    assert float(divergence(net).detach()) > 0.1
    with torch.no_grad():
        for parameter in net.architecture_parameters():
            parameter.zero_()
    assert float(divergence(net)) == pytest.approx(0, abs=1e-12)


def test_partial_channels_pass_the_others_by_shuffled() -> None:
    net = tiny(form=Form(partial_channels=2))
    for stride, path in ((1, "cells.0.edges.0"), (2, "cells.1.edges.0")):
        edge = net.get_submodule(path)
        assert isinstance(edge, MixedOp)
        channels = 2 * edge.seen
        x = torch.randn(2, channels, 8, 8, generator=_seeded(0))
        alphas, betas = torch.tensor([0.25] * 4), torch.full((4, 3), 1 / 3)
        result = edge(x, alphas, betas)
        beside = x[:, edge.seen :]
        beside = nn.functional.max_pool2d(beside, 2) if stride == 2 else beside
        assert torch.equal(result[:, 1::2], beside)  # groups of two channels, interleaved
        assert result.shape == (2, channels, 8 // stride, 8 // stride)


def test_partial_channels_must_divide_channels() -> None:
    with pytest.raises(InputError, match=r"multiple of search.partial_channels \(3\), not 4"):
        tiny(form=Form(partial_channels=3))


def test_energy_of_partial_channels_is_that_of_all_channels() -> None:
    whole = costed(tiny())
    partial = tiny(form=Form(partial_channels=4, weighs_edges=True))
    state = torch.get_rng_state()
    space = costed(partial)
    assert torch.equal(state, torch.get_rng_state())
    assert space.use.layers == whole.use.layers
    for name in LINES:
        assert torch.equal(space.line_fj(name), whole.line_fj(name))


def test_gammas_are_shares_of_each_node_and_decide_its_edges() -> None:
    net = tiny(form=Form(partial_channels=2, weighs_edges=True))
    with torch.no_grad():
        net.alphas["normal"].zero_()
        net.gammas["normal"].copy_(torch.tensor([0.0, 0.0, 3.0, 1.0, 2.0]))
    shares = net.edge_shares("normal")
    assert shares is not None
    assert torch.allclose(shares[:2], torch.tensor([0.5, 0.5]))
    assert float(shares[2:].sum()) == pytest.approx(1.0, abs=1e-6)
    cell = net.genotype().normal
    assert [[gene.source for gene in node] for node in cell.nodes] == [[0, 1], [0, 2]]


@pytest.mark.parametrize("relaxes", [Form(), Form(2, True), Form(relaxation=dirichlet_mean)])
def test_gradients_of_every_form_by_finite_differences(relaxes: Form) -> None:
    net = smooth(form=relaxes)
    loss, data = objective(net), batch(1, torch.float64)
    loss = replace(loss, decay=torch.tensor(0.3))
    parameters = net.architecture_parameters()
    gradients = torch.autograd.grad(loss(net, net(data.images), data.labels), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = gradient / gradient.norm() * 1e-5
        values = []
        for sign in (1, -1):
            with at([parameter], [parameter + sign * direction]), torch.no_grad():
                values.append(float(loss(net, net(data.images), data.labels)))
        slope = 2e-5 * float(gradient.norm())
        # max pooling beside the operations of partial channels has kinks
        assert values[0] - values[1] == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_the_two_halves_apart(name: str) -> None:
    chosen = strategy(name, Search(partial_channels=2))
    net = tiny(form=chosen.form)
    loss, optimiser, generator = objective(net), optimisers(net), _seeded(1)
    architecture = {id(p) for p in net.architecture_parameters()}
    for warming_up in (True, False):
        before = {key: value.detach().clone() for key, value in net.named_parameters()}
        step = Step(net, loss, optimiser, batch(1), batch(2), warming_up, 0.5, generator)
        result = chosen.step(step)
        assert result.train_logits.shape == (8, 10)
        moved = {key for key, p in net.named_parameters() if not torch.equal(p, before[key])}
        names = {key for key, p in net.named_parameters() if id(p) in architecture}
        assert moved - names
        # a sampled pass moves alphas by their energy at least
        assert not moved & names if warming_up else names <= moved


def test_beta_decay_is_the_mean_logsumexp_of_alphas() -> None:
    net = smooth()
    rows = [torch.log(a.exp().sum(1)) for a in net.alphas.values()]
    assert float(beta_decay(net)) == pytest.approx(float(torch.stack(rows).mean()))
    data, loss = batch(1, torch.float64), objective(net)
    logits = net(data.images)
    with_decay = replace(loss, decay=torch.tensor(2.0))(net, logits, data.labels)
    assert torch.allclose(with_decay, loss(net, logits, data.labels) + 2 * beta_decay(net))
