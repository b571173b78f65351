"""The two halves of a step: alphas and betas on validation images, weights on training images.

What differs is how a pass chooses its shares, and what is added to the loss of alphas and betas.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter, functional
from torch.optim import Optimizer

from cosearch.choices import Choices
from cosearch.distributed import averaged
from cosearch.passes import frozen
from cosearch.world import ALONE, World

from .strategy import Step, StepResult

__all__ = ["Choose", "Penalty", "bilevel_step", "move", "weights_step"]

# The shares of one pass, by cell type; drawn anew for each where they are drawn.
Choose = Callable[[], Mapping[str, Choices]]
Penalty = Callable[[], Tensor]


def bilevel_step(at: Step, choose: Choose, penalty: Penalty | None = None) -> StepResult:
    """Alphas and betas down the gradient of objective + penalty at the weights as they are, then
    weights down that of the cross-entropy.
    """
    supernet = at.supernet
    with frozen(supernet.weight_parameters()), torch.set_grad_enabled(not at.warming_up):
        logits = at.logits(at.validation.images, choose())
        loss = at.objective(supernet, logits, at.validation.labels)
        if penalty is not None:
            loss = loss + penalty()
        if not at.warming_up:
            architecture = supernet.architecture_parameters()
            gradients = _gradients(architecture, loss)
            move(architecture, gradients, at.optimisers.architecture, world=at.world)
    train_loss, train_logits = weights_step(at, choose)
    return StepResult(train_loss, train_logits, loss.detach(), logits.detach())


def weights_step(at: Step, choose: Choose) -> tuple[Tensor, Tensor]:
    """Weights down the gradient of the cross-entropy; it and the logits, from before the step."""
    supernet, optimisers = at.supernet, at.optimisers
    with frozen(supernet.architecture_parameters()):
        logits = at.logits(at.train.images, choose())
        loss = functional.cross_entropy(logits, at.train.labels)
        weights = supernet.weight_parameters()
        gradients = _gradients(weights, loss)
        move(weights, gradients, optimisers.weights, optimisers.gradient_clip, at.world)
    return loss.detach(), logits.detach()


def move(
    parameters: Sequence[Parameter],
    gradients: Sequence[Tensor | None],
    optimiser: Optimizer,
    clip: float | None = None,
    world: World = ALONE,
) -> None:
    """One step of `optimiser` with the mean of all processes' gradients; parameters without one
    stay.
    """
    for parameter, gradient in zip(parameters, averaged(gradients, world), strict=True):
        parameter.grad = None if gradient is None else laid_out_as(parameter, gradient)
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimiser.step()


def laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of its parameter, which fused optimisers want; a copy only
    where its values lie otherwise.
    """
    shape, strides = gradient.shape, parameter.stride()
    if all(n == 1 or a == b for n, a, b in zip(shape, gradient.stride(), strides, strict=True)):
        return gradient.as_strided(shape, strides)
    return torch.empty_like(parameter).copy_(gradient)


def _gradients(parameters: Sequence[Parameter], loss: Tensor) -> Sequence[Tensor | None]:
    gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, parameters, allow_unused=True)
    return gradients
