"""Passes of a network that leave nothing behind: parameters at rest, buffers and generator kept."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from cosearch.device import device_generator_state, set_device_generator_state

__all__ = ["at", "filled_gradients", "frozen", "undisturbed"]


@contextlib.contextmanager
def frozen(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Without gradients for `parameters`: layers do not compute those that nobody takes."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Afterwards buffers (batch norms' statistics, observers' ranges) and torch's generators of the
    CPU and of the network's device are as they were before: what draws, draws the same again.
    """
    device = next(network.parameters()).device
    on_device = device_generator_state(device)
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    generator = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(generator)
        set_device_generator_state(device, on_device)
        for buffer, value in before:
            buffer.copy_(value)


@contextlib.contextmanager
def at(parameters: Sequence[Parameter], values: Iterable[Tensor]) -> Iterator[None]:
    """With `values` in `parameters`; afterwards they are what they were, bit for bit."""
    before = [parameter.detach().clone() for parameter in parameters]
    _put(parameters, values)
    try:
        yield
    finally:
        _put(parameters, before)


def filled_gradients(loss: Tensor, parameters: Sequence[Parameter]) -> list[Tensor]:
    """Gradients of `loss`, zeros for parameters that it does not depend on."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]


@torch.no_grad()
def _put(parameters: Sequence[Parameter], values: Iterable[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
