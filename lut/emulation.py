"""The emulated convolution from real operands to a real result, and its gradients.

``y = x_scale · w_scale[o] · (sum of products of levels - zero_point · sum of weight levels)``, the
products being those of one table, or of several weighted by a mixture. Two ways that agree: fused
kernels on a CUDA device, and torch operations anywhere.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from .backends import Problem, chosen_backend
from .backends.cuda_emulation import fused_convolution, is_fused, through_quantiser
from .backends.cuda_mixture import has_mixture_gradient, mixture_gradient
from .backends.exact_kernels import Grid, exact_kernel
from .candidates import Tables
from .depthwise import has_columns, looked_up, summed_by_pattern
from .geometry import ConvGeometry
from .padding import padded_images
from .planes import exact_convolution, factor_planes, weight_planes
from .quantisation import levels_of, quantise, weight_scales

__all__ = ["Operands", "convolution", "gradients"]


@dataclass(frozen=True, eq=False)
class Operands:
    """Real x (N, C, H, W) and w (O, C / groups, kH, kW), with how they are quantised.

    x_scale, zero_point (int32): 0-dimensional; `affine`: whether the zero point may differ from 0.
    w_scale: (O,), or None for the largest magnitude of each output channel. `mixture`: weights of
    the tables (M,), or None for the only one; straight-through gradients take their sum for one.
    """

    x: Tensor
    w: Tensor
    x_scale: Tensor
    zero_point: Tensor
    affine: bool
    w_scale: Tensor | None
    mixture: Tensor | None
    tables: Tables
    geometry: ConvGeometry
    x_range: tuple[int, int]
    w_range: tuple[int, int]

    def x_levels(self) -> Tensor:
        """float32 integers."""
        zero_point = self.zero_point if self.affine else 0
        return levels_of(self.x, self.x_scale, *self.x_range, zero_point)

    def w_scales(self) -> Tensor:
        """float32 (O, 1, 1, 1)."""
        if self.w_scale is not None:
            return self.w_scale.view(-1, 1, 1, 1)
        return weight_scales(self.w.float(), self.w_range[1])


def convolution(operands: Operands, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The result, channels last, and the real values of the quantised weights, both of `dtype`."""
    if is_fused(operands.x, operands.tables, operands.mixture):
        return fused_convolution(operands, dtype)
    scales = operands.w_scales()
    levels = levels_of(operands.w, scales, *operands.w_range)
    x = operands.x_levels()
    if operands.mixture is None:
        sums = _single(x, levels, operands, 0)
    elif operands.tables.exact_channels(operands.w[0, 0].numel()):
        sums = _mixed(x, levels, operands)
    else:
        each = (_single(x, levels, operands, m).float() for m in range(len(operands.tables.luts)))
        sums = torch.stack(
            [weight * one for weight, one in zip(operands.mixture, each, strict=True)]
        ).sum(0)
    if operands.affine:
        sums = sums - operands.zero_point * levels.sum((1, 2, 3)).to(sums.dtype).view(1, -1, 1, 1)
    result = sums.float() * (operands.x_scale * scales.view(1, -1, 1, 1))
    real = (levels * scales).to(dtype)
    return result.to(dtype).contiguous(memory_format=torch.channels_last), real


def _single(x: Tensor, levels: Tensor, operands: Operands, index: int) -> Tensor:
    """int32 sums of one table's products."""
    lut = operands.tables.luts[index]
    rows = _patterns(x, operands.x_range[0], lut.a_width)
    columns = _patterns(levels, operands.w_range[0], lut.b_width)
    zero = _zero_pattern(operands, lut.a_width)
    problem = Problem(rows, columns, lut, operands.geometry, zero)
    return chosen_backend(problem, None).accumulators(problem)


def _mixed(x: Tensor, levels: Tensor, operands: Operands) -> Tensor:
    """float32 sums of mixed products: one convolution over the joint basis."""
    tables, geometry = operands.tables, operands.geometry
    assert operands.mixture is not None and tables.basis is not None
    u, v = tables.u(x.device), tables.v(x.device)
    rows = _padded_patterns(x, operands, tables.luts[0].a_width)
    columns = levels.to(torch.int64) & (v.shape[1] - 1)
    mixed = mixed_tables(operands.mixture, v)
    if has_columns(rows, columns, geometry):
        products = (mixed.double() @ u.double().T).to(torch.float32)  # exact where one-hot
        return looked_up(rows, products[columns[:, 0]], geometry)
    planes = factor_planes(rows, u)
    kernels = weight_planes(columns, mixed)
    block = tables.exact_channels(levels[0, 0].numel()) * u.shape[1]
    return _blocked_convolution(planes, kernels, geometry, block)


