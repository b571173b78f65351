"""The operands that a layer's multiplier really sees: recorded from the integer network.

They are what energy under a workload is measured with: as a stream (``hw.stream_activity``), or as
histograms by bit pattern (``hw.operand_activity``).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hw.errors import unknown_name

from .integer import Convolution, IntegerNetwork

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
    the output channel, then the next channel. Padding counts. Raises InputError for an unknown
    layer.
    """
    by_name = {node.layer: node for node in network.convolutions}
    if layer not in by_name:
        raise unknown_name("layer", layer, by_name)
    node = by_name[layer]
    activations = activation_patterns(node, network.trace(images)[node.inputs[0]])
    outputs, per_group, *taps = node.weight.shape
    size = per_group * int(np.prod(taps))
    weights = node.weight.reshape(outputs, size).numpy().astype(np.int64) & 255
    channels_a, channels_b, total = [], [], 0
    for output in range(outputs):
        group = output * node.geometry.groups // outputs
        channels_a.append(activations[group * size : (group + 1) * size].reshape(-1))
        channels_b.append(np.repeat(weights[output], activations.shape[1]))
        total += channels_a[-1].size
        if limit is not None and total >= limit:
            break
    a, b = np.concatenate(channels_a)[:limit], np.concatenate(channels_b)[:limit]
    return OperandRecord(a.astype(np.uint8), b.astype(np.uint8))


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
