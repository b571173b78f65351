"""Functions and methods that a network calls outside of its modules, as integer nodes."""

import operator
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from hw.errors import InputError

from .building import Value
from .conversion import Conversion, Result
from .integer import STATE_RANGE, Add, Concatenate, Crop
from .module_conversions import looked_up, pooled_globally, rectified, softmax, unchanged
from .tokens import Pad, Slice, Sum, Transpose

__all__ = ["FUNCTIONS", "METHODS"]


# Arithmetic


def _added(to: Conversion, node: fx.Node) -> Value:
    for index, other in ((0, 1), (1, 0)):
        if not _is_tensor(to, node.args[other]):
            value = _unrectified(to, to.raw(node, index))
            return replace(value, offset=value.offset + to.number(node, other))
    return _sum(to, node, to.state(node, 0), to.state(node, 1))


def _subtracted(to: Conversion, node: fx.Node) -> Value:
    if not _is_tensor(to, node.args[1]):
        value = _unrectified(to, to.raw(node))
        return replace(value, offset=value.offset - to.number(node, 1))
    negative = _multiplied_by(to, to.operand(node, 1), -1.0)
    return _sum(to, node, to.state(node, 0), to.builder.state(negative))


def _sum(to: Conversion, node: fx.Node, one: Value, other: Value) -> Value:
    operands = (one.node, other.node)
    return to.builder.append_state(Add(node.name, operands, *STATE_RANGE), to.shape(node))


def _multiplied(to: Conversion, node: fx.Node) -> Value:
    index = 0 if to.is_data(node.args[0]) else 1
    return _multiplied_by(to, to.raw(node, index), to.number(node, 1 - index))


def _divided(to: Conversion, node: fx.Node) -> Value:
    return _multiplied_by(to, to.raw(node), 1.0 / to.number(node, 1))


def _multiplied_by(to: Conversion, value: Value, factor: float) -> Value:
    value = value if factor > 0 else _unrectified(to, value)
    return replace(value, scale=value.scale * factor, offset=value.offset * factor)


def _unrectified(to: Conversion, value: Value) -> Value:
    return to.builder.state(value) if value.relu else value


def _is_tensor(to: Conversion, argument: Any) -> bool:
    """Whether an operand is more than a number."""
    given = to.trace.value(argument)
    return isinstance(given, Tensor) and given.numel() > 1


def _averaged(to: Conversion, node: fx.Node) -> Value:
    given = to.argument(node, 1, "dim")
    keep = bool(to.argument(node, 2, "keepdim", False))
    state = to.state(node)
    rank = len(state.shape)
    given = range(rank) if given is None else (given,) if isinstance(given, int) else given
    axes = tuple(sorted(axis % rank - rank for axis in given))
    if any(state.shape[axis] == -1 for axis in axes):
        raise InputError(f"{node.name!r} must be the mean of each image, not of several")
    if rank == 4 and axes == (-2, -1):
        return pooled_globally(to, node)
    count = prod(state.shape[axis] for axis in axes)
    total = to.builder.append(Sum(node.name, (state.node,), axes, keep))
    return Value(total, state.scale / count, state.offset, to.shape(node))


# Shapes


def _concatenated(to: Conversion, node: fx.Node) -> Value:
    parts = node.args[0]
    assert isinstance(parts, list | tuple)
    shape = to.shape(node)
    axis = to.argument(node, 1, "dim", 0) % len(shape)
    if shape[axis] == -1:
        raise InputError(f"concatenation {node.name!r} must not be of images (dim={axis})")
    states = []
    for part in parts:
        assert isinstance(part, fx.Node)
        states.append(to.builder.state(to.builder.shaped(to.value(part), to.shape(part))).node)
    return to.builder.append_state(Concatenate(node.name, tuple(states), axis), shape)


def _permuted(to: Conversion, node: fx.Node) -> Value:
    return _transposed_to(to, node, to.rest(node, "dims"))


def _transposed(to: Conversion, node: fx.Node) -> Value:
    first, second = to.argument(node, 1, "dim0"), to.argument(node, 2, "dim1")
    axes = list(range(len(to.shape(node))))
    axes[first], axes[second] = axes[second], axes[first]
    return _transposed_to(to, node, tuple(axes))


