"""A cell of the supernet with its operations merged: what reads the same is computed once.

All edges out of a state share its rectified values, its pools and their batch norms; the batch
norms at the end of operations, their weighting by alphas and the sums of a node are one pass over
memory (:mod:`cosearch.norm_mixtures`). The results are those of ``Cell.forward`` within the
rounding of the sums. Only in training, with all operations evaluated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosearch.channels import join, split
from cosearch.exact_layers import convolved, fast_kernel
from cosearch.norm_mixtures import normalised_relu, weighted_sum
from cosearch.operations import ConvolutionSequence, FactorisedReduce, own_mixture
from cosearch.streams import side_by_side
from lut import ApproxConv2d
from lut.layers import observed_together

__all__ = ["Edge", "Edges", "can_merge", "follow_first", "merged_preprocess"]

POOLS = ("max_pool_3x3", "avg_pool_3x3")
SKIP, NOISE = "skip_connect", "noise"


@dataclass(frozen=True, eq=False)
class Edge:
    """An edge's operations by name (`rows`: their rows in weights and betas), and where it leads.

    weights: of operations, the edge's own `share` included, float32 scalars; betas: their mixtures.
    """

    node: int
    operations: nn.ModuleDict
    rows: dict[str, int]
    stride: int
    weights: Sequence[Tensor]
    betas: Sequence[Tensor]
    share: Tensor


class State:
    """A cell's state as operations see it; what several of them read of it is computed once.

    Where operations see the first `seen` channels, the others pass by: max-pooled where an edge's
    stride is 2. `scales`: of the rectified state, by convolution of the edges `leaving` it, as far
    as they were observed together.
    """

    def __init__(self, whole: Tensor, seen: int, stride: int, leaving: Sequence[Edge] = ()) -> None:
        self.whole, self.seen, self.stride = whole, seen, stride
        readers = _readers(leaving)
        self.scales = observed_together(readers, self.rectified) if readers else {}

    def scale(self, layer: ApproxConv2d) -> Tensor | None:
        """Of the rectified state, for the stream that asks."""
        scale = self.scales.get(layer)
        if scale is not None and scale.is_cuda:
            scale.record_stream(torch.cuda.current_stream(scale.device))
        return scale

    @cached_property
    def x(self) -> Tensor:
        if self.seen == self.whole.shape[1]:
            return self.whole
        return self._parts[0]

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        return split(self.whole, self.seen)

    @cached_property
    def rectified(self) -> Tensor:
        return functional.relu(self.x)

    @cached_property
    def beside(self) -> Tensor:
        _, rest = self._parts
        return rest if self.stride == 1 else functional.max_pool2d(rest, 2, ceil_mode=True)


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges out of each state, and which channels they see: one in `partial`."""

    leaving: Sequence[Sequence[Edge]]
    partial: int = 1

    def nodes(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The nodes of a cell, from its two inputs."""
        found: dict[int, Tensor] = {}
        states: list[State] = []
        for source, leaving in enumerate(self.leaving):
            number = source - len(inputs)
            whole = inputs[source] if number < 0 else self._whole(number, found, states)
            state = State(whole, whole.shape[1] // self.partial, leaving[0].stride, leaving)
            states.append(state)
            for edge, node in zip(leaving, _added(state, leaving, found), strict=True):
                found[edge.node] = node
        last = len(self.leaving) - len(inputs)
        known = [state.whole for state in states[len(inputs) :]]
        return [*known, self._whole(last, found, states)]

    def _whole(self, node: int, found: dict[int, Tensor], states: Sequence[State]) -> Tensor:
        """All channels of a node: those that operations saw, and those that passed by."""
        if self.partial == 1:
            return found[node]
        entering = [
            (state.beside, edge.share)
            for state, leaving in zip(states, self.leaving, strict=False)
            for edge in leaving
            if edge.node == node
        ]
        shares = torch.stack([share for _, share in entering]).float()
        beside = weighted_sum(shares, [], [rest for rest, _ in entering])
        return join(found[node], beside, self.partial)


def _added(state: State, leaving: Sequence[Edge], found: dict[int, Tensor]) -> list[Tensor]:
    """For each edge the node it leads to, which has `found`, with what the edge adds."""
    operations = [(edge, name) for edge in leaving for name in _own_names(edge)]
    pools = {name: edges[0].operations[name] for name, edges in _pooling(leaving).items()}
    works = [
        partial(unnormalised, edge.operations[name], state, edge.betas[edge.rows[name]])
        for edge, name in operations
    ]
    works += [partial(_pool, state, pool) for pool in pools.values()]
    results = side_by_side(works, [state.x, state.rectified])
    made = iter(results)
    normed = [
        [(next(made), last_norm(edge.operations[name])) for name in _own_names(edge)]
        for edge in leaving
    ]
    pooled = dict(zip(pools, made, strict=True))
    bases = [found.get(edge.node) for edge in leaving]
    sums = [
        partial(_sum, state, edge, terms, base, pooled)
        for edge, terms, base in zip(leaving, normed, bases, strict=True)
    ]
    there = [base for base in bases if base is not None]
    return side_by_side(sums, [state.x, *results, *there])


def _pooling(leaving: Sequence[Edge]) -> dict[str, list[Edge]]:
    """The edges out of a state that have a pool, by its name."""
    having = {name: [edge for edge in leaving if name in edge.operations] for name in POOLS}
    return {name: edges for name, edges in having.items() if edges}


def _pool(state: State, operation: nn.Module) -> Tensor:
    """Batch-normalised; edges out of a state share it."""
    pool, norm = _layers(operation)
    assert isinstance(norm, nn.BatchNorm2d)
    return weighted_sum(_one(state.x), [(pool(state.x), norm)])


def _own_names(edge: Edge) -> list[str]:
    """Operations that an edge computes itself and whose end is a batch norm: no pools, no noise,
    and no skip that changes nothing.
    """
    others = {*POOLS, NOISE, SKIP} if edge.stride == 1 else {*POOLS, NOISE}
    return [name for name in edge.operations if name not in others]


def _sum(
    state: State,
    edge: Edge,
    normed: list[tuple[Tensor, nn.BatchNorm2d]],
    base: Tensor | None,
    pools: dict[str, Tensor],
) -> Tensor:
    """What an edge's operations make of its state, added to what its node has."""
    plain = {name: pooled for name, pooled in pools.items() if name in edge.operations}
    if SKIP in edge.operations and edge.stride == 1:
        plain[SKIP] = state.x
    if NOISE in edge.operations:
        plain[NOISE] = edge.operations[NOISE](state.x)
    names = [*_own_names(edge), *plain]
    weights = torch.stack([edge.weights[edge.rows[name]] for name in names])
    return weighted_sum(weights, normed, list(plain.values()), base)


def last_norm(operation: nn.Module) -> nn.BatchNorm2d:
    """The batch norm at an operation's end."""
    found = operation.norm if isinstance(operation, FactorisedReduce) else _layers(operation)[-1]
    assert isinstance(found, nn.BatchNorm2d)
    return found


def unnormalised(operation: nn.Module, state: State, mixture: Tensor | None) -> Tensor:
    """An operation's result before its last batch norm."""
    if isinstance(operation, FactorisedReduce):
        return operation.halves(state.rectified, mixture)
    layers = _layers(operation)[:-1]
    x, number, at = state.x, 0, 0
    while at < len(layers):
        layer, following = layers[at], layers[at + 1] if at + 1 < len(layers) else None
        if isinstance(layer, nn.ReLU) and following is not None:
            kind = fast_kernel(following, x)
            if kind is not None:
                assert isinstance(following, nn.Conv2d)
                x, at = convolved(following, kind, x, relu=True), at + 2
                continue
        if isinstance(layer, nn.BatchNorm2d) and isinstance(following, nn.ReLU):
            x, at = normalised_relu(x, layer), at + 2
            continue
        if isinstance(layer, nn.ReLU) and x is state.x:
            x = state.rectified
        elif isinstance(layer, ApproxConv2d):
            scale = state.scale(layer) if at == 1 else None
            x, number = layer(x, own_mixture(layer, mixture, number), scale), number + 1
        elif (kind := fast_kernel(layer, x)) is not None:
            assert isinstance(layer, nn.Conv2d)
            x = convolved(layer, kind, x)
        else:
            x = layer(x)
        at += 1
    return x


def _readers(leaving: Sequence[Edge]) -> list[ApproxConv2d]:
    """Convolutions that come right after the rectification of a state."""
    sequences = [
        list(operation.layers[:2])
        for edge in leaving
        for operation in edge.operations.values()
        if isinstance(operation, ConvolutionSequence)
    ]
    pairs = [pair for pair in sequences if len(pair) == 2 and isinstance(pair[0], nn.ReLU)]
    return [second for _, second in pairs if isinstance(second, ApproxConv2d)]


def merged_preprocess(operation: nn.Module, x: Tensor, mixture: Tensor | None) -> Tensor:
    """An operation of the preprocessing, its batch norm by the same kernels."""
    result = unnormalised(operation, State(x, x.shape[1], 1), mixture)
    return weighted_sum(_one(x), [(result, last_norm(operation))])


def _one(x: Tensor) -> Tensor:
    return torch.ones(1, dtype=torch.float32, device=x.device)


def can_merge(cell: nn.Module) -> bool:
    """Whether batch norms see one process's batch alone: those that several share are a class of
    their own.
    """
    norms = (module for module in cell.modules() if isinstance(module, nn.BatchNorm2d))
    return all(type(norm) is nn.BatchNorm2d for norm in norms)


@torch.no_grad()
def follow_first(cell: nn.Module, edges: Edges) -> None:
    """Count a batch in each batch norm of a cell; pools of all edges out of a state have seen what
    the first such edge's has.
    """
    norms = [module for module in cell.modules() if isinstance(module, nn.BatchNorm2d)]
    counts = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    if counts:
        torch._foreach_add_(counts, 1)
    targets: list[Tensor] = []
    sources: list[Tensor] = []
    for leaving in edges.leaving:
        for name, (first, *others) in _pooling(leaving).items():
            for edge in others:
                targets += _statistics(edge.operations[name])
                sources += _statistics(first.operations[name])
    if targets:
        torch._foreach_copy_(targets, sources)


def _statistics(pool: nn.Module) -> list[Tensor]:
    """Running mean and variance of a pool's batch norm."""
    norm = _layers(pool)[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    return [norm.running_mean, norm.running_var]


def _layers(operation: nn.Module) -> list[nn.Module]:
    assert isinstance(operation, ConvolutionSequence)
    return list(operation.layers)
