"""Matrix products of an integer network, their products those of a multiplier: layers on tokens,
and attention.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from lut import LUT, approx_matmul

from .node import Node

__all__ = ["Linear", "MatrixProduct", "WithoutZeroPoints", "operand_type"]


def operand_type(signed: bool) -> torch.dtype:
    """Of levels that a multiplier takes."""
    return torch.int8 if signed else torch.uint8


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """Accumulators int32 (N, …, O) of levels (N, …, C) and `weight`, int8 or uint8 (C, O).

    `positions`: how many rows of C levels an image has. Levels mean ``level - zero_point``, but
    nothing subtracts it. `layer`: the path of the module it came from.
    """

    layer: str
    weight: Tensor
    lut: LUT
    positions: int
    zero_point: int = 0

    def evaluate(self, *operands: Tensor) -> Tensor:
        levels = operands[0].to(operand_type(self.lut.a_signed))
        return approx_matmul(levels, self.weight, self.lut).to(torch.int64)

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        return self.weight.numel() * self.positions


@dataclass(frozen=True, eq=False)
class MatrixProduct(Node):
    """Accumulators int32 (N, …, M, O) of two inputs, levels (N, …, M, K) and (N, …, K, O).

    `output_shape`: (…, M, O); `terms`: K, the products that one accumulator sums. Levels mean
    ``level - zero point``, but nothing subtracts: :class:`WithoutZeroPoints` does. `layer`: the
    path of the module it came from.
    """

    layer: str
    lut: LUT
    output_shape: tuple[int, ...]
    terms: int
    zero_point: int = 0
    second_zero_point: int = 0

    def evaluate(self, *operands: Tensor) -> Tensor:
        first = operands[0].to(operand_type(self.lut.a_signed))
        second = operands[1].to(operand_type(self.lut.b_signed))
        return approx_matmul(first, second, self.lut).to(torch.int64)

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        return prod(self.output_shape) * self.terms


@dataclass(frozen=True, eq=False)
class WithoutZeroPoints(Node):
    """The accumulators of a product of ``level - zero point``, from those of its levels.

    Inputs: accumulators (…, M, O), levels a (…, M, K), levels b (…, K, O). With zero points z of a
    and y of b: ``accumulators - z · sum_k b - y · sum_k a + K · z · y``.
    """

    zero_point: int
    second_zero_point: int
    terms: int

    def evaluate(self, *operands: Tensor) -> Tensor:
        accumulators, a, b = (operand.to(torch.int64) for operand in operands)
        z, y = self.zero_point, self.second_zero_point
        sums = z * b.sum(-2, keepdim=True) + y * a.sum(-1, keepdim=True)
        return accumulators - sums + self.terms * z * y
