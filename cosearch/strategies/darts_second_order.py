"""DARTS, second order (Liu, Simonyan, Yang, ICLR 2019, Eq. 6 to 8).

The weights are unrolled one step of their own SGD, ``w' = w - xi (mu buf + g + decay w)`` with
``g`` the gradient on the training batch. Only g depends on alphas and betas (momentum and decay
drop out of the derivative), so with ``v`` the gradient of the objective at w'

    d/da objective(w'(a), a) = grad_a objective(w', a) - xi (d2 train_loss / da dw) v
    (d2 train_loss / da dw) v = (grad_a train_loss(w + e v) - grad_a train_loss(w - e v)) / (2 e)

with e = 0.01 / |v|. The difference is divided by 2 e. Gradients are not clipped in the unrolled
step. The passes at w' and w ± e v leave nothing behind: statistics, ranges of quantisers and
metrics are those of one more pass at w, as a first-order step makes it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter, functional

from cosearch.choices import Form
from cosearch.config import Search
from cosearch.distributed import averaged
from cosearch.passes import at, filled_gradients, frozen, undisturbed

from .bilevel import move, weights_step
from .strategy import Step, StepResult

__all__ = ["DartsSecondOrder", "unrolled_gradients"]

PERTURBATION = 0.01  # norm of the weights' displacement


class DartsSecondOrder:
    """Second-order DARTS; xi is `search.unrolled_share` times the weights' learning rate."""

    form, capturable = Form(), False

    def __init__(self, settings: Search) -> None:
        self.share = settings.unrolled_share

    def step(self, at: Step) -> StepResult:
        supernet = at.supernet
        gradients = None if at.warming_up else unrolled_gradients(at, self.share)
        with torch.no_grad():
            logits = at.logits(at.validation.images)
            loss = at.objective(supernet, logits, at.validation.labels)
        if gradients is not None:
            architecture, optimiser = supernet.architecture_parameters(), at.optimisers.architecture
            move(architecture, gradients, optimiser, world=at.world)
        train_loss, train_logits = weights_step(at, supernet.all_choices)
        return StepResult(train_loss, train_logits, loss, logits)


def unrolled_gradients(step: Step, share: float) -> list[Tensor]:
    """Gradients of the objective at the unrolled weights, as architecture_parameters() orders them.

    Of the whole batch once they are averaged over all processes.
    The supernet is left as it is, bit for bit.
    """
    supernet, validation = step.supernet, step.validation
    architecture, weights = supernet.architecture_parameters(), supernet.weight_parameters()
    with undisturbed(supernet), frozen(architecture):
        steps = averaged(filled_gradients(_train_loss(step), weights), step.world)
    rates, unrolled = _unrolled(weights, steps, step.optimisers.weights, share)
    with undisturbed(supernet), at(weights, unrolled):
        loss = step.objective(supernet, step.logits(validation.images), validation.labels)
        gradients = filled_gradients(loss, [*architecture, *weights])
    first = gradients[: len(architecture)]
    direction = averaged(gradients[len(architecture) :], step.world)
    direction = [rate * part for rate, part in zip(rates, direction, strict=True)]
    mixed = _mixed_derivative(step, direction)
    return [one - two for one, two in zip(first, mixed, strict=True)]


def _mixed_derivative(step: Step, direction: Sequence[Tensor]) -> list[Tensor]:
    """(d2 train_loss / d architecture d weights) · direction, by a central difference."""
    supernet = step.supernet
    architecture, weights = supernet.architecture_parameters(), supernet.weight_parameters()
    norm = float(torch.linalg.vector_norm(torch.stack([part.norm() for part in direction])))
    if norm == 0:
        return [torch.zeros_like(parameter) for parameter in architecture]
    size = PERTURBATION / norm

    def gradients(signed_size: float) -> list[Tensor]:
        moved = [w.detach() + signed_size * d for w, d in zip(weights, direction, strict=True)]
        with undisturbed(supernet), frozen(weights), at(weights, moved):
            return filled_gradients(_train_loss(step), architecture)

    above, below = gradients(size), gradients(-size)
    return [(one - two) / (2 * size) for one, two in zip(above, below, strict=True)]


def _unrolled(
    weights: Sequence[Parameter],
    gradients: Sequence[Tensor],
    optimiser: torch.optim.Optimizer,
    share: float,
) -> tuple[list[float], list[Tensor]]:
    """xi of each weight and the weights after one step of SGD as `optimiser` would make it."""
    groups = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    rates, unrolled = [], []
    for weight, gradient in zip(weights, gradients, strict=True):
        group = groups[id(weight)]
        assert not group["nesterov"] and not group["dampening"] and not group["maximize"]
        value = weight.detach()
        step = gradient + group["weight_decay"] * value
        momentum = (
            optimiser.state[weight].get("momentum_buffer") if weight in optimiser.state else None
        )
        if momentum is not None:
            step = step + group["momentum"] * momentum
        rates.append(share * group["lr"])
        unrolled.append(value - rates[-1] * step)
    return rates, unrolled


def _train_loss(step: Step) -> Tensor:
    return functional.cross_entropy(step.logits(step.train.images), step.train.labels)
