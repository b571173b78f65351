"""The integer network: what the hardware computes, defined once, evaluated by torch and written as
ONNX.

Between convolutions values are signed fixed-point numbers of `STATE_BITS` bits, `FRACTION_BITS` of
them after the point. Every rescaling is ``clamp((x · multiplier + offset) >> shift, low, high)``
with integers (:class:`Requantise`; rounding and batch norm are in the offset), so no float takes
part anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from hw.errors import InputError
from lut import LUT, ConvGeometry, approx_conv2d

from .node import FRACTION_BITS, STATE_BITS, STATE_RANGE, Node
from .products import Linear, MatrixProduct, operand_type

__all__ = [
    "FRACTION_BITS",
    "STATE_BITS",
    "STATE_RANGE",
    "Add",
    "AveragePool",
    "Clamp",
    "Concatenate",
    "Convolution",
    "Crop",
    "GlobalSum",
    "IntegerNetwork",
    "Layer",
    "Linear",
    "MatrixProduct",
    "MaxPool",
    "Node",
    "Requantise",
]

EVALUATION_BATCH = 256


@dataclass(frozen=True, eq=False)
class Requantise(Node):
    """``clamp((x · multiplier + offset) >> shift, low, high)``, multiplier and offset int64 (C,) or
    (1,).

    C is the size of the axis that `trailing` axes follow: 2 in (N, C, H, W), 0 in (N, tokens, C).
    """

    multiplier: Tensor
    offset: Tensor
    shift: int
    low: int
    high: int
    trailing: int = 2

    def __post_init__(self) -> None:
        """float64 is exact where every term stays below 2**51, inputs being below 2**31."""
        largest = max(
            int(self.multiplier.abs().max()) << 31,
            int(self.offset.abs().max()),
            max(-self.low, self.high) << self.shift,
        )
        if largest > 1 << 51:
            raise InputError(
                f"multiplier · 2**31, offset and limits of {self.name!r}, shifted by {self.shift}, "
                "must be at most 2**51 to be exact in float64"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of multiplier and offset, to be broadcast over the input."""
        return (1,) if len(self.multiplier) == 1 else (len(self.multiplier), *(1,) * self.trailing)

    def evaluate(self, *operands: Tensor) -> Tensor:
        shape = self.shape
        scaled = operands[0].to(torch.int64) * self.multiplier.view(shape) + self.offset.view(shape)
        return (scaled >> self.shift).clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Convolution(Node):
    """Accumulators int32 of a convolution whose products are those of `lut`; padding is operands of
    the value `zero_point`, which nothing subtracts.

    `weight`: int8 or uint8 (O, C / groups, kH, kW). `layer`: the path of the module it came from.
    """

    layer: str
    weight: Tensor
    lut: LUT
    geometry: ConvGeometry
    output_size: tuple[int, int]
    zero_point: int = 0

    def evaluate(self, *operands: Tensor) -> Tensor:
        geometry = self.geometry
        return approx_conv2d(
            operands[0].to(operand_type(self.lut.a_signed)),
            self.weight,
            self.lut,
            stride=geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
            groups=geometry.groups,
            x_zero_point=self.zero_point,
        )

    @property
    def macs(self) -> int:
        """Multiplications for one image; those with padding count too."""
        return self.weight.numel() * self.output_size[0] * self.output_size[1]


@dataclass(frozen=True, eq=False)
class Clamp(Node):
    """``clamp(x, low, high)``; a ReLU has low = 0."""

    low: int
    high: int

    def evaluate(self, *operands: Tensor) -> Tensor:
        return operands[0].clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Add(Node):
    """``clamp(a + b, low, high)``."""

    low: int
    high: int

    def evaluate(self, *operands: Tensor) -> Tensor:
        return (operands[0] + operands[1]).clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class MaxPool(Node):
    """Largest value of each window; padding never wins."""

    kernel: int
    stride: int
    padding: int

    def evaluate(self, *operands: Tensor) -> Tensor:
        x = operands[0].to(torch.float32)
        return functional.max_pool2d(x, self.kernel, self.stride, self.padding).to(torch.int64)