def mixed_tables(mixture: Tensor, tables: Tensor) -> Tensor:
    """sum_m mixture_m · tables[m], for tables (M, …)."""
    return torch.tensordot(mixture.float(), tables, 1)


def _padded_patterns(x: Tensor, operands: Operands, width: int) -> Tensor:
    """Bit patterns of integer levels, uint8 (N, C, Hp, Wp), padded with the zero point's."""
    rows, zero = _patterns(x, operands.x_range[0], width), _zero_pattern(operands, width)
    return padded_images(rows, operands.geometry.padding, zero)


def _zero_pattern(operands: Operands, width: int) -> int | Tensor:
    if not operands.affine:
        return 0
    return operands.zero_point.to(torch.int32) & ((1 << width) - 1)


def _patterns(levels: Tensor, low: int, width: int) -> Tensor:
    """uint8 bit patterns of integer levels, the least possible of which is `low`."""
    patterns = levels.to(torch.int8).view(torch.uint8) if low < 0 else levels.to(torch.uint8)
    return patterns if width == 8 else patterns & ((1 << width) - 1)


def _blocked_convolution(
    planes: Tensor, kernels: Tensor, geometry: ConvGeometry, block: int
) -> Tensor:
    """Convolution without padding in blocks of at most `block` planes a group, each exact in fp32.

    Blocks are added in float64, so that the only rounding left is that of the result to fp32.
    """
    geometry = geometry.without_padding()
    if kernels.shape[1] <= block:
        return exact_convolution(planes, kernels, geometry)
    batch, _, height, width = planes.shape
    grouped = planes.reshape(batch, geometry.groups, -1, height, width)
    parts = [
        exact_convolution(
            grouped[:, :, low : low + block].reshape(batch, -1, height, width),
            kernels[:, low : low + block],
            geometry,
        )
        for low in range(0, kernels.shape[1], block)
    ]
    return torch.stack(parts).sum(0, dtype=torch.float64).to(torch.float32)


@dataclass(frozen=True)
class Wanted:
    """Which gradients are."""

    x: bool
    w: bool
    x_scale: bool
    w_scale: bool
    mixture: bool


def gradients(
    gradient: Tensor, operands: Operands, real: Tensor, result: Tensor | None, wanted: Wanted
) -> list[Tensor | None]:
    """Of x, w, x_scale, w_scale and mixture, from that of the result.

    `real`: the second result of :func:`convolution`; `result`: its first, needed for scales.
    """
    straight = operands.tables.gradient == "straight_through"
    if straight and not (wanted.x_scale or wanted.w_scale):
        grad_x, grad_w = _straight_through(gradient, operands, real, wanted)
        scales: tuple[Tensor | None, Tensor | None] = (None, None)
    else:
        grad_x, grad_w, *rest = _by_levels(gradient.float(), operands, result, wanted)
        scales = (rest[0], rest[1])
    mixture = _estimated_mixture_gradient(gradient, operands) if wanted.mixture else None
    return [grad_x, grad_w, *scales, mixture]


def _straight_through(
    gradient: Tensor, operands: Operands, real: Tensor, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None]:
    """In the gradient's precision: those of the exact product of the quantised real values.

    Weights are quantised within their range, so theirs passes; x's passes where x is not clamped.
    """
    x, w = operands.x, operands.w
    kind = exact_kernel(x, real, operands.geometry, gradient.dtype)
    grid = Grid(operands.x_scale, operands.zero_point, *operands.x_range)
    through = grad_x = grad_w = None
    if wanted.x and kind is not None:
        grad_x = kind(x, real, operands.geometry, grid=grid).operand_gradient(gradient)
    elif wanted.x:
        through = _convolution_gradient(gradient, x, real, operands, 0)
    itself = kind is not None and kind.quantises
    kept = gradient.dtype if wanted.w and not itself else None
    quantised, masked = through_quantiser(operands, through, kept)
    if wanted.w:
        if kind is not None:
            used = x if quantised is None else quantised
            one = kind(used, real, operands.geometry, grid=grid if itself else None)
            grad_w = one.weight_gradient(gradient)
        else:
            assert quantised is not None
            grad_w = _convolution_gradient(gradient, quantised, real, operands, 1)
        if operands.w_scale is not None:
            grad_w = grad_w * _unclamped_weights(operands)
        grad_w = grad_w.to(w.dtype)
    grad_x = masked if grad_x is None else grad_x
    return None if grad_x is None else grad_x.to(x.dtype), grad_w


