"""Layers that compute with approximate products: quantise, multiply by table, accumulate, rescale.

One layer holds one multiplier or several candidates. All candidates share one activation side
(:func:`lut.factors.joint_basis`), so a mixture weighted by betas costs the rank of that basis, not
the number of candidates: ``sum_m beta_m sum_k table_m[x_k, w_k] = sum_r u_r(x) * (sum_m beta_m
v_mr(w))``.

Gradients with respect to operands are those of :mod:`lut.gradients`, by default straight-through.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hw.errors import InputError, unknown_name

from .factors import JointBasis, joint_basis
from .geometry import ConvGeometry, IntPair, pair
from .gradients import GRADIENTS
from .planes import FP32_EXACT, exact_convolutions, factor_planes, weight_planes
from .quantisation import ActivationQuantiser, quantise, weight_scales
from .table import LUT

__all__ = ["ApproxConv1d", "ApproxConv2d", "ApproxLinear", "Candidates"]


SLOPES = ("x_u", "x_v", "w_u", "w_v")


class Candidates(nn.Module):
    """The multipliers a layer may compute with, over one joint basis. Shared by many layers.

    ``luts`` must agree in width and signedness; `basis` is theirs, computed where it is not given.
    `gradient` is a name in ``lut.gradients.GRADIENTS``. Buffers (not in the state_dict): ``u``
    float32 (256, R), ``v`` float32 (M, 256, R). Tables whose rank is too high for exact fp32 sums
    raise InputError.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self,
        luts: Sequence[LUT],
        basis: JointBasis | None = None,
        gradient: str = "straight_through",
    ) -> None:
        super().__init__()
        self.luts = tuple(luts)
        if len({(lut.table.shape, lut.a_signed, lut.b_signed) for lut in self.luts}) != 1:
            names = ", ".join(lut.name for lut in self.luts)
            raise InputError(f"candidates must be of one width and signedness, not {names}")
        basis = basis or _basis(self.luts)
        bounds = [basis.factors(index).product_bound for index in range(len(self.luts))]
        self.product_bound, self.rank = max(bounds), basis.rank
        self.register_buffer("u", torch.from_numpy(basis.u).to(torch.float32), persistent=False)
        self.register_buffer("v", torch.from_numpy(basis.v).to(torch.float32), persistent=False)
        self.gradient = gradient
        for name, slopes in _slopes(self.luts, basis, gradient).items():
            self.register_buffer(name, slopes, persistent=False)

    @property
    def slopes(self) -> tuple[Tensor, ...]:
        """x_u, x_v, w_u, w_v of all candidates, (M, 256, S); none for straight-through."""
        if self.gradient == "straight_through":
            return ()
        return tuple(self.get_buffer(name) for name in SLOPES)

    def __len__(self) -> int:
        return len(self.luts)

    @property
    def a_range(self) -> tuple[int, int]:
        """Symmetric quantisation range of activations, for example (-127, 127)."""
        return _symmetric_range(self.luts[0].a_width, self.luts[0].a_signed)

    @property
    def b_range(self) -> tuple[int, int]:
        """Symmetric quantisation range of weights."""
        return _symmetric_range(self.luts[0].b_width, self.luts[0].b_signed)


def _slopes(luts: Sequence[LUT], basis: JointBasis, gradient: str) -> dict[str, Tensor]:
    """The gradient's tables, stacked over candidates."""
    if gradient not in GRADIENTS:
        raise unknown_name("gradient", gradient, GRADIENTS)
    if gradient == "straight_through":
        return {}
    each = [GRADIENTS[gradient](lut, basis.factors(index)) for index, lut in enumerate(luts)]
    return {
        name: torch.from_numpy(np.stack([getattr(one, name) for one in each])).to(torch.float32)
        for name in SLOPES
    }


def _basis(luts: Sequence[LUT]) -> JointBasis:
    if len(luts) == 1:
        return JointBasis(luts[0].factors.u, luts[0].factors.v[None])
    return joint_basis(luts)


