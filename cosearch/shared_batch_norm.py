"""A batch norm whose batch is that of all processes together, on CPUs as on GPUs.

Forward (Ioffe and Szegedy, ICML 2015): each process sends mean, variance and count; they are merged
by Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance" (1983). Every process
merges the same numbers in the same order, so statistics are equal bit for bit. Backward sums the
two reductions of the gradient over all processes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SharedBatchNorm2d"]

CHANNELS = (1, -1, 1, 1)
ALL_BUT_CHANNELS = (0, 2, 3)

# (k,) of this process to (processes, k), and to their sum (k,).
Gather = Callable[[Tensor], Tensor]
Sum = Callable[[Tensor], Tensor]


class SharedBatchNorm2d(nn.BatchNorm2d):
    """As ``nn.BatchNorm2d``, state included; in eval mode it is one.

    The share of each process must have the same number of images.
    """

    gather: Gather
    sum: Sum

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, gather: Gather, sum_: Sum) -> "SharedBatchNorm2d":
        """One with the parameters and buffers of `norm` themselves."""
        made = cls(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        made.weight, made.bias = norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        made.gather, made.sum = gather, sum_
        return made.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean, variance, count = self._statistics(input.detach())
        if self.track_running_stats:
            self._follow(mean, variance * (count / (count - 1)))
        inverse = torch.rsqrt(variance + self.eps)
        normalised: Tensor = _Normalise.apply(input, mean, inverse, count, self.sum)
        if not self.affine:
            return normalised
        return normalised * self.weight.view(CHANNELS) + self.bias.view(CHANNELS)

    @torch.no_grad()
    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Mean and (biased) variance of each channel, and the number of values."""
        own, own_mean = torch.var_mean(_wide(x), ALL_BUT_CHANNELS, correction=0)
        variances, means = self.gather(torch.cat([own, own_mean])).chunk(2, dim=1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        return mean, variance, len(means) * (x.numel() // x.shape[1])

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        assert self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _Normalise(torch.autograd.Function):
    """(x - mean) · inverse, mean and inverse being functions of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, inverse: Tensor, count: int, sum_: Sum
    ) -> Tensor:
        ctx.save_for_backward(x, mean, inverse)
        ctx.count, ctx.sum = count, sum_
        scaled = (x - mean.view(CHANNELS)) * inverse.view(CHANNELS)
        return scaled.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse = ctx.saved_tensors
        gradient = _wide(gradients[0])
        normalised = (x - mean.view(CHANNELS)) * inverse.view(CHANNELS)
        sums = [part.sum(ALL_BUT_CHANNELS) for part in (gradient, gradient * normalised)]
        first, second = ctx.sum(torch.cat(sums)).div(ctx.count).chunk(2)
        passed = gradient - first.view(CHANNELS) - normalised * second.view(CHANNELS)
        return (passed * inverse.view(CHANNELS)).to(x.dtype), None, None, None, None


def _wide(x: Tensor) -> Tensor:
    """In float32, or wider where `x` is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
