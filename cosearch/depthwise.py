"""Depthwise convolutions in real numbers that a supernet computes by kernels of the project."""

from typing import Any

import torch
from torch import Tensor, nn

from lut.backends.cuda_depthwise import Depthwise, is_depthwise
from lut.geometry import ConvGeometry

__all__ = ["depthwise", "geometry_of", "is_fast"]


def geometry_of(layer: nn.Conv2d) -> ConvGeometry:
    assert not isinstance(layer.padding, str)
    one = (layer.stride, layer.padding, layer.dilation)
    stride, padding, dilation = ((pair[0], pair[1]) for pair in one)
    return ConvGeometry.of(stride, padding, dilation, layer.groups)


def is_fast(layer: nn.Module, x: Tensor) -> bool:
    """Whether :func:`depthwise` computes the layer on the device of x."""
    if not isinstance(layer, nn.Conv2d) or layer.bias is not None:
        return False
    return layer.padding_mode == "zeros" and is_depthwise(x, layer.weight, geometry_of(layer))


def depthwise(layer: nn.Conv2d, x: Tensor, *, relu: bool = False) -> Tensor:
    """The layer's result, of the type of x; of relu(x) where it is asked for."""
    result: Tensor = _Depthwise.apply(x, layer.weight, geometry_of(layer), relu)
    return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: ConvGeometry, relu: bool) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings = geometry, relu
        return Depthwise(x.detach(), w.detach(), geometry, relu).result()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, w = ctx.saved_tensors
        one = Depthwise(x, w, *ctx.settings)
        grad_x = one.operand_gradient(gradient) if ctx.needs_input_grad[0] else None
        grad_w = None
        if ctx.needs_input_grad[1]:  # laid out as the weights, which fused optimisers want
            grad_w = torch.empty_like(w).copy_(one.weight_gradient(gradient))
        return grad_x, grad_w, None, None
