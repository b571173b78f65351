"""Weighted sums of batch-normalised images: what an edge of the supernet adds to its node.

``y = base + sum_j weights[j] · term_j``, terms being batch-normalised (no gain, no shift)
or as they are. Where a supernet computes each batch norm, product and sum as an operation of its
own, memory is what it waits for; on a CUDA device one kernel makes the statistics of all terms, one
the sums, and two all gradients. Elsewhere the same in ordinary operations.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lut.backends.cuda_exact import MOST_VALUES
from lut.backends.cuda_operands import cuda_refusal, on_device, power_of_two
from lut.backends.cuda_sums import summed

__all__ = ["normalised_relu", "weighted_sum"]

TILE = 2048
PROGRAMS = 256
"""Programs that share the sums over a batch's positions."""


def weighted_sum(
    weights: Tensor,
    normed: Sequence[tuple[Tensor, nn.BatchNorm2d]],
    plain: Sequence[Tensor] = (),
    base: Tensor | None = None,
) -> Tensor:
    """The image (N, C, H, W) of `weights` (J,), terms being `normed`, then `plain`; added to `base`
    where there is one.

    Batch norms are in training and have neither gain nor shift; their running statistics move as in
    an ordinary pass.
    """
    terms, norms = [term for term, _ in normed] + list(plain), [norm for _, norm in normed]
    if _has_kernels(terms[0]):
        settings = (len(normed), base is not None, False, _settings(norms))
        means, variances = ([getattr(n, k) for n in norms] for k in ("running_mean", "running_var"))
        bases = () if base is None else (base,)
        result: Tensor = _WeightedSum.apply(weights, settings, means, variances, *terms, *bases)
        return result
    values = [_normalised(term, norm) for term, norm in normed] + list(plain)
    total = torch.stack([w * value for w, value in zip(weights, values, strict=True)]).sum(0)
    return total if base is None else base + total


