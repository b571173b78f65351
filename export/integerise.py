"""From a trained float module made of emulated layers to the integer network that it stands for.

The module is traced symbolically (torch.fx). Convolutions keep their integer weights; everything
linear between a convolution's accumulators and the next quantiser (scales, batch norm, bias) is
folded into one requantisation, computed in float64 from the module's parameters.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from hw.errors import InputError
from lut import ActivationQuantiser, ApproxConv2d, ApproxLinear, ApproxMatmul

from .integer import (
    FRACTION_BITS,
    STATE_RANGE,
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    Crop,
    GlobalSum,
    IntegerNetwork,
    MaxPool,
    Node,
    Requantise,
)

__all__ = ["integerise"]

INPUT = "image"
MULTIPLIER_BITS = 16
OFFSET_BITS = 50
AVERAGE_EXTRA_BITS = 4
STATE_SCALE = 2.0**-FRACTION_BITS
LOGIT_RANGE = (-(1 << 23), (1 << 23) - 1)


@dataclass(frozen=True, eq=False)
class Value:
    """Integers of a node and what they mean: real = relu?(scale · integer + offset), per channel.

    scale and offset: float64 (1,) or (C,).
    """

    node: str
    scale: Tensor
    offset: Tensor
    relu: bool = False

    @property
    def is_affine_state(self) -> bool:
        return bool((self.scale == STATE_SCALE).all() and (self.offset == 0).all())


@dataclass(frozen=True, eq=False)
class _Grid:
    """What a layer's levels mean: real = scale · (level - zero point). scale: float64 (1,)."""

    scale: Tensor
    zero_point: int
    low: int
    high: int

    @classmethod
    def of(cls, quantiser: ActivationQuantiser) -> "_Grid":
        scale = quantiser.scale.detach().to(torch.float64).reshape(1)
        return cls(scale, int(quantiser.zero_point), quantiser.low, quantiser.high)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ApproxConv2d | ApproxLinear | ApproxMatmul) or super().is_leaf_module(
            m, module_qualified_name
        )


def integerise(
    network: nn.Module, input_shape: tuple[int, int, int], pixel_scale: float
) -> IntegerNetwork:
    """The integer network of `network`, which takes ``pixels · pixel_scale``, (N, C, H, W), in eval
    mode.

    `network` is left as it is (its training flags too). Raises InputError for a layer or function
    that has no integer form here.
    """
    _check_decided(network)
    training = network.training
    network.eval()
    try:
        graph = _Tracer().trace(network)
        traced = fx.GraphModule(network, graph)
        with torch.no_grad():
            ShapeProp(traced).propagate(torch.zeros(1, *input_shape))
        return _Integeriser(traced, input_shape, pixel_scale).network()
    finally:
        network.train(training)


def _check_decided(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, ApproxConv2d) and len(module.candidates) != 1:
            raise InputError(
                f"layer {name!r} must have one multiplier, not {len(module.candidates)} candidates"
            )


