"""DARTS, first order (Liu, Simonyan, Yang, ICLR 2019, section 2.3 with xi = 0).

Alphas and betas follow the gradient of the objective on the validation batch at the weights as they
are; then the weights follow that of the cross-entropy on the training batch.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import Parameter, functional
from torch.optim import Optimizer

from cosearch.objective import Objective
from cosearch.supernet import Supernet

from .strategy import Batch, Optimisers, StepResult

__all__ = ["Darts"]


class Darts:
    """First-order DARTS; keeps nothing between steps."""

    def step(
        self,
        supernet: Supernet,
        objective: Objective,
        optimisers: Optimisers,
        train: Batch,
        validation: Batch,
        *,
        warming_up: bool,
    ) -> StepResult:
        with _frozen(supernet.weight_parameters()), torch.set_grad_enabled(not warming_up):
            logits = supernet(validation.images)
            objective_value = objective(supernet, logits, validation.labels)
            if not warming_up:
                _move(supernet.architecture_parameters(), objective_value, optimisers.architecture)
        with _frozen(supernet.architecture_parameters()):
            train_logits = supernet(train.images)
            loss = functional.cross_entropy(train_logits, train.labels)
            _move(supernet.weight_parameters(), loss, optimisers.weights, optimisers.gradient_clip)
        return StepResult(
            float(loss.detach()),
            train_logits.detach(),
            float(objective_value.detach()),
            logits.detach(),
        )


@contextlib.contextmanager
def _frozen(parameters: list[Parameter]) -> Iterator[None]:
    """Without gradients for `parameters`: layers do not compute those that nobody takes."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _move(
    parameters: list[Parameter], loss: Tensor, optimiser: Optimizer, clip: float | None = None
) -> None:
    """One step of `optimiser` down the gradient of `loss` with respect to `parameters` alone."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimiser.step()
