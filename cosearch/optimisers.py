"""The optimisers: SGD for weights, Adam for alphas and betas (DARTS, Liu et al., 2019).

Those of steps that become CUDA graphs wait for nothing: rates live on the device.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cosearch.config import Search
from cosearch.strategies.strategy import Optimisers
from cosearch.supernet import Supernet

__all__ = ["descent", "search_optimisers", "set_rate"]

ADAM_BETAS = (0.5, 0.999)


def search_optimisers(supernet: Supernet, settings: Search, *, captured: bool) -> Optimisers:
    """For a supernet where it is now; `captured`: all weights have gradients in each step, and a
    step is to be a CUDA graph.
    """
    rate, momentum = settings.weight_learning_rate, settings.momentum
    weights = supernet.weight_parameters()
    sgd = descent(weights, rate, momentum, settings.weight_decay, captured=captured)
    groups = _architecture_groups(supernet, settings.alpha_weight_decay)
    adam = torch.optim.Adam(
        groups, settings.alpha_learning_rate, betas=ADAM_BETAS, capturable=captured
    )
    return Optimisers(sgd, adam, settings.gradient_clip)


def descent(
    weights: list[nn.Parameter],
    rate: float,
    momentum: float,
    decay: float,
    *,
    nesterov: bool = False,
    captured: bool = False,
) -> torch.optim.SGD:
    """Stochastic gradient descent; its rate is a tensor beside the weights where steps are
    captured.
    """
    return torch.optim.SGD(
        weights,
        torch.tensor(rate, device=weights[0].device) if captured else rate,
        momentum=momentum,
        weight_decay=decay,
        nesterov=nesterov,
        fused=True if captured else None,
    )


def _architecture_groups(supernet: Supernet, decay: float) -> list[dict[str, Any]]:
    """Alphas with decay, betas without.

    Gradients of betas are far smaller; Adam's decay, which is added to the gradient, would hold
    them at zero.
    """
    return [
        {"params": supernet.alpha_parameters(), "weight_decay": decay},
        {"params": supernet.beta_parameters(), "weight_decay": 0.0},
    ]


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of all groups; one on a device changes in place."""
    for group in optimiser.param_groups:
        device = group["params"][0].device
        if not isinstance(group["lr"], Tensor):
            group["lr"] = rate
        elif group["lr"].device == device:
            group["lr"].fill_(rate)
        else:  # read from a checkpoint
            group["lr"] = torch.tensor(rate, device=device)