def _attribute(to: Conversion, node: fx.Node) -> Value:
    rank = len(to.shape(node))
    if node.args[1] == "mT" or (node.args[1] == "T" and rank == 2):
        return _transposed_to(to, node, (*range(rank - 2), rank - 1, rank - 2))
    raise InputError(f"the attribute {node.args[1]!r} must be mT or the T of a matrix")


def _transposed_to(to: Conversion, node: fx.Node, axes: tuple[int, ...]) -> Value:
    value = to.plain(node)
    axes = tuple(axis % len(axes) for axis in axes)
    name = to.builder.append(Transpose(node.name, (value.node,), axes))
    return replace(value, node=name, shape=to.shape(node))


def _indexed(to: Conversion, node: fx.Node) -> Result:
    """A part of several values, or of one along its axes."""
    source, index = node.args[0], to.trace.value(node.args[1])
    assert isinstance(source, fx.Node)
    several = to.values.get(source)
    if isinstance(several, tuple):
        return several[index]
    items = index if isinstance(index, tuple) else (index,)
    crop = _crop(items)
    if crop is not None:
        value = to.operand(node)
        name = to.builder.append(Crop(node.name, (value.node,), *crop))
        return replace(value, node=name, shape=to.shape(node))
    return _sliced(to, node, items)


def _crop(items: tuple[Any, ...]) -> tuple[int, int] | None:
    """top, left of ``x[:, :, top:, left:]``, None for other indices."""
    starts = [
        item.start or 0
        for item in items
        if isinstance(item, slice) and item.stop is None and item.step in (None, 1)
    ]
    plain = len(starts) == len(items) == 4 and starts[:2] == [0, 0] and min(starts) >= 0
    return (starts[2], starts[3]) if plain else None


def _sliced(to: Conversion, node: fx.Node, items: tuple[Any, ...]) -> Value:
    value = to.plain(node)
    for axis, item in enumerate(_by_axis(items, len(value.shape), node.name)):
        size = value.shape[axis]
        part = slice(item, item + 1 if item != -1 else None) if isinstance(item, int) else item
        if part in (slice(None), slice(0, None)) or part == slice(None, None, 1):
            continue
        if size == -1:
            raise InputError(f"{node.name!r} must take all images, not {part} of them")
        value = _part(to, node.name, value, axis, part.indices(size))
    return value


def _by_axis(items: tuple[Any, ...], rank: int, name: str) -> list[int | slice]:
    """What is taken of each axis; new axes of size 1 appear with the shape."""
    if not all(item is None or item is ... or isinstance(item, int | slice) for item in items):
        raise InputError(f"indices of {name!r} must be numbers and slices, not {items}")
    items = tuple(item for item in items if item is not None)
    missing = [slice(None)] * (rank - sum(item is not ... for item in items))
    if not any(item is ... for item in items):
        return [*items, *missing]
    place = next(index for index, item in enumerate(items) if item is ...)
    return [*items[:place], *missing, *items[place + 1 :]]


def _part(
    to: Conversion, name: str, value: Value, axis: int, indices: tuple[int, int, int]
) -> Value:
    start, stop, step = indices
    node = to.builder.append(Slice(name, (value.node,), axis, start, stop, step))
    size = len(range(start, stop, step))
    shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
    return replace(value, node=node, shape=shape)


def _parts(to: Conversion, node: fx.Node) -> tuple[Value, ...]:
    """Of unbind, chunk and split: along one axis, one after the other."""
    value = to.plain(node)
    results, rank = to.trace.results[0][node], len(value.shape)
    unbound = results[0].ndim < rank
    name = ("dim", 1) if unbound else ("dim", 2)
    axis = to.argument(node, name[1], name[0], 0) % rank
    if value.shape[axis] == -1:
        raise InputError(f"{node.name!r} must leave images together, not split them")
    sizes = [1 if unbound else result.shape[axis] for result in results]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return tuple(
        _part(to, node.name, value, axis, (start, start + size, 1))
        for start, size in zip(starts, sizes, strict=True)
    )


