"""Second-order DARTS against finite differences and autograd, and what its passes leave behind."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cosearch.config import Search
from cosearch.objective import Objective
from cosearch.passes import at
from cosearch.strategies import Batch, Step, Strategy, strategy
from cosearch.strategies.darts_second_order import unrolled_gradients
from cosearch.strategies.strategy import Optimisers
from cosearch.supernet import Supernet

from .smooth import batch, objective, optimisers, smooth, tiny

TRAIN, VALIDATION = batch(1, torch.float64), batch(2, torch.float64)


def _prepared() -> tuple[Supernet, Objective, Optimisers]:
    """A smooth supernet one step into its training, so that there is momentum."""
    net = smooth()
    loss, optimiser = objective(net), optimisers(net)
    strategy("darts").step(Step(net, loss, optimiser, TRAIN, VALIDATION, True))
    return net, loss, optimiser


def _moved_weights(net: Supernet, optimiser: Optimisers, share: float) -> list[Tensor]:
    """w' = w - xi (mu buf + g + decay w), plainly."""
    train = functional.cross_entropy(net(TRAIN.images), TRAIN.labels)
    gradients = torch.autograd.grad(train, net.weight_parameters())
    group, moved = optimiser.weights.param_groups[0], []
    for w, g in zip(net.weight_parameters(), gradients, strict=True):
        buffer = optimiser.weights.state[w]["momentum_buffer"]
        step = group["momentum"] * buffer + g + group["weight_decay"] * w.detach()
        moved.append(w.detach() - share * group["lr"] * step)
    return moved


def _unrolled_objective(
    net: Supernet, loss: Objective, optimiser: Optimisers, share: float
) -> Tensor:
    """objective(w'(a), a)."""
    with at(net.weight_parameters(), _moved_weights(net, optimiser, share)):
        return loss(net, net(VALIDATION.images), VALIDATION.labels).detach()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_gradients_of_alphas_and_betas_by_finite_differences(share: float) -> None:
    """share 0 is the first order; every group of alphas and betas along a direction of its own."""
    net, loss, optimiser = _prepared()
    gradients = unrolled_gradients(Step(net, loss, optimiser, TRAIN, VALIDATION, False), share)
    generator = torch.Generator().manual_seed(3)
    for parameter, gradient in zip(net.architecture_parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction = (direction / direction.norm() + gradient / gradient.norm()) * 1e-5
        with at([parameter], [parameter + direction]):
            above = float(_unrolled_objective(net, loss, optimiser, share))
        with at([parameter], [parameter - direction]):
            below = float(_unrolled_objective(net, loss, optimiser, share))
        slope = float((gradient * direction).sum()) * 2
        assert above - below == pytest.approx(slope, rel=1e-5 if share == 0 else 1e-2)


def test_second_order_term_is_that_of_autograd() -> None:
    """Autograd's gradient of a gradient is the oracle of the difference of two gradients."""
    net, loss, optimiser = _prepared()
    architecture, weights = net.architecture_parameters(), net.weight_parameters()
    gradients = unrolled_gradients(Step(net, loss, optimiser, TRAIN, VALIDATION, False), 1.0)
    with at(weights, _moved_weights(net, optimiser, 1.0)):
        value = loss(net, net(VALIDATION.images), VALIDATION.labels)
        outer = torch.autograd.grad(value, [*architecture, *weights])
    first, vector = outer[: len(architecture)], outer[len(architecture) :]
    train = functional.cross_entropy(net(TRAIN.images), TRAIN.labels)
    inner = torch.autograd.grad(train, weights, create_graph=True)
    product = sum((g * v).sum() for g, v in zip(inner, vector, strict=True))
    assert isinstance(product, Tensor)
    second = torch.autograd.grad(product, architecture)
    for ours, one, two in zip(gradients, first, second, strict=True):
        expected = -optimiser.weights.param_groups[0]["lr"] * two
        assert expected.norm() > 1e-6
        assert (ours - one - expected).norm() < 0.03 * expected.norm()


def _step(name: str, settings: Search, seed: int = 0) -> Supernet:
    net = tiny(seed)
    chosen: Strategy = strategy(name, settings)
    loss, optimiser = objective(net), optimisers(net)
    for number in range(2):
        train, validation = batch(10 + number), batch(20 + number)
        chosen.step(Step(net, loss, optimiser, train, validation, False))
    return net


def test_second_order_with_xi_0_is_the_first_order_bit_for_bit() -> None:
    one = _step("darts", Search())
    two = _step("darts_second_order", Search(unrolled_share=0.0))
    unrolled = _step("darts_second_order", Search())
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    moved = unrolled.state_dict()["alphas.normal"]
    assert not torch.equal(one.state_dict()["alphas.normal"], moved)


def test_extra_passes_leave_nothing_behind() -> None:
    net = tiny()
    loss, optimiser = objective(net), optimisers(net)
    strategy("darts").step(Step(net, loss, optimiser, batch(1), batch(2), True))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    unrolled_gradients(Step(net, loss, optimiser, batch(3), batch(4), False), 1.0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_buffers_after_a_step_are_those_of_a_first_order_step() -> None:
    """With weights at rest, whose step follows that of alphas and so differs."""
    buffers = []
    for name in ("darts", "darts_second_order"):
        net = tiny()
        loss = objective(net)
        resting = Optimisers(
            torch.optim.SGD(net.weight_parameters(), 0.0),
            torch.optim.SGD(net.architecture_parameters(), 0.0),
            5.0,
        )
        train, validation = Batch(*vars(batch(1)).values()), batch(2)
        result = strategy(name).step(Step(net, loss, resting, train, validation, False))
        buffers.append(dict(net.named_buffers()) | {"logits": result.validation_logits})
    for name, value in buffers[0].items():
        assert torch.equal(value, buffers[1][name]), name