def _convolution_gradient(
    gradient: Tensor, x: Tensor, real: Tensor, operands: Operands, which: int
) -> Tensor:
    """That of x (0) or of the weights (1), by torch."""
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient, x.to(gradient.dtype), real, *_backward_settings(operands.geometry),
        (which == 0, which == 1, False),
    )  # fmt: skip
    return found[which]


def _unclamped_weights(operands: Operands) -> Tensor:
    low, high = operands.w_range
    rounded = torch.round(operands.w / operands.w_scales())
    return (rounded >= low) & (rounded <= high)


def _by_levels(
    gradient: Tensor, operands: Operands, result: Tensor | None, wanted: Wanted
) -> list[Tensor | None]:
    """In float32, by slopes of the products with respect to the levels; those of scales, too."""
    with torch.enable_grad():
        x = operands.x.detach().float().requires_grad_()
        w = operands.w.detach().float().requires_grad_()
        x_scale = operands.x_scale.detach().clone().requires_grad_()
        w_scale = operands.w_scales().detach().clone().requires_grad_()
        zero = operands.zero_point if operands.affine else 0
        x_levels = quantise(x, x_scale, *operands.x_range, zero)
        w_levels = quantise(w, w_scale, *operands.w_range)
    scaled = gradient * (operands.x_scale * w_scale.view(1, -1, 1, 1)).detach()
    slopes = _slopes(operands)
    grad_levels = _level_gradients(scaled, x_levels.detach(), w_levels.detach(), slopes, operands)
    grads = torch.autograd.grad(
        (x_levels, w_levels), (x, w, x_scale, w_scale), grad_levels, allow_unused=True
    )
    grad_x, grad_w = grads[0].to(operands.x.dtype), grads[1].to(operands.w.dtype)
    grad_x_scale = grad_w_scale = None
    if result is not None:
        products = gradient * result.float()
        grad_x_scale = grads[2] + products.sum() / operands.x_scale
        per_output = products.sum((0, 2, 3)) / w_scale.view(-1).detach()
        grad_w_scale = grads[3].view(-1) + per_output
    return [
        grad_x if wanted.x else None,
        grad_w if wanted.w else None,
        grad_x_scale if wanted.x_scale else None,
        grad_w_scale if wanted.w_scale else None,
    ]


def _slopes(operands: Operands) -> tuple[Tensor, ...]:
    """x_u, x_v, w_u, w_v of the mixture: of each pair the side that candidates share is kept."""
    x_u, x_v, w_u, w_v = operands.tables.slopes(operands.x.device)
    mixture = operands.mixture
    if mixture is None:
        return x_u[0], x_v[0], w_u[0], w_v[0]
    x_v = mixed_tables(mixture, x_v)
    if operands.tables.shares_w_u:
        return x_u[0], x_v, w_u[0], mixed_tables(mixture, w_v)
    return x_u[0], x_v, mixed_tables(mixture, w_u), w_v[0]


def _level_gradients(
    gradient: Tensor,
    x_levels: Tensor,
    w_levels: Tensor,
    slopes: tuple[Tensor, ...],
    operands: Operands,
) -> tuple[Tensor, Tensor]:
    """Gradients of x (without its padding) and w levels from the slopes of the products."""
    x_u, x_v, w_u, w_v = slopes
    geometry = operands.geometry
    settings = _backward_settings(geometry.without_padding())
    luts = operands.tables.luts
    rows = _padded_patterns(x_levels, operands, luts[0].a_width).to(torch.int32)
    columns = w_levels.to(torch.int64) & (len(x_v) - 1)
    through_x, _, _ = torch.ops.aten.convolution_backward(
        gradient, factor_planes(rows, x_u), weight_planes(columns, x_v), *settings,
        (True, False, False),
    )  # fmt: skip
    planes, weights = factor_planes(rows, w_u), weight_planes(columns, w_v)
    _, through_w, _ = torch.ops.aten.convolution_backward(
        gradient, planes, weights, *settings, (False, True, False)
    )
    batch, channels, height, width = rows.shape
    by_plane = (through_x * factor_planes(rows, x_u)).view(batch, channels, -1, height, width)
    top, left = geometry.padding
    grad_x = by_plane.sum(2)[:, :, top : height - top, left : width - left]
    outputs, inputs, *taps = columns.shape
    grad_w = (through_w * weights).view(outputs, inputs, -1, *taps).sum(2)
    if operands.affine:
        ones = torch.ones_like(x_levels)
        _, per_tap, _ = torch.ops.aten.convolution_backward(
            gradient, functional.pad(ones, (left, left, top, top), value=1.0), w_levels, *settings,
            (False, True, False),
        )  # fmt: skip
        grad_w = grad_w - operands.zero_point * per_tap
    return grad_x, grad_w