class _Integeriser:
    """Walks the traced graph once and collects integer nodes."""

    def __init__(
        self, traced: fx.GraphModule, input_shape: tuple[int, int, int], pixel_scale: float
    ) -> None:
        self.traced, self.input_shape, self.pixel_scale = traced, input_shape, pixel_scale
        self.modules = dict(traced.named_modules())
        self.nodes: list[Node] = []
        self.values: dict[fx.Node, Value] = {}
        self.states: dict[Value, Value] = {}

    def network(self) -> IntegerNetwork:
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = Value(INPUT, _float64(self.pixel_scale), _float64(0.0))
            elif node.op == "output":
                self._requantised(
                    self._value(node, 0), "logits.fixed", _float64(STATE_SCALE), *LOGIT_RANGE
                )
            else:
                self.values[node] = self._converted(node)
        return IntegerNetwork(INPUT, self.input_shape, tuple(self.nodes))

    def _converted(self, node: fx.Node) -> Value:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            for kind, convert in _MODULES.items():
                if isinstance(module, kind):
                    return convert(self, node, module)
            raise InputError(
                f"layer {node.target!r} must be one of "
                f"{', '.join(kind.__name__ for kind in _MODULES)}, not {type(module).__name__}"
            )
        if node.target in _FUNCTIONS:
            return _FUNCTIONS[node.target](self, node)
        raise InputError(
            f"the network may only add, concatenate, slice, flatten and rectify outside of layers, "
            f"not call {node.target!r}"
        )

    # Layers

    def _convolution(self, node: fx.Node, module: ApproxConv2d) -> Value:
        return self._convolved(node, module, str(node.target))

    def _linear(self, node: fx.Node, module: ApproxLinear) -> Value:
        return self._convolved(node, module.convolution, str(node.target))

    def _convolved(self, node: fx.Node, module: ApproxConv2d, layer: str) -> Value:
        grid = _Grid.of(module.quantiser)
        quantised = self._quantised(self._value(node, 0), grid, layer)
        levels, scales = (tensor.detach() for tensor in module.quantised_weight())
        lut = module.candidates.luts[0]
        kind = torch.int8 if lut.b_signed else torch.uint8
        shape = _shape(node)
        size = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
        name = self._append(
            Convolution(
                layer,
                (quantised,),
                layer,
                levels.to(kind),
                lut,
                module.geometry,
                size,
                grid.zero_point,
            )
        )
        scale = grid.scale * scales.flatten().to(torch.float64)
        offset = _float64(0.0) if module.bias is None else module.bias.detach().double()
        return Value(name, scale, offset - scale * _zero_sums(levels, grid.zero_point))

    def _batch_norm(self, node: fx.Node, module: nn.BatchNorm2d) -> Value:
        value = self._value(node, 0)
        value = self._state(value) if value.relu else value
        assert module.running_mean is not None and module.running_var is not None
        gain = (module.running_var.to(torch.float64) + module.eps).rsqrt()
        shift = -module.running_mean.to(torch.float64) * gain
        if module.affine:
            weight, bias = (p.detach().to(torch.float64) for p in (module.weight, module.bias))
            gain, shift = gain * weight, shift * weight + bias
        return Value(value.node, value.scale * gain, value.offset * gain + shift)

    def _max_pool(self, node: fx.Node, module: nn.MaxPool2d) -> Value:
        state = self._state(self._value(node, 0))
        window = (_int(module.kernel_size), _int(module.stride), _int(module.padding))
        return replace(state, node=self._append(MaxPool(str(node.target), (state.node,), *window)))

    def _average_pool(self, node: fx.Node, module: nn.AvgPool2d) -> Value:
        state = self._state(self._value(node, 0))
        window = (_int(module.kernel_size), _int(module.stride), _int(module.padding))
        ones = torch.ones(1, 1, *_shape(node.args[0])[2:], dtype=torch.float64)
        counts = functional.avg_pool2d(ones, *window, divisor_override=1)[0, 0]
        if module.count_include_pad:
            counts = torch.full_like(counts, float(window[0] ** 2))
        multiplier = torch.round(2.0 ** (MULTIPLIER_BITS + AVERAGE_EXTRA_BITS) / counts)
        pool = AveragePool(
            str(node.target),
            (state.node,),
            *window,
            multiplier.to(torch.int64),
            1 << (MULTIPLIER_BITS - 1),
            MULTIPLIER_BITS,
        )
        return Value(self._append(pool), _float64(STATE_SCALE / 2**AVERAGE_EXTRA_BITS), _float64(0))

    def _global_average_pool(self, node: fx.Node, module: nn.AdaptiveAvgPool2d) -> Value:
        if module.output_size not in (1, (1, 1)):
            raise InputError(f"adaptive pooling must be to 1×1, not to {module.output_size}")
        state = self._state(self._value(node, 0))
        _, _, height, width = _shape(node.args[0])
        name = self._append(GlobalSum(str(node.target), (state.node,)))
        return Value(name, _float64(STATE_SCALE / (height * width)), _float64(0.0))

    def _rectified(self, node: fx.Node, module: nn.Module | None = None) -> Value:
        return replace(self._value(node, 0), relu=True)

    def _unchanged(self, node: fx.Node, module: nn.Module | None = None) -> Value:
        return self._value(node, 0)

    # Functions

    def _added(self, node: fx.Node) -> Value:
        operands = tuple(self._state(self._value(node, index)).node for index in (0, 1))
        return _state_of(self._append(Add(node.name, operands, *STATE_RANGE)))

    def _concatenated(self, node: fx.Node) -> Value:
        if (node.args[1:] or (node.kwargs.get("dim", 0),))[0] != 1:
            raise InputError("concatenation must be of channels (dim=1)")
        parts = node.args[0]
        assert isinstance(parts, list | tuple)
        states = tuple(self._state(self.values[part]).node for part in parts)  # type: ignore[index]
        return _state_of(self._append(Concatenate(node.name, states)))

    def _sliced(self, node: fx.Node) -> Value:
        top, left = _cropped(node.args[1])
        value = self._value(node, 0)
        return replace(value, node=self._append(Crop(node.name, (value.node,), top, left)))

    # Values

    def _value(self, node: fx.Node, index: int) -> Value:
        argument = node.args[index]
        assert isinstance(argument, fx.Node)
        return self.values[argument]

    def _state(self, value: Value) -> Value:
        """`value` in the fixed-point format of states, computed once."""
        if value.is_affine_state and not value.relu:
            return value
        if value not in self.states:
            self.states[value] = self._new_state(value)
        return self.states[value]

    def _new_state(self, value: Value) -> Value:
        low, high = (0 if value.relu else STATE_RANGE[0]), STATE_RANGE[1]
        name = f"{value.node}.state"
        if value.is_affine_state:
            return _state_of(self._append(Clamp(name, (value.node,), low, high)))
        return _state_of(self._requantised(value, name, _float64(STATE_SCALE), low, high))

    def _quantised(self, value: Value, grid: _Grid, layer: str) -> str:
        low = max(grid.zero_point, grid.low) if value.relu else grid.low
        return self._requantised(
            value, f"{layer}.levels", grid.scale, low, grid.high, grid.zero_point
        )

    def _requantised(
        self, value: Value, name: str, scale: Tensor, low: int, high: int, zero_point: int = 0
    ) -> str:
        """A node for round(real / scale) + zero point, halves up, clamped."""
        ratio, constant = torch.broadcast_tensors(
            value.scale / scale, value.offset / scale + zero_point
        )
        shift = _shift(ratio, constant)
        multiplier = torch.round(ratio * 2.0**shift).to(torch.int64)
        offset = torch.round((constant + 0.5) * 2.0**shift).to(torch.int64)
        return self._append(Requantise(name, (value.node,), multiplier, offset, shift, low, high))

    def _append(self, node: Node) -> str:
        taken = {other.name for other in self.nodes}
        name, number = node.name, 2
        while name in taken:
            name, number = f"{node.name}_{number}", number + 1
        self.nodes.append(replace(node, name=name))
        return name


