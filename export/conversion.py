"""What converting one operation of a network needs: its operands as integers, its arguments."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from hw.errors import InputError

from .building import Builder, Value
from .tokens import Broadcast
from .tracing import Trace

__all__ = ["Conversion"]

Result = Value | tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Conversion:
    """The trace of a network, the nodes made so far, and what its operations have become.

    `image`: the name of the network's input.
    """

    trace: Trace
    image: str
    builder: Builder = field(default_factory=Builder)
    values: dict[fx.Node, Result] = field(default_factory=dict)

    def raw(self, node: fx.Node, index: int = 0) -> Value:
        """An operand, its integers perhaps in another shape of as many values."""
        argument = node.args[index] if len(node.args) > index else None
        if not isinstance(argument, fx.Node):
            raise InputError(
                f"operand {index} of {node.name!r} must be a value of the network, not {argument!r}"
            )
        return self.value(argument)

    def operand(self, node: fx.Node, index: int = 0) -> Value:
        """An operand, its integers in the shape that the network sees."""
        value = self.raw(node, index)
        argument = node.args[index]
        assert isinstance(argument, fx.Node)
        return self.builder.shaped(value, self.shape(argument))

    def plain(self, node: fx.Node, index: int = 0) -> Value:
        """An operand in its shape, all channels on one scale."""
        value = self.operand(node, index)
        return value if value.is_uniform else self.builder.state(value)

    def state(self, node: fx.Node, index: int = 0) -> Value:
        """An operand in its shape as states."""
        return self.builder.state(self.operand(node, index))

    def channels_first(self, node: fx.Node) -> Value:
        """The first operand with channels as its second axis, whatever follows."""
        value, argument = self.raw(node), node.args[0]
        assert isinstance(argument, fx.Node)
        shape = self.shape(argument)
        return value if value.shape[:2] == shape[:2] else self.builder.shaped(value, shape)

    def value(self, node: fx.Node) -> Value:
        """What a node has become; constants become one when they are first asked for."""
        if node not in self.values:
            self.values[node] = self._constant(node)
        value = self.values[node]
        assert isinstance(value, Value), "parts are taken from several values before"
        return value

    def _constant(self, node: fx.Node) -> Value:
        constant = self.builder.constant(node.name, self.trace.constant(node))
        if not self.trace.grows(node):
            return constant
        several = Broadcast(f"{node.name}.images", (constant.node, self.image))
        return self.builder.append_state(several, (-1, *constant.shape[1:]))

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of a node's tensor, -1 for the images."""
        if node in self.trace.data or self.trace.grows(node):
            return self.trace.shape(node)
        return tuple(self.trace.constant(node).shape)

    def is_data(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and argument in self.trace.data

    def argument(self, node: fx.Node, index: int, name: str, default: Any = None) -> Any:
        """A positional or named argument, in numbers."""
        given = node.args[index] if len(node.args) > index else node.kwargs.get(name, default)
        return self.trace.value(given)

    def rest(self, node: fx.Node, name: str) -> tuple[int, ...]:
        """Numbers after the first argument, given one by one or as one sequence."""
        given = self.trace.value(node.args[1:]) or (self.trace.value(node.kwargs[name]),)
        return tuple(given[0]) if isinstance(given[0], tuple | list) else tuple(given)

    def number(self, node: fx.Node, index: int) -> float:
        """An operand that is one number, the same for all images."""
        given = self.trace.value(node.args[index])
        if isinstance(given, Tensor) and given.numel() == 1:
            return float(given)
        if isinstance(given, int | float):
            return float(given)
        raise InputError(
            f"operand {index} of {node.name!r} must be one number, not {_described(given)}; "
            "products of two activations must be those of lut.Matmul"
        )


def _described(value: Any) -> str:
    return f"a tensor of {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