def _estimated_mixture_gradient(gradient: Tensor, operands: Operands) -> Tensor:
    """By the share of the images that stands for all of them."""
    images = len(gradient)
    few = max(1, round(images * operands.tables.mixture_share))
    if few == images:
        return _mixture_gradient(gradient, operands)
    part = _mixture_gradient(gradient[:few], replace(operands, x=operands.x[:few]))
    return part * (images / few)


def _mixture_gradient(gradient: Tensor, operands: Operands) -> Tensor:
    """d loss / d mixture_m = <gradient of the mixed kernel, v_m(w)>, shape (M,).

    The activations' planes are never in memory, or those of a few images at a time.
    """
    tables = operands.tables
    if has_mixture_gradient(operands) and _is_exact(operands):
        return mixture_gradient(gradient, operands)
    scales = operands.w_scales()
    levels = levels_of(operands.w, scales, *operands.w_range)
    factor = operands.x_scale * scales.view(1, -1, 1, 1)
    if not _is_exact(operands):
        return _mixture_gradient_by_table((gradient * factor).float(), levels, operands)
    v = tables.v(gradient.device)
    columns = levels.to(torch.int64) & (v.shape[1] - 1)
    scaled = gradient * factor.to(gradient.dtype)
    sums = _plane_sums(scaled, weight_planes(columns, v[0]).shape, operands)
    outputs, channels, height, width = columns.shape
    sums = sums.view(outputs, channels, -1, height, width)
    rows = sums.permute(0, 1, 3, 4, 2).reshape(-1, v.shape[2])
    parts = zip(rows.split(WEIGHTS), columns.flatten().split(WEIGHTS), strict=True)
    return torch.stack([torch.einsum("nr,mnr->m", row, v[:, at]) for row, at in parts]).sum(0)


def _is_exact(operands: Operands) -> bool:
    """Whether sums over the factors of one input channel are exact in fp32."""
    taps = operands.w[0, 0].numel()
    return operands.tables.basis is not None and operands.tables.exact_channels(taps) > 0


def _plane_sums(scaled: Tensor, shape: torch.Size, operands: Operands) -> Tensor:
    """The gradient of mixed kernels of this shape, float32."""
    tables, dtype = operands.tables, scaled.dtype
    u = tables.u(scaled.device)
    rows = _padded_patterns(operands.x_levels(), operands, tables.luts[0].a_width)
    if has_columns(rows, operands.w, operands.geometry):
        taps = (shape[2], shape[3])
        sums = summed_by_pattern(rows, scaled, taps, operands.geometry.without_padding())
        return (sums[..., : len(u)] @ u.double()).permute(0, 3, 1, 2).float()
    kernels = scaled.new_empty(shape)
    settings = _backward_settings(operands.geometry.without_padding())
    few = max(1, PLANE_VALUES // (rows[0].numel() * u.shape[1]))
    total = torch.zeros(shape, dtype=torch.float32, device=scaled.device)
    for part, signal in zip(rows.split(few), scaled.split(few), strict=True):
        planes = factor_planes(part, u.to(dtype))
        _, one, _ = torch.ops.aten.convolution_backward(
            signal, planes, kernels, *settings, (False, True, False)
        )
        total += one
    return total


# Values of planes, and weights, that are in memory at a time.
PLANE_VALUES = 1 << 26
WEIGHTS = 1 << 15


def _mixture_gradient_by_table(scaled: Tensor, levels: Tensor, operands: Operands) -> Tensor:
    x = operands.x_levels()
    sums = (_single(x, levels, operands, m).float() for m in range(len(operands.tables.luts)))
    return torch.stack([(scaled * one).sum() for one in sums])


def _backward_settings(geometry: ConvGeometry) -> tuple[object, ...]:
    """What convolution_backward takes between the weight and its mask."""
    return (
        None, geometry.stride, geometry.padding, geometry.dilation, False, (0, 0), geometry.groups,
    )  # fmt: skip
