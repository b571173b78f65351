"""Quantisers: symmetric, per output channel for weights and per tensor for activations.

Rounding is that of ONNX ``QuantizeLinear``: round half to even of x / scale, then clamp. Gradients
are straight-through inside the range and zero outside it (Jacob et al., CVPR 2018).
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ActivationQuantiser", "quantise", "weight_scales"]

SMALLEST_SCALE = 1e-8


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        levels = torch.round(x / scale)
        ctx.save_for_backward((levels >= low) & (levels <= high), scale)
        return levels.clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inside, scale = ctx.saved_tensors
        return gradients[0] * inside / scale, None, None, None


def quantise(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Integer levels ``clamp(round(x / scale), low, high)`` as x's float type; d levels / dx = 1 /
    scale.
    """
    result: Tensor = _Quantise.apply(x, scale, low, high)
    return result


def weight_scales(weight: Tensor, high: int) -> Tensor:
    """One scale per output channel, so that its largest magnitude becomes `high`: shape (O, 1, 1,
    1).
    """
    largest = weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    return (largest / high).clamp_min(SMALLEST_SCALE)


class ActivationQuantiser(nn.Module):
    """Per-tensor quantiser whose range follows a moving average of the largest magnitude while
    training.

    ``levels = clamp(round(x / scale), low, high)``. `momentum` is the weight of the newest batch.
    The first batch sets the range.
    """

    largest: Tensor
    batches: Tensor

    def __init__(self, low: int, high: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.low, self.high, self.momentum = low, high, momentum
        self.register_buffer("largest", torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0, dtype=torch.int64))

    @property
    def scale(self) -> Tensor:
        """Real value of one level, a 0-dimensional tensor."""
        return (self.largest / self.high).clamp_min(SMALLEST_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self._observe(x.detach())
        return quantise(x, self.scale, self.low, self.high)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        newest = x.abs().amax()
        momentum = torch.where(self.batches == 0, 1.0, self.momentum)
        self.largest.copy_(self.largest + momentum * (newest - self.largest))
        self.batches += 1