def _padded(to: Conversion, node: fx.Node) -> Value:
    mode, fill = to.argument(node, 2, "mode", "constant"), to.argument(node, 3, "value", None)
    amounts = tuple(to.argument(node, 1, "pad"))
    if mode != "constant" or fill or min(amounts) < 0:
        raise InputError(f"{node.name!r} must pad with zeros, not {mode!r}, {fill}, by {amounts}")
    state = to.state(node)
    pairs = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)]
    pairs += [(0, 0)] * (len(state.shape) - len(pairs))
    pad = Pad(node.name, (state.node,), tuple(reversed(pairs)))
    return to.builder.append_state(pad, to.shape(node))


def _expanded(to: Conversion, node: fx.Node) -> Value:
    """Of data: only to the shape it has."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if to.shape(source) != to.shape(node):
        raise InputError(f"{node.name!r} must repeat a constant for all images, not an activation")
    return to.raw(node)


# Functions of one number


def _softmax(to: Conversion, node: fx.Node) -> Value:
    return softmax(to, node, to.argument(node, 1, "dim"))


def _kept(to: Conversion, node: fx.Node) -> Value:
    if to.argument(node, 2, "training", True):
        raise InputError(f"{node.name!r} must drop nothing in evaluation mode")
    return to.raw(node)


def _tabulated(to: Conversion, node: fx.Node) -> Value:
    arguments = node.args[1:]
    function = getattr(torch, node.target) if isinstance(node.target, str) else node.target
    assert callable(function)
    name = str(getattr(function, "__name__", node.target))
    named = {key: value for key, value in node.kwargs.items() if key != "inplace"}
    return looked_up(to, node, name, lambda x: function(x, *arguments, **named))


FUNCTIONS: dict[Any, Callable[[Conversion, fx.Node], Result]] = {
    operator.add: _added,
    operator.iadd: _added,
    torch.add: _added,
    operator.sub: _subtracted,
    operator.isub: _subtracted,
    torch.sub: _subtracted,
    operator.mul: _multiplied,
    operator.imul: _multiplied,
    torch.mul: _multiplied,
    operator.truediv: _divided,
    operator.itruediv: _divided,
    torch.div: _divided,
    torch.mean: _averaged,
    torch.cat: _concatenated,
    torch.concat: _concatenated,
    torch.permute: _permuted,
    torch.transpose: _transposed,
    getattr: _attribute,
    operator.getitem: _indexed,
    torch.unbind: _parts,
    torch.chunk: _parts,
    torch.split: _parts,
    functional.pad: _padded,
    torch.flatten: unchanged,
    torch.reshape: unchanged,
    torch.squeeze: unchanged,
    torch.unsqueeze: unchanged,
    torch.relu: rectified,
    functional.relu: rectified,
    torch.softmax: _softmax,
    functional.softmax: _softmax,
    functional.dropout: _kept,
    functional.gelu: _tabulated,
    functional.silu: _tabulated,
    functional.hardswish: _tabulated,
    functional.leaky_relu: _tabulated,
    torch.sigmoid: _tabulated,
    torch.tanh: _tabulated,
}

METHODS: dict[Any, Callable[[Conversion, fx.Node], Result]] = {
    "add": _added,
    "add_": _added,
    "sub": _subtracted,
    "mul": _multiplied,
    "mul_": _multiplied,
    "div": _divided,
    "mean": _averaged,
    "permute": _permuted,
    "transpose": _transposed,
    "swapaxes": _transposed,
    "unbind": _parts,
    "chunk": _parts,
    "split": _parts,
    "expand": _expanded,
    "contiguous": unchanged,
    "flatten": unchanged,
    "unflatten": unchanged,
    "reshape": unchanged,
    "view": unchanged,
    "squeeze": unchanged,
    "unsqueeze": unchanged,
    "relu": rectified,
    "relu_": rectified,
    "softmax": _softmax,
    "sigmoid": _tabulated,
    "tanh": _tabulated,
}
