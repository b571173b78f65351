"""Operations of an integer network beside its products that transformers need: normalisation,
softmax, tables of functions, and changes of shape.

All are defined on integers. Sums, squares and quotients stay below 2**53, so float64 computes them
too, whatever the order: a sum of such integers is exact, a square root is corrected by comparing
squares, and ``floor(a / b)`` of a correctly rounded quotient is that of the true one (a quotient
below an integer n is at least 1 / b below it, which is more than the rounding while ``n · b <
2**53``).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from hw.errors import InputError

from .node import FRACTION_BITS, STATE_BITS, Node

__all__ = [
    "NORMALISED_BITS",
    "PROBABILITY_BITS",
    "Broadcast",
    "Constant",
    "LayerNormalise",
    "Lookup",
    "Pad",
    "Reshape",
    "Slice",
    "Softmax",
    "Sum",
    "Transpose",
    "exponential_table",
    "square_root",
]

NORMALISED_BITS = 12
PROBABILITY_BITS = 15
EXPONENTIAL_BITS = 16
RADICAND_BITS = 52


@dataclass(frozen=True, eq=False)
class LayerNormalise(Node):
    """``(x - mean) / sqrt(variance + epsilon)`` over the last axis, times 2**NORMALISED_BITS.

    x: states (…, size). With S the sum of x and Q that of x²: the numerator is ``size · x - S``,
    the denominator ``r = floor(sqrt(4**extra_bits · (size · Q - S²) + epsilon))``, which is
    2**extra_bits times as large, and the result is rounded to nearest, halves up: ``floor((2 · n +
    r) / (2 · r))`` for ``n = numerator · 2**(extra_bits + NORMALISED_BITS)``. `epsilon`: in the
    radicand's unit, at least 1.
    """

    size: int
    epsilon: int

    def __post_init__(self) -> None:
        if not 1 <= self.epsilon < 1 << (RADICAND_BITS - 1):
            raise InputError(f"epsilon must be 1 … 2**51 - 1, not {self.epsilon}")
        self.extra_bits_of(self.size)

    @property
    def extra_bits(self) -> int:
        return self.extra_bits_of(self.size)

    @staticmethod
    def extra_bits_of(size: int) -> int:
        """As many as keep the radicand below 2**52; InputError where none do."""
        largest = size**2 << 2 * (STATE_BITS - 1)
        extra = (RADICAND_BITS - 1 - largest.bit_length()) // 2
        if extra < 0:
            raise InputError(f"a normalised axis must have at most 1448 values, not {size}")
        return extra

    @classmethod
    def of(cls, name: str, inputs: tuple[str, ...], size: int, epsilon: float) -> "LayerNormalise":
        """`epsilon`: of real values."""
        unit = 4 ** (FRACTION_BITS + cls.extra_bits_of(size)) * size**2
        return cls(name, inputs, size, max(1, round(epsilon * unit)))

    def evaluate(self, *operands: Tensor) -> Tensor:
        x = operands[0].to(torch.int64)
        total, squares = x.sum(-1, keepdim=True), x.square().sum(-1, keepdim=True)
        spread = self.size * squares - total.square()
        root = square_root((spread << (2 * self.extra_bits)) + self.epsilon)
        numerator = (self.size * x - total) << (self.extra_bits + NORMALISED_BITS + 1)
        return torch.div(numerator + root, 2 * root, rounding_mode="floor")


def square_root(x: Tensor) -> Tensor:
    """floor(sqrt(x)) of int64 below 2**53, exact."""
    root = x.to(torch.float64).sqrt().to(torch.int64)
    root = root - (root.square() > x).to(torch.int64)
    return root + ((root + 1).square() <= x).to(torch.int64)


@dataclass(frozen=True, eq=False)
class Softmax(Node):
    """Over the last axis of states, in units of 2**-PROBABILITY_BITS.

    With ``e = table[min(largest - x, len(table) - 1)]`` and its sum E: ``floor((e ·
    2**(PROBABILITY_BITS + 1) + E) / (2 · E))``, the quotient rounded, halves up. `table`: int64,
    exp(-d) of a difference of d states, :func:`exponential_table`.
    """

    table: Tensor

    def evaluate(self, *operands: Tensor) -> Tensor:
        x = operands[0].to(torch.int64)
        differences = x.amax(-1, keepdim=True) - x
        powers = self.table[differences.clamp_max(len(self.table) - 1)]
        total = powers.sum(-1, keepdim=True)
        doubled = (powers << (PROBABILITY_BITS + 1)) + total
        return torch.div(doubled, 2 * total, rounding_mode="floor")


def exponential_table() -> Tensor:
    """int64: 2**EXPONENTIAL_BITS · exp(-d) for differences d of 0, 1, … states, up to the first
    that rounds to 0.
    """
    differences = torch.arange(1 << 13, dtype=torch.float64) / 2**FRACTION_BITS
    table = torch.round(2.0**EXPONENTIAL_BITS * torch.exp(-differences)).to(torch.int64)
    return table[: int((table > 0).sum()) + 1].clone()


@dataclass(frozen=True, eq=False)
class Lookup(Node):
    """``table[x]`` of states x, row = bit pattern of the 16-bit state.

    `function`: its name, for readers. `table`: int64 (65536,), states.
    """

    function: str
    table: Tensor

    def evaluate(self, *operands: Tensor) -> Tensor:
        return self.table[operands[0].to(torch.int64) & ((1 << STATE_BITS) - 1)]


@dataclass(frozen=True, eq=False)
class Sum(Node):
    """Over `axes`, counted from the end (-1 is the last); kept with size 1 if `keep`."""

    axes: tuple[int, ...]
    keep: bool

    def evaluate(self, *operands: Tensor) -> Tensor:
        return operands[0].to(torch.int64).sum(self.axes, keepdim=self.keep)


@dataclass(frozen=True, eq=False)
class Reshape(Node):
    """To `shape`, in which -1 stands where the number of images is a factor."""

    shape: tuple[int, ...]

    def evaluate(self, *operands: Tensor) -> Tensor:
        return operands[0].reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Transpose(Node):
    """Axes of the input in the order `axes`."""

    axes: tuple[int, ...]

    def evaluate(self, *operands: Tensor) -> Tensor:
        return operands[0].permute(self.axes)


@dataclass(frozen=True, eq=False)
class Slice(Node):
    """``x[…, start:stop:step, …]`` along `axis`."""

    axis: int
    start: int
    stop: int
    step: int = 1

    def evaluate(self, *operands: Tensor) -> Tensor:
        part = slice(self.start, self.stop, self.step)
        return operands[0][(slice(None),) * self.axis + (part,)]


@dataclass(frozen=True, eq=False)
class Pad(Node):
    """Zeros before and after each of the axes: `amounts` has (before, after) by axis."""

    amounts: tuple[tuple[int, int], ...]

    def evaluate(self, *operands: Tensor) -> Tensor:
        return functional.pad(operands[0], self.flat)

    @cached_property
    def flat(self) -> list[int]:
        """As torch takes them: the last axis first."""
        return [amount for pair in reversed(self.amounts) for amount in pair]


@dataclass(frozen=True, eq=False)
class Constant(Node):
    """States that no image changes, any shape."""

    value: Tensor

    def evaluate(self, *operands: Tensor) -> Tensor:
        return self.value


@dataclass(frozen=True, eq=False)
class Broadcast(Node):
    """The first input, (1, …), once for each image of the second."""

    def evaluate(self, *operands: Tensor) -> Tensor:
        constant, images = operands
        return constant.expand(len(images), *constant.shape[1:])
