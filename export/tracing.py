"""A network's operations in order (torch.fx), with what each of them gives for two batch sizes.

Comparing the two tells the axis of the images from all others, whatever a network does to shapes.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from hw.errors import InputError
from lut import ApproxConv1d, ApproxConv2d, ApproxLinear, ApproxMatmul

__all__ = ["Trace", "traced"]

BATCHES = (2, 3)
_LEAVES = (ApproxConv1d, ApproxConv2d, ApproxLinear, ApproxMatmul)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


class _Recorder(fx.Interpreter):
    """Remembers what every node gave: tensors and anything else."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.results: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.results[n] = super().run_node(n)
        return self.results[n]


@dataclass(frozen=True, eq=False)
class Trace:
    """The graph, its modules by path, and the results of its nodes for batches of 2 and 3 images.

    `data`: the nodes whose values depend on the images', and not on their number alone.
    """

    nodes: tuple[fx.Node, ...]
    modules: dict[str, nn.Module]
    results: tuple[dict[fx.Node, Any], dict[fx.Node, Any]]
    data: frozenset[fx.Node] = field(repr=False)

    @property
    def images(self) -> int:
        """How many the first results are of."""
        return BATCHES[0]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of a tensor, -1 for the axis that the number of images is a factor of."""
        one, other = (tuple(results[node].shape) for results in self.results)
        shape = tuple(a if a == b else -1 for a, b in zip(one, other, strict=True))
        if shape.count(-1) != 1:
            raise InputError(
                f"the result of {node.name!r} must have one axis that grows with the number of "
                f"images, not the shapes {one} and {other} for {BATCHES[0]} and {BATCHES[1]} images"
            )
        return shape

    def constant(self, node: fx.Node) -> Tensor:
        """A tensor without data in it; where it grows with the number of images, of one image."""
        one, other = (results[node].detach() for results in self.results)
        if one.shape == other.shape and torch.equal(one, other):
            return one
        if one.shape[1:] != other.shape[1:] or not torch.equal(one[:1].expand_as(other), other):
            raise InputError(f"the constant {node.name!r} must be the same for every image")
        return one[:1]

    def grows(self, node: fx.Node) -> bool:
        """Whether a tensor's shape depends on the number of images."""
        one, other = (results[node].shape for results in self.results)
        return bool(one != other)

    def value(self, argument: Any) -> Any:
        """An argument with what its nodes gave for the first batch in their place."""
        return fx.node.map_arg(argument, lambda node: self.results[0][node])


def traced(network: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """The trace of a network in evaluation mode that takes images of `input_shape`."""
    module = fx.GraphModule(network, _Tracer().trace(network))
    results = tuple(_recorded(module, batch, input_shape) for batch in BATCHES)
    nodes = tuple(module.graph.nodes)
    return Trace(
        nodes, dict(module.named_modules()), (results[0], results[1]), _data(nodes, results[0])
    )


@torch.no_grad()
def _recorded(
    module: fx.GraphModule, batch: int, input_shape: tuple[int, ...]
) -> dict[fx.Node, Any]:
    recorder = _Recorder(module)
    recorder.run(torch.zeros(batch, *input_shape))
    return recorder.results


def _data(nodes: tuple[fx.Node, ...], results: dict[fx.Node, Any]) -> frozenset[fx.Node]:
    found: set[fx.Node] = set()
    for node in nodes:
        depends = node.op == "placeholder" or any(n in found for n in node.all_input_nodes)
        if depends and _holds_tensors(results[node]):
            found.add(node)
    return frozenset(found)


def _holds_tensors(result: Any) -> bool:
    if isinstance(result, torch.Size):
        return False
    return isinstance(result, Tensor) or (
        isinstance(result, tuple | list) and any(isinstance(item, Tensor) for item in result)
    )
