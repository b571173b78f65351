"""Convolutions in real numbers that a supernet computes by kernels of the project."""

from typing import Any

import torch
from torch import Tensor, nn

from lut.backends.exact_kernels import ExactConvolution, exact_kernel
from lut.geometry import ConvGeometry

__all__ = ["convolved", "fast_kernel", "geometry_of"]


def geometry_of(layer: nn.Conv2d) -> ConvGeometry:
    assert not isinstance(layer.padding, str)
    one = (layer.stride, layer.padding, layer.dilation)
    stride, padding, dilation = ((pair[0], pair[1]) for pair in one)
    return ConvGeometry.of(stride, padding, dilation, layer.groups)


def fast_kernel(layer: nn.Module, x: Tensor) -> type[ExactConvolution] | None:
    """What computes the layer on the device of x, if it is not torch itself."""
    if not isinstance(layer, nn.Conv2d) or layer.bias is not None:
        return None
    if layer.padding_mode != "zeros":
        return None
    return exact_kernel(x, layer.weight, geometry_of(layer), x.dtype)


def convolved(
    layer: nn.Conv2d, kind: type[ExactConvolution], x: Tensor, *, relu: bool = False
) -> Tensor:
    """The layer's result, of the type of x; of relu(x) where it is asked for."""
    result: Tensor = _Exact.apply(x, layer.weight, geometry_of(layer), kind, relu)
    return result


class _Exact(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        geometry: ConvGeometry,
        kind: type[ExactConvolution],
        relu: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.kind, ctx.settings = kind, (geometry, relu)
        return kind(x.detach(), w.detach(), geometry, relu).result()

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, w = ctx.saved_tensors
        one = ctx.kind(x, w, *ctx.settings)
        grad_x = one.operand_gradient(gradient) if ctx.needs_input_grad[0] else None
        grad_w = None
        if ctx.needs_input_grad[1]:  # laid out as the weights, which fused optimisers want
            grad_w = torch.empty_like(w).copy_(one.weight_gradient(gradient))
        return grad_x, grad_w, None, None, None
