"""The operands that a layer's multiplier really sees: recorded from the integer network.

They are what energy under a workload is measured with: as a stream (``hw.stream_activity``), or as
histograms by bit pattern (``hw.operand_activity``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hw.errors import unknown_name

from .integer import Convolution, IntegerNetwork, Layer, Linear

__all__ = ["OperandRecord", "activation_patterns", "layer_operands"]


@dataclass(frozen=True, eq=False)
class OperandRecord:
    """Operand pairs of successive multiplications, uint8 bit patterns: a activation, b weight."""

    a: NDArray[np.uint8]
    b: NDArray[np.uint8]

    @property
    def stream(self) -> NDArray[np.uint8]:
        """The pairs in order, (pairs, 2)."""
        return np.stack([self.a, self.b], axis=1)

    @property
    def a_histogram(self) -> NDArray[np.int64]:
        """How often each of the 256 bit patterns is the activation."""
        return np.bincount(self.a, minlength=256)

    @property
    def b_histogram(self) -> NDArray[np.int64]:
        """How often each of the 256 bit patterns is the weight."""
        return np.bincount(self.b, minlength=256)


def layer_operands(
    network: IntegerNetwork, layer: str, images: Tensor, limit: int | None = None
) -> OperandRecord:
    """The first `limit` operand pairs of `layer` for uint8 `images`, in weight-stationary order.

    A weight is held while the activations of all images and positions pass, then the next weight of
    the output channel, then the next channel. Padding counts. In a product of two activations the
    second one is in the place of the weight, and is another for each image and head. Raises
    InputError for an unknown layer.
    """
    by_name = {node.layer: node for node in network.layers}
    if layer not in by_name:
        raise unknown_name("layer", layer, by_name)
    node = by_name[layer]
    trace = network.trace(images)
    channels_a, channels_b, total = [], [], 0
    for a, b in _by_channel(node, [trace[name] for name in node.inputs]):
        channels_a.append(a)
        channels_b.append(b)
        total += a.size
        if limit is not None and total >= limit:
            break
    a, b = np.concatenate(channels_a)[:limit], np.concatenate(channels_b)[:limit]
    return OperandRecord(a.astype(np.uint8), b.astype(np.uint8))


Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def _by_channel(node: Layer, operands: list[Tensor]) -> Iterator[Pairs]:
    """Bit patterns of both operands for each output channel."""
    if isinstance(node, Convolution):
        return _of_weights(
            activation_patterns(node, operands[0]), node.weight.flatten(1), node.geometry.groups
        )
    if isinstance(node, Linear):
        return _of_weights(_patterns(operands[0].flatten(0, -2).T), node.weight.T, 1)
    first, second = operands[0][..., None], operands[1][..., None, :, :]
    return _of_products(*torch.broadcast_tensors(first, second))


def _of_weights(activations: NDArray[np.int64], weight: Tensor, groups: int) -> Iterator[Pairs]:
    """Of activations (groups · size, positions) and weights (O, size)."""
    weights, size = _patterns(weight), weight.shape[1]
    for output, row in enumerate(weights):
        group = output * groups // len(weights)
        seen = activations[group * size : (group + 1) * size]
        yield seen.reshape(-1), np.repeat(row, seen.shape[1])


def _of_products(first: Tensor, second: Tensor) -> Iterator[Pairs]:
    """Of operands (…, M, K, O), both broadcast."""
    for a, b in zip(first.unbind(-1), second.unbind(-1), strict=True):
        yield tuple(_patterns(x.movedim(-1, 0).reshape(-1)) for x in (a, b))  # type: ignore[misc]


def _patterns(levels: Tensor) -> NDArray[np.int64]:
    patterns: NDArray[np.int64] = levels.numpy().astype(np.int64) & 255
    return patterns


def activation_patterns(node: Convolution, levels: Tensor) -> NDArray[np.int64]:
    """Bit patterns (C·kH·kW, images · positions) that the weights of a kernel meet."""
    geometry = node.geometry
    height, width = geometry.padding
    padded = functional.pad(
        levels.to(torch.float32), (width, width, height, height), value=node.zero_point
    )
    taps = (node.weight.shape[2], node.weight.shape[3])
    columns = functional.unfold(padded, taps, geometry.dilation, stride=geometry.stride)
    patterns = columns.to(torch.int64).numpy() & 255
    return patterns.transpose(1, 0, 2).reshape(patterns.shape[1], -1)