@dataclass(frozen=True, eq=False)
class AveragePool(Node):
    """``(sum of the window · multiplier + offset) >> shift``, multiplier int64 (H', W') by
    position.

    The multiplier is 2**(shift + extra fraction bits) divided by the number of values averaged
    there.
    """

    kernel: int
    stride: int
    padding: int
    multiplier: Tensor
    offset: int
    shift: int

    def evaluate(self, *operands: Tensor) -> Tensor:
        x = operands[0].to(torch.float64)
        sums = functional.avg_pool2d(
            x, self.kernel, self.stride, self.padding, divisor_override=1
        ).to(torch.int64)
        return (sums * self.multiplier + self.offset) >> self.shift


@dataclass(frozen=True, eq=False)
class GlobalSum(Node):
    """Sum over height and width: (N, C, 1, 1)."""

    def evaluate(self, *operands: Tensor) -> Tensor:
        return operands[0].to(torch.int64).sum((2, 3), keepdim=True)


@dataclass(frozen=True, eq=False)
class Concatenate(Node):
    """All inputs in order along an axis, by default channels."""

    axis: int = 1

    def evaluate(self, *operands: Tensor) -> Tensor:
        return torch.cat(operands, self.axis)


@dataclass(frozen=True, eq=False)
class Crop(Node):
    """Without the first `top` rows and `left` columns."""

    top: int
    left: int

    def evaluate(self, *operands: Tensor) -> Tensor:
        return operands[0][:, :, self.top :, self.left :]


# What multiplies, and so has a multiplier.
Layer = Convolution | Linear | MatrixProduct


@dataclass(frozen=True)
class IntegerNetwork:
    """A classifier in integers: nodes in topological order, the last one gives the logits.

    Input: uint8 pixels (N, C, H, W), the shape without N being `input_shape`. Output: float32
    logits (N, classes), which are the last node's integers times 2**-FRACTION_BITS, exactly.
    """

    input_name: str
    input_shape: tuple[int, int, int]
    nodes: tuple[Node, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Logits float32 (N, classes) for uint8 images (N, C, H, W), in batches, on their
        device.
        """
        assert images.dtype == torch.uint8 and tuple(images.shape[1:]) == self.input_shape
        return torch.cat([self._logits(batch) for batch in images.split(EVALUATION_BATCH)])

    def trace(self, images: Tensor) -> dict[str, Tensor]:
        """The integers of every node, by name, for uint8 images."""
        values: dict[str, Tensor] = {self.input_name: images.to(torch.int64)}
        for node in self.nodes:
            operands = [values[name] for name in node.inputs]
            values[node.name] = node.evaluate(*operands)
        return values

    def to(self, device: torch.device) -> "IntegerNetwork":
        """The same on another device, where it computes the same integers."""
        return replace(self, nodes=tuple(_moved(node, device) for node in self.nodes))

    def _logits(self, images: Tensor) -> Tensor:
        """As in :meth:`trace`, but values are forgotten after their last use."""
        values: dict[str, Tensor] = {self.input_name: images.to(torch.int64)}
        last = {name: node.name for node in self.nodes for name in node.inputs}
        for node in self.nodes:
            values[node.name] = node.evaluate(*(values[name] for name in node.inputs))
            for name in {name for name in node.inputs if last[name] == node.name}:
                del values[name]
        result = values[self.nodes[-1].name]
        return result.flatten(1).to(torch.float32) * 2.0**-FRACTION_BITS

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every value of one image, by name; found with fake tensors, nothing is computed."""
        with FakeTensorMode(allow_non_fake_inputs=True):
            values = self.trace(torch.empty(1, *self.input_shape, dtype=torch.uint8))
        return {name: tuple(value.shape[1:]) for name, value in values.items()}

    @cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        return tuple(node for node in self.nodes if isinstance(node, Convolution))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All nodes that multiply with a table, in topological order."""
        return tuple(node for node in self.nodes if isinstance(node, Layer))

    @property
    def luts(self) -> tuple[LUT, ...]:
        """The distinct tables of all layers, in order of first use."""
        return tuple({node.lut.digest: node.lut for node in self.layers}.values())


def _moved(node: Node, device: torch.device) -> Node:
    """With its tensors on `device`."""
    found: dict[str, Any] = {one.name: getattr(node, one.name) for one in fields(node)}
    for name, value in found.items():
        found[name] = value.to(device) if isinstance(value, Tensor) else value
    return replace(node, **found)