_MODULES: dict[type[nn.Module], Callable[..., Value]] = {
    ApproxConv2d: _Integeriser._convolution,
    ApproxLinear: _Integeriser._linear,
    nn.BatchNorm2d: _Integeriser._batch_norm,
    nn.MaxPool2d: _Integeriser._max_pool,
    nn.AvgPool2d: _Integeriser._average_pool,
    nn.AdaptiveAvgPool2d: _Integeriser._global_average_pool,
    nn.ReLU: _Integeriser._rectified,
    nn.Identity: _Integeriser._unchanged,
    nn.Dropout: _Integeriser._unchanged,
    nn.Flatten: _Integeriser._unchanged,
}

_FUNCTIONS: dict[Any, Callable[[_Integeriser, fx.Node], Value]] = {
    operator.add: _Integeriser._added,
    torch.add: _Integeriser._added,
    torch.cat: _Integeriser._concatenated,
    operator.getitem: _Integeriser._sliced,
    torch.flatten: _Integeriser._unchanged,
    torch.relu: _Integeriser._rectified,
    functional.relu: _Integeriser._rectified,
}


def _state_of(node: str) -> Value:
    return Value(node, _float64(STATE_SCALE), _float64(0.0))


def _zero_sums(levels: Tensor, zero_point: int) -> Tensor:
    """What real zeros would add to the exact accumulators, float64 (O,)."""
    return zero_point * levels.to(torch.float64).sum((1, 2, 3))


def _shift(ratio: Tensor, constant: Tensor) -> int:
    """The shift that gives the largest multiplier its bits; offsets stay below 2**OFFSET_BITS."""
    shift = MULTIPLIER_BITS - _exponent(ratio)
    return max(1, min(shift, OFFSET_BITS - 1 - _exponent(constant.abs() + 1)))


def _exponent(values: Tensor) -> int:
    """The least e with every |value| < 2**e; 0 for zeros."""
    return int(torch.frexp(values.abs().max()).exponent)


def _cropped(slices: Any) -> tuple[int, int]:
    """top, left of ``x[:, :, top:, left:]``."""
    starts = [s.start or 0 for s in slices if isinstance(s, slice) and s.stop is s.step is None]
    if len(starts) != 4 or starts[:2] != [0, 0] or min(starts) < 0:
        raise InputError(f"slices must be those of x[:, :, top:, left:], not {slices}")
    return starts[2], starts[3]


def _float64(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape)


def _int(value: Any) -> int:
    """The side of a square kernel, stride or padding."""
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise InputError(f"pooling windows must be square, not {value}")
    return int(sides.pop())
