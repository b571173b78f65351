"""The layers of a network as hardware sees them: what each computes for one image."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hw.array import LayerShape
from lut import ApproxConv2d

__all__ = ["LayerRecord", "layer_kind", "layer_macs", "layer_records"]


@dataclass(frozen=True)
class LayerRecord:
    """One convolution or fully connected layer, by its path in the network.

    kind: in ``config.LAYER_KINDS``; inputs and outputs: numbers of one image's maps.
    """

    path: str
    kind: str
    shape: LayerShape
    inputs: int
    outputs: int


def layer_kind(path: str, module: nn.Module) -> str:
    """stem, preprocess, depthwise, pointwise or classifier."""
    parts = path.split(".")
    if parts[0] != "cells":
        return parts[0]
    if parts[2] == "preprocess":
        return parts[2]
    return "depthwise" if _groups(module) > 1 else "pointwise"


def layer_records(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[LayerRecord, ...]:
    """Of one pass of zeros (C, H, W), in the order of the modules; a fully connected layer has the
    path of the whole.
    """
    found: dict[str, LayerRecord] = {}

    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = module.weight
            assert isinstance(weight, Tensor)
            positions, shape = output[0, 0].numel(), (*weight.shape, 1, 1)[:4]
            layer = LayerShape.convolution(shape, _groups(module), positions)
            kind = layer_kind(path, module)
            name = path.removesuffix(".convolution")
            found[path] = LayerRecord(name, kind, layer, inputs[0][0].numel(), output[0].numel())

        return record

    kinds = (ApproxConv2d, nn.Conv2d, nn.Linear)
    layers = [(path, m) for path, m in network.named_modules() if isinstance(m, kinds)]
    handles = [module.register_forward_hook(hook(path)) for path, module in layers]
    training = network.training
    with torch.no_grad():
        device = next(network.parameters()).device
        network.eval()(torch.zeros(1, *input_shape, device=device))
    network.train(training)
    for handle in handles:
        handle.remove()
    return tuple(found[path] for path, _ in layers if path in found)


def layer_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Multiplications for one image (C, H, W) in each layer, by path."""
    return {layer.path: layer.shape.macs for layer in layer_records(network, input_shape)}


def _groups(module: nn.Module) -> int:
    if isinstance(module, ApproxConv2d):
        return module.geometry.groups
    return module.groups if isinstance(module, nn.Conv2d) else 1
