"""Integer nodes being collected, and the real values that their integers stand for."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hw.errors import InputError
from lut import ActivationQuantiser

from .integer import FRACTION_BITS, STATE_RANGE, Clamp, Node, Requantise
from .tokens import Constant, Reshape

__all__ = ["STATE_SCALE", "Builder", "Grid", "Value", "float64"]

MULTIPLIER_BITS = 16
OFFSET_BITS = 50
STATE_SCALE = 2.0**-FRACTION_BITS
Shape = tuple[int, ...]


def float64(value: float) -> Tensor:
    """(1,)."""
    return torch.tensor([value], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Value:
    """Integers of a node and what they mean: real = relu?(scale · integer + offset), per channel.

    scale and offset: float64 (1,) or (C,), C being the axis that `trailing` axes follow. shape:
    that of the integers, -1 for the images; a reshape that is due may not have been made yet.
    """

    node: str
    scale: Tensor
    offset: Tensor
    shape: Shape
    relu: bool = False
    trailing: int = 2

    @property
    def is_affine_state(self) -> bool:
        return bool((self.scale == STATE_SCALE).all() and (self.offset == 0).all())

    @property
    def is_uniform(self) -> bool:
        """Whether all channels have one scale and one offset."""
        return self.scale.numel() == self.offset.numel() == 1


@dataclass(frozen=True, eq=False)
class Grid:
    """What a layer's levels mean: real = scale · (level - zero point). scale: float64 (1,)."""

    scale: Tensor
    zero_point: int
    low: int
    high: int

    @classmethod
    def of(cls, quantiser: ActivationQuantiser) -> "Grid":
        scale = quantiser.scale.detach().to(torch.float64).reshape(1)
        return cls(scale, int(quantiser.zero_point), quantiser.low, quantiser.high)


class Builder:
    """The nodes made so far. Each method adds what is needed and says what it stands for."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._taken: set[str] = set()
        self._states: dict[Value, Value] = {}
        self._reshaped: dict[tuple[Value, Shape], Value] = {}

    def append(self, node: Node) -> str:
        """Add a node; its name, or that name and a number where it is taken."""
        name, number = node.name, 2
        while name in self._taken:
            name, number = f"{node.name}_{number}", number + 1
        self._taken.add(name)
        self.nodes.append(replace(node, name=name))
        return name

    def append_state(self, node: Node, shape: Shape) -> Value:
        """Add a node whose integers are states."""
        return Value(self.append(node), float64(STATE_SCALE), float64(0.0), shape)

    def constant(self, name: str, real: Tensor) -> Value:
        """States of a tensor, rounded half to even; InputError where it does not fit them."""
        states = torch.round(real.to(torch.float64) / STATE_SCALE).to(torch.int64)
        if int(states.min()) < STATE_RANGE[0] or int(states.max()) > STATE_RANGE[1]:
            limit = STATE_RANGE[1] * STATE_SCALE
            raise InputError(
                f"the constant {name!r} must be within ±{limit:.4g}, "
                f"not reach {float(real.abs().max()):.4g}"
            )
        return self.append_state(Constant(name, (), states), tuple(states.shape))

    def state(self, value: Value) -> Value:
        """`value` in the fixed-point format of states, computed once."""
        if value.is_affine_state and not value.relu:
            return value
        if value not in self._states:
            self._states[value] = self._new_state(value)
        return self._states[value]

    def _new_state(self, value: Value) -> Value:
        low, high = (0 if value.relu else STATE_RANGE[0]), STATE_RANGE[1]
        name = f"{value.node}.state"
        if value.is_affine_state:
            return self.append_state(Clamp(name, (value.node,), low, high), value.shape)
        node = self.requantised(value, name, float64(STATE_SCALE), low, high)
        return Value(node, float64(STATE_SCALE), float64(0.0), value.shape)

    def shaped(self, value: Value, shape: Shape) -> Value:
        """`value` with its integers in this shape, computed once."""
        if value.shape == shape:
            return value
        key = value, shape
        if key not in self._reshaped:
            plain = value if value.is_uniform else self.state(value)
            node = self.append(Reshape(f"{plain.node}.reshaped", (plain.node,), shape))
            self._reshaped[key] = replace(plain, node=node, shape=shape)
        return self._reshaped[key]

    def levels(self, value: Value, grid: Grid, name: str) -> str:
        """A node of a multiplier's operands."""
        low = max(grid.zero_point, grid.low) if value.relu else grid.low
        return self.requantised(value, name, grid.scale, low, grid.high, grid.zero_point)

    def requantised(
        self, value: Value, name: str, scale: Tensor, low: int, high: int, zero_point: int = 0
    ) -> str:
        """A node for round(real / scale) + zero point, halves up, clamped."""
        ratio, constant = torch.broadcast_tensors(
            value.scale / scale, value.offset / scale + zero_point
        )
        shift = _shift(ratio, constant, max(-low, high))
        multiplier = torch.round(ratio * 2.0**shift).to(torch.int64)
        offset = torch.round((constant + 0.5) * 2.0**shift).to(torch.int64)
        node = Requantise(name, (value.node,), multiplier, offset, shift, low, high, value.trailing)
        return self.append(node)


def _shift(ratio: Tensor, constant: Tensor, limit: int) -> int:
    """The shift that gives the largest multiplier its bits; offsets stay below 2**OFFSET_BITS, and
    limits, shifted, below 2**(OFFSET_BITS + 1).
    """
    shift = min(MULTIPLIER_BITS - _exponent(ratio), OFFSET_BITS + 1 - limit.bit_length())
    return max(1, min(shift, OFFSET_BITS - 1 - _exponent(constant.abs() + 1)))


def _exponent(values: Tensor) -> int:
    """The least e with every |value| < 2**e; 0 for zeros."""
    return int(torch.frexp(values.abs().max()).exponent)
