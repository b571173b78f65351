"""Layers that compute with approximate products: quantise, multiply by table, accumulate, rescale.

One layer holds one multiplier or several candidates. All candidates share one activation side
(:func:`lut.factors.joint_basis`), so a mixture weighted by betas costs the rank of that basis, not
the number of candidates: ``sum_m beta_m sum_k table_m[x_k, w_k] = sum_r u_r(x) * (sum_m beta_m
v_mr(w))``.

Gradients with respect to operands are those of :mod:`lut.gradients`, by default straight-through.
How operands are quantised, and whether scales are learned, says a ``Quantisation``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .backends.cuda_operands import cuda_refusal
from .candidates import Candidates
from .geometry import ConvGeometry, IntPair, pair
from .observers import SMALLEST_SCALE, MovingAverage
from .quantisation import Quantisation, learned_scale, quantise, step_size, weight_scales

__all__ = ["ApproxConv1d", "ApproxConv2d", "ApproxLinear", "observed_together", "result_type"]

PLAIN = Quantisation()


class ApproxConv2d(nn.Module):
    """Convolution whose integer products are those of a multiplier.

    ``y = scale_x · scale_w[o] · accumulator (+ bias[o])``, the accumulator being exactly the
    table's integer sum. kernel_size, stride, padding (zeros), dilation: one number or (height,
    width). Input float (N, C, H, W), output float (N, O, H', W'). With several candidates
    ``forward`` takes their weights, shape (M,), which need not be one-hot.

    Parameters: weight (O, C / groups, kH, kW), bias (O,) or None, and weight_scale (O,), None
    unless `quantisation` is learned; without it the largest magnitude of each output channel is the
    highest level. Weights below zero become 0 where a multiplier's second operand is unsigned.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        candidates: Candidates,
        *,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = False,
        quantisation: Quantisation = PLAIN,
    ) -> None:
        super().__init__()
        self.candidates = candidates
        self.geometry = ConvGeometry.of(stride, padding, dilation, groups)
        height, width = pair(kernel_size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, height, width))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.quantiser = quantisation.quantiser(candidates.a_range, candidates.a_full_range)
        self.weight_scale = (
            nn.Parameter(torch.empty(out_channels)) if quantisation.learned else None
        )
        self.start_weight_scale()
        self.register_buffer("scratch", torch.zeros(2, dtype=torch.int32), persistent=False)

    @torch.no_grad()
    def start_weight_scale(self) -> None:
        """Set a learned weight_scale to 2·mean|w| / sqrt(high) of each output channel."""
        if self.weight_scale is not None:
            magnitudes = self.weight.float().abs().mean((1, 2, 3))
            self.weight_scale.copy_(step_size(magnitudes, self.candidates.b_range[1]))

    def quantised_weight(self) -> tuple[Tensor, Tensor]:
        """Integer levels (O, C / groups, kH, kW) as floats, and scales (O, 1, 1, 1)."""
        low, high = self.candidates.b_range
        learned = self._learned_weight_scale()
        scales = weight_scales(self.weight, high) if learned is None else learned.view(-1, 1, 1, 1)
        return quantise(self.weight, scales, low, high), scales

    def forward(
        self, x: Tensor, mixture: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """`scale`: of x, where :func:`observed_together` has observed it already."""
        self.candidates.check_mixture(mixture)
        self._keep_scale_positive()
        scale, zero_point = self._grid(x) if scale is None else (scale, self.quantiser.zero_point)
        geometry = self.geometry
        result: Tensor = torch.ops.lut.conv2d(
            x, self.weight, scale, zero_point, self._learned_weight_scale(), mixture,
            self.candidates.key, not self.quantiser.is_symmetric,
            (self.quantiser.low, self.quantiser.high), self.candidates.b_range, geometry.stride,
            geometry.padding, geometry.dilation, geometry.groups, result_type(x),
        )[0]  # fmt: skip
        return result if self.bias is None else result + self.bias.to(result.dtype).view(-1, 1, 1)

    def _keep_scale_positive(self) -> None:
        """Where an optimiser's step left it below; there its gradient would be 0 for good."""
        if self.training and self.weight_scale is not None:
            with torch.no_grad():
                self.weight_scale.clamp_min_(SMALLEST_SCALE)

    def _learned_weight_scale(self) -> Tensor | None:
        """(O,), positive."""
        if self.weight_scale is None:
            return None
        return learned_scale(self.weight_scale, self.weight[0].numel(), self.candidates.b_range[1])

    def _grid(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The quantiser's grid, observed by one kernel where that is possible."""
        observer = self._fused_observer(x)
        if observer is None:
            return self.quantiser.grid(x)
        scale = torch.ops.lut.observe_largest(
            x.detach(), self.scratch, observer.low_value, observer.high_value, observer.batches,
            self.quantiser.scale, observer.momentum, self.quantiser.high,
        )  # fmt: skip
        return scale, self.quantiser.zero_point

    def _fused_observer(self, x: Tensor) -> MovingAverage | None:
        """The observer of x if a kernel does what it would do."""
        quantiser, observer = self.quantiser, self.quantiser.observer
        if type(observer) is not MovingAverage or observer.across is not None:
            return None
        observing = self.training and quantiser.training and quantiser.is_symmetric
        return observer if observing and cuda_refusal(x) is None else None

    def extra_repr(self) -> str:
        outputs, inputs, *kernel = self.weight.shape
        names = "|".join(lut.name for lut in self.candidates.luts)
        channels = f"{inputs * self.geometry.groups}, {outputs}"
        return f"{channels}, kernel_size={tuple(kernel)}, multiplier={names}"


def observed_together(layers: Sequence[ApproxConv2d], x: Tensor) -> dict[ApproxConv2d, Tensor]:
    """The scales of x by layer, of those of the layers whose observers one kernel can do the work
    of: each as the layer by itself would have it. The others observe when they are called.
    """
    observers = {layer: layer._fused_observer(x) for layer in layers}
    known = [(layer, one) for layer, one in observers.items() if one is not None]
    like = [(one.momentum, layer.quantiser.high) for layer, one in known]
    same = [pair for pair, settings in zip(known, like, strict=True) if settings == like[0]]
    if len(same) < 2:
        return {}
    scales: Tensor = torch.ops.lut.observe_together(
        x.detach(), same[0][0].scratch, [one.low_value for _, one in same],
        [one.high_value for _, one in same], [one.batches for _, one in same],
        [layer.quantiser.scale for layer, _ in same], *like[0],
    )  # fmt: skip
    return {layer: scale for (layer, _), scale in zip(same, scales.unbind(), strict=True)}


class ApproxLinear(nn.Module):
    """Fully connected layer whose integer products are those of a multiplier.

    Input float (..., C), output float (..., O); otherwise as :class:`ApproxConv2d`, which it holds.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        candidates: Candidates,
        *,
        bias: bool = True,
        quantisation: Quantisation = PLAIN,
    ) -> None:
        super().__init__()
        self.convolution = ApproxConv2d(
            in_features, out_features, 1, candidates, bias=bias, quantisation=quantisation
        )

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1], 1, 1)
        result: Tensor = self.convolution(rows, mixture).reshape(*x.shape[:-1], -1)
        return result


class ApproxConv1d(nn.Module):
    """1-D convolution, (N, C, L) to (N, O, L'); otherwise as :class:`ApproxConv2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        candidates: Candidates,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        quantisation: Quantisation = PLAIN,
    ) -> None:
        super().__init__()
        self.convolution = ApproxConv2d(
            in_channels,
            out_channels,
            (1, kernel_size),
            candidates,
            stride=(1, stride),
            padding=(0, padding),
            dilation=(1, dilation),
            groups=groups,
            bias=bias,
            quantisation=quantisation,
        )

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        result: Tensor = self.convolution(x[:, :, None], mixture)[:, :, 0]
        return result


def result_type(x: Tensor) -> torch.dtype:
    """Under autocast its type, as for torch's own convolutions; else that of the operand."""
    kind = x.device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if autocast else x.dtype
