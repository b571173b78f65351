"""Layers that compute with approximate products: quantise, multiply by table, accumulate, rescale.

One layer holds one multiplier or several candidates. All candidates share one activation side
(:func:`lut.factors.joint_basis`), so a mixture weighted by betas costs the rank of that basis, not
the number of candidates: ``sum_m beta_m sum_k table_m[x_k, w_k] = sum_r u_r(x) * (sum_m beta_m
v_mr(w))``.

Gradients with respect to operands are those of :mod:`lut.gradients`, by default straight-through.
"""

import torch
from torch import Tensor, nn

from hw.errors import InputError

from .candidates import Candidates
from .backends.cuda_operands import cuda_refusal
from .geometry import ConvGeometry, IntPair, pair
from .observers import MovingAverage
from .quantisation import ActivationQuantiser, quantise, weight_scales

__all__ = ["ApproxConv1d", "ApproxConv2d", "ApproxLinear"]


class ApproxConv2d(nn.Module):
    """Convolution whose integer products are those of a multiplier.

    ``y = scale_x · scale_w[o] · accumulator (+ bias[o])``, the accumulator being exactly the
    table's integer sum. kernel_size, stride, padding (zeros), dilation: one number or (height,
    width). Input float (N, C, H, W), output float (N, O, H', W'). With several candidates
    ``forward`` takes their weights, shape (M,), which need not be one-hot.
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
    ) -> None:
        super().__init__()
        self.candidates = candidates
        self.geometry = ConvGeometry.of(stride, padding, dilation, groups)
        height, width = pair(kernel_size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, height, width))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.quantiser = ActivationQuantiser(*candidates.a_range)
        self.register_buffer("scratch", torch.zeros(2, dtype=torch.int32), persistent=False)

    def quantised_weight(self) -> tuple[Tensor, Tensor]:
        """Integer levels (O, C / groups, kH, kW) as floats, and scales (O, 1, 1, 1)."""
        low, high = self.candidates.b_range
        scales = weight_scales(self.weight, high)
        return quantise(self.weight, scales, low, high), scales

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        if mixture is None and len(self.candidates) > 1:
            raise InputError(f"mixture must have {len(self.candidates)} weights, not be left out")
        scale, zero_point = self._grid(x)
        geometry = self.geometry
        result: Tensor = torch.ops.lut.conv2d(
            x, self.weight, scale, zero_point, None, mixture, self.candidates.key,
            not self.quantiser.is_symmetric, (self.quantiser.low, self.quantiser.high),
            self.candidates.b_range, geometry.stride, geometry.padding, geometry.dilation,
            geometry.groups, _result_type(x),
        )[0]  # fmt: skip
        return result if self.bias is None else result + self.bias.to(result.dtype).view(-1, 1, 1)

    def _grid(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The quantiser's grid, observed by one kernel where that is possible."""
        quantiser = self.quantiser
        observer = quantiser.observer
        fused = type(observer) is MovingAverage and quantiser.is_symmetric
        if not (self.training and quantiser.training and fused and cuda_refusal(x) is None):
            return quantiser.grid(x)
        assert observer is not None
        scale = torch.ops.lut.observe_largest(
            x.detach(), self.scratch, observer.low_value, observer.high_value, observer.batches,
            quantiser.scale, observer.momentum, quantiser.high,
        )  # fmt: skip
        return scale, quantiser.zero_point

    def extra_repr(self) -> str:
        outputs, inputs, *kernel = self.weight.shape
        names = "|".join(lut.name for lut in self.candidates.luts)
        channels = f"{inputs * self.geometry.groups}, {outputs}"
        return f"{channels}, kernel_size={tuple(kernel)}, multiplier={names}"


class ApproxLinear(nn.Module):
    """Fully connected layer whose integer products are those of a multiplier.

    Input float (..., C), output float (..., O); otherwise as :class:`ApproxConv2d`, which it holds.
    """

    def __init__(
        self, in_features: int, out_features: int, candidates: Candidates, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.convolution = ApproxConv2d(in_features, out_features, 1, candidates, bias=bias)

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
        )

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        result: Tensor = self.convolution(x[:, :, None], mixture)[:, :, 0]
        return result


def _result_type(x: Tensor) -> torch.dtype:
    """Under autocast its type, as for torch's own convolutions; else that of the operand."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