def normalised_relu(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """relu(norm(x)) of a batch norm in training, without gain and shift."""
    if not _has_kernels(x):
        return functional.relu(_normalised(x, norm))
    one = torch.ones(1, dtype=torch.float32, device=x.device)
    settings = (1, False, True, _settings([norm]))
    moving = [norm.running_mean], [norm.running_var]
    result: Tensor = _WeightedSum.apply(one, settings, *moving, x)
    return result


def _has_kernels(x: Tensor) -> bool:
    small = x.numel() < MOST_VALUES
    return small and cuda_refusal(x) is None and x.dtype != torch.float64


def _settings(norms: Sequence[nn.BatchNorm2d]) -> tuple[float, float]:
    """Their momentum and eps."""
    known = {(norm.momentum, norm.eps) for norm in norms} or {(0.1, 1e-5)}
    assert len(known) == 1 and not any(norm.affine for norm in norms)
    momentum, eps = known.pop()
    assert momentum is not None
    return momentum, eps


def _normalised(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    momentum, eps = _settings([norm])
    return functional.batch_norm(
        x, norm.running_mean, norm.running_var, None, None, True, momentum, eps
    )


class _WeightedSum(torch.autograd.Function):
    """`settings`: normed terms, whether there is a base, whether the result is rectified,
    (momentum, eps).
    """

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        settings: tuple[int, bool, bool, tuple[float, float]],
        means: list[Tensor],
        variances: list[Tensor],
        *images: Tensor,
    ) -> Tensor:
        normed, based, relu, (momentum, eps) = settings
        rows = [_rows(image) for image in images]
        terms, base = tuple(rows[:-1] if based else rows), rows[-1] if based else None
        weights = weights.detach().float().contiguous()
        statistics = weights
        if normed:
            statistics = _statistics(terms[:normed], means, variances, momentum, eps)
        ctx.save_for_backward(weights, statistics, *terms)
        ctx.settings = settings
        return _weighed(terms, base, weights, statistics, normed, relu).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        weights, statistics, *saved = ctx.saved_tensors
        normed, based, relu, _ = ctx.settings
        terms, signal = tuple(saved), _rows(gradient)
        products = signal
        if normed or ctx.needs_input_grad[0]:
            products = _products(terms, signal, statistics, normed, relu)
        found = _term_gradients(terms, signal, weights, statistics, products, normed, relu)
        grad_weights = products[:-1].sum(-1) if ctx.needs_input_grad[0] else None
        images = [one.permute(0, 3, 1, 2) for one in found]
        return grad_weights, None, None, None, *images, *((gradient,) if based else ())


def _rows(images: Tensor) -> Tensor:
    """(N, H, W, C), contiguous."""
    return images.detach().permute(0, 2, 3, 1).contiguous()


def _tile(channels: int) -> tuple[int, int]:
    """Positions and channels of a program."""
    wide = min(128, power_of_two(channels))
    return TILE // wide, wide


def _shared(positions: int, many: int) -> tuple[int, int]:
    """Turns of a program, and how many programs share the positions."""
    turns = max(1, -(-positions // (many * PROGRAMS)))
    return turns, -(-positions // (many * turns))


def _statistics(
    terms: tuple[Tensor, ...],
    means: list[Tensor],
    variances: list[Tensor],
    momentum: float,
    eps: float,
) -> Tensor:
    """float32 (terms, 2, C): means and reciprocals of standard deviations."""
    from .norm_kernels import batch_statistics, partial_moments

    device, channels = terms[0].device, terms[0].shape[-1]
    positions, (many, wide) = terms[0].numel() // channels, _tile(channels)
    turns, programs = _shared(positions, many)
    parts = torch.empty((programs, len(terms), 2, channels), device=device)
    statistics = torch.empty((len(terms), 2, channels), device=device)
    with on_device(terms[0]):
        partial_moments[(programs, -(-channels // wide))](
            terms, parts, positions, channels, turns, len(terms), many, wide, num_warps=4
        )
        few = min(16, wide)
        batch_statistics[(-(-channels // few),)](
            parts, tuple(means), tuple(variances), statistics, positions, channels, programs,
            momentum, eps, len(terms), power_of_two(programs), few, num_warps=4,
        )  # fmt: skip
    return statistics


def _weighed(
    terms: tuple[Tensor, ...],
    base: Tensor | None,
    weights: Tensor,
    statistics: Tensor,
    normed: int,
    relu: bool,
) -> Tensor:
    from .norm_kernels import weigh

    channels = terms[0].shape[-1]
    positions, (many, wide) = terms[0].numel() // channels, _tile(channels)
    result = torch.empty_like(terms[0])
    with on_device(result):
        weigh[(-(-positions // many), -(-channels // wide))](
            terms, result if base is None else base, result, weights, statistics, positions,
            channels, len(terms), normed, base is not None, relu, many, wide, num_warps=4,
        )  # fmt: skip
    return result


def _products(
    terms: tuple[Tensor, ...], signal: Tensor, statistics: Tensor, normed: int, relu: bool
) -> Tensor:
    """float32 (J + 1, C): sums of gradient · term, and of the gradient."""
    from .norm_kernels import partial_products

    channels = signal.shape[-1]
    positions, (many, wide) = signal.numel() // channels, _tile(channels)
    turns, programs = _shared(positions, many)
    parts = torch.empty((programs, len(terms) + 1, channels), device=signal.device)
    with on_device(signal):
        partial_products[(programs, -(-channels // wide))](
            terms, signal, statistics, parts, positions, channels, turns,
            len(terms), normed, relu, many, wide, num_warps=4,
        )  # fmt: skip
    return summed(parts)


def _term_gradients(
    terms: tuple[Tensor, ...],
    signal: Tensor,
    weights: Tensor,
    statistics: Tensor,
    products: Tensor,
    normed: int,
    relu: bool,
) -> tuple[Tensor, ...]:
    from .norm_kernels import term_gradients

    channels = signal.shape[-1]
    positions, (many, wide) = signal.numel() // channels, _tile(channels)
    results = tuple(torch.empty_like(term) for term in terms)
    with on_device(signal):
        term_gradients[(-(-positions // many), -(-channels // wide))](
            terms, signal, results, weights, statistics, products, positions, channels,
            len(terms), normed, relu, many, wide, num_warps=4,
        )  # fmt: skip
    return results