def _symmetric_range(width: int, signed: bool) -> tuple[int, int]:
    return (1 - (1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)


class _MixedConvolution(torch.autograd.Function):
    """Sum over candidates of weight_m · (convolution with table m); straight-through in x, w."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        mixture: Tensor | None,
        u: Tensor,
        v: Tensor,
        geometry: ConvGeometry,
        block: int,
        *slopes: Tensor,
    ) -> Tensor:
        """x, w: integer levels as floats; v (M, columns, R); block: channels a sum is exact for;
        slopes: none, or the gradient's x_u, x_v, w_u, w_v, each (M, 256, S).
        """
        rows = _padded_patterns(x, len(u), geometry)
        columns = w.to(torch.int64) & (v.shape[1] - 1)
        mixed = v[0] if mixture is None else mixed_table(mixture, v)
        planes, kernels = factor_planes(rows, u), weight_planes(columns, mixed)
        slopes = tuple(s[0] if mixture is None else mixed_table(mixture, s) for s in slopes)
        ctx.save_for_backward(x, w, rows, columns, u, v, *slopes)
        ctx.geometry, ctx.mixed = geometry, mixture is not None
        return _blocked_convolution(planes, kernels, geometry, block * u.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, w, rows, columns, u, v, *slopes = ctx.saved_tensors
        gradient, geometry = gradients[0], ctx.geometry
        if slopes:
            grad_x, grad_w = _operand_gradients(gradient, rows, columns, slopes, geometry)
        else:
            grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
                gradient, x, w, None, geometry.stride, geometry.padding, geometry.dilation,
                False, (0, 0), geometry.groups, (*ctx.needs_input_grad[:2], False),
            )  # fmt: skip
        grad_mixture = None
        if ctx.mixed and ctx.needs_input_grad[2]:
            grad_mixture = _mixture_gradient(gradient, rows, columns, u, v, geometry)
        return grad_x, grad_w, grad_mixture, *([None] * (4 + len(slopes)))


def mixed_table(mixture: Tensor, tables: Tensor) -> Tensor:
    """sum_m mixture_m · tables[m], for tables (M, 256, S)."""
    return torch.einsum("m,mbs->bs", mixture, tables)


def _operand_gradients(
    gradient: Tensor,
    rows: Tensor,
    columns: Tensor,
    slopes: Sequence[Tensor],
    geometry: ConvGeometry,
) -> tuple[Tensor, Tensor]:
    """Gradients of x (without its padding) and w from the slopes of the products."""
    x_u, x_v, w_u, w_v = slopes
    settings = (None, geometry.stride, (0, 0), geometry.dilation, False, (0, 0), geometry.groups)
    planes = factor_planes(rows, w_u)
    kernels = weight_planes(columns, x_v)
    through_x, _, _ = torch.ops.aten.convolution_backward(
        gradient, factor_planes(rows, x_u), kernels, *settings, (True, False, False)
    )
    _, through_w, _ = torch.ops.aten.convolution_backward(
        gradient, planes, weight_planes(columns, w_v), *settings, (False, True, False)
    )
    batch, channels, height, width = rows.shape
    by_plane = (through_x * factor_planes(rows, x_u)).view(batch, channels, -1, height, width)
    top, left = geometry.padding
    grad_x = by_plane.sum(2)[:, :, top : height - top, left : width - left]
    outputs, inputs, *taps = columns.shape
    grad_w = (through_w * weight_planes(columns, w_v)).view(outputs, inputs, -1, *taps).sum(2)
    return grad_x, grad_w


def _mixture_gradient(
    gradient: Tensor, rows: Tensor, columns: Tensor, u: Tensor, v: Tensor, geometry: ConvGeometry
) -> Tensor:
    """d loss / d mixture_m = <gradient of the mixed kernel, v_m(w)>, shape (M,)."""
    planes = factor_planes(rows, u)
    shape = weight_planes(columns, v[0]).shape
    _, kernel_gradient, _ = torch.ops.aten.convolution_backward(
        gradient, planes, planes.new_empty(shape), None, geometry.stride, (0, 0), geometry.dilation,
        False, (0, 0), geometry.groups, (False, True, False),
    )  # fmt: skip
    outputs, channels, height, width = columns.shape
    by_plane = kernel_gradient.view(outputs, channels, -1, height, width).permute(0, 1, 3, 4, 2)
    per_pattern = v.new_zeros(v.shape[1], v.shape[2])
    per_pattern.index_add_(0, columns.flatten(), by_plane.reshape(-1, v.shape[2]))
    return torch.einsum("br,mbr->m", per_pattern, v)


def _padded_patterns(x: Tensor, rows: int, geometry: ConvGeometry) -> Tensor:
    height, width = geometry.padding
    return functional.pad(x, (width, width, height, height)).to(torch.int64) & (rows - 1)


def _blocked_convolution(
    planes: Tensor, kernels: Tensor, geometry: ConvGeometry, block: int
) -> Tensor:
    """Convolution without padding in blocks of at most `block` planes a group, each exact in fp32.

    Blocks are added in float64, so that the only rounding left is that of the result to fp32.
    """
    settings = (None, geometry.stride, 0, geometry.dilation, geometry.groups)
    with exact_convolutions():
        if kernels.shape[1] <= block:
            return functional.conv2d(planes, kernels, *settings)
        batch, _, height, width = planes.shape
        grouped = planes.reshape(batch, geometry.groups, -1, height, width)
        return (
            torch.stack(
                [
                    functional.conv2d(
                        grouped[:, :, low : low + block].reshape(batch, -1, height, width),
                        kernels[:, low : low + block],
                        *settings,
                    )
                    for low in range(0, kernels.shape[1], block)
                ]
            )
            .sum(0, dtype=torch.float64)
            .to(torch.float32)
        )


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
        self._block = _exact_channels(candidates, height * width)

    def quantised_weight(self) -> tuple[Tensor, Tensor]:
        """Integer levels (O, C / groups, kH, kW) as floats, and scales (O, 1, 1, 1)."""
        low, high = self.candidates.b_range
        scales = weight_scales(self.weight, high)
        return quantise(self.weight, scales, low, high), scales

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        if mixture is None and len(self.candidates) > 1:
            raise InputError(f"mixture must have {len(self.candidates)} weights, not be left out")
        levels = self.quantiser(x)
        weights, scales = self.quantised_weight()
        u, v = self.candidates.u, self.candidates.v
        accumulators: Tensor = _MixedConvolution.apply(
            levels, weights, mixture, u, v, self.geometry, self._block, *self.candidates.slopes
        )
        result = accumulators * (self.quantiser.scale * scales.view(1, -1, 1, 1))
        return result if self.bias is None else result + self.bias.view(1, -1, 1, 1)

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


def _exact_channels(candidates: Candidates, taps: int) -> int:
    """How many input channels a group may sum in fp32 and stay exact, whatever the operands."""
    channels = (FP32_EXACT - 1) // max(1, taps * candidates.product_bound)
    if channels < 1:
        names = ", ".join(lut.name for lut in candidates.luts)
        raise InputError(f"the rank of {names} must allow exact fp32 sums over {taps} taps")
    return channels
