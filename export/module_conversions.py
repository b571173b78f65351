"""Modules of a network as integer nodes: one function each, in a registry by type."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from hw.errors import InputError
from lut import LUT, ApproxConv1d, ApproxConv2d, ApproxLinear, ApproxMatmul

from .building import STATE_SCALE, Grid, Value, float64
from .conversion import Conversion
from .integer import STATE_BITS, STATE_RANGE, AveragePool, Clamp, Convolution, GlobalSum, MaxPool
from .products import Linear, MatrixProduct, WithoutZeroPoints, operand_type
from .tokens import (
    NORMALISED_BITS,
    PROBABILITY_BITS,
    LayerNormalise,
    Lookup,
    Softmax,
    exponential_table,
)

__all__ = ["MODULES", "looked_up", "pooled_globally", "rectified", "softmax", "unchanged"]

AVERAGE_BITS = 16
AVERAGE_EXTRA_BITS = 4
ACCUMULATOR_LIMIT = 1 << 31


# Layers


def _convolution(to: Conversion, node: fx.Node, module: ApproxConv2d) -> Value:
    return _convolved(to, node, module, to.operand(node), str(node.target))


def _convolution_1d(to: Conversion, node: fx.Node, module: ApproxConv1d) -> Value:
    value = to.operand(node)
    images, channels, length = value.shape
    flat = to.builder.shaped(value, (images, channels, 1, length))
    return _convolved(to, node, module.convolution, flat, str(node.target))


def _linear(to: Conversion, node: fx.Node, module: ApproxLinear) -> Value:
    """A 1×1 convolution where each image has one row, else a matrix product."""
    layer, convolution = str(node.target), module.convolution
    images = to.trace.images
    rows = to.trace.results[0][node]
    if rows.ndim == 2 and len(rows) == images:
        value = to.builder.shaped(to.raw(node), (-1, convolution.weight.shape[1], 1, 1))
        return _convolved(to, node, convolution, value, layer)
    grid, value = Grid.of(convolution.quantiser), to.operand(node)
    quantised = to.builder.levels(value, grid, f"{layer}.levels")
    levels, scales = (tensor.detach() for tensor in convolution.quantised_weight())
    lut = convolution.candidates.luts[0]
    weight = levels.flatten(1).T.contiguous().to(operand_type(lut.b_signed))
    _check_sums(layer, lut, len(weight))
    positions = rows.numel() // (images * weight.shape[1])
    product = Linear(layer, (quantised,), layer, weight, lut, positions, grid.zero_point)
    scale, offset = _affine(convolution, grid, levels, scales)
    return Value(to.builder.append(product), scale, offset, to.shape(node), trailing=0)


def _convolved(
    to: Conversion, node: fx.Node, module: ApproxConv2d, value: Value, layer: str
) -> Value:
    grid = Grid.of(module.quantiser)
    quantised = to.builder.levels(value, grid, f"{layer}.levels")
    levels, scales = (tensor.detach() for tensor in module.quantised_weight())
    lut = module.candidates.luts[0]
    weight = levels.to(operand_type(lut.b_signed))
    _check_sums(layer, lut, weight[0].numel())
    size = _output_size(module, value.shape)
    product = Convolution(
        layer, (quantised,), layer, weight, lut, module.geometry, size, grid.zero_point
    )
    scale, offset = _affine(module, grid, levels, scales)
    return Value(to.builder.append(product), scale, offset, (-1, len(weight), *size))


def _output_size(module: ApproxConv2d, shape: tuple[int, ...]) -> tuple[int, int]:
    (top, left), geometry = module.geometry.padding, module.geometry
    padded = torch.Size((1, shape[1], shape[2] + 2 * top, shape[3] + 2 * left))
    return geometry.output_size(padded, module.weight.shape)


def _affine(
    module: ApproxConv2d, grid: Grid, levels: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor]:
    """scale and offset (O,) of the accumulators; what real zeros would add is in the offset."""
    scale = grid.scale * scales.flatten().to(torch.float64)
    offset = float64(0.0) if module.bias is None else module.bias.detach().double()
    zeros = grid.zero_point * levels.to(torch.float64).sum((1, 2, 3))
    return scale, offset - scale * zeros


def _matmul(to: Conversion, node: fx.Node, module: ApproxMatmul) -> Value:
    layer, lut = str(node.target), module.candidates.luts[0]
    grids = Grid.of(module.x_quantiser), Grid.of(module.y_quantiser)
    operands = to.operand(node, 0), to.operand(node, 1)
    first, second = (
        to.builder.levels(value, grid, f"{layer}.{name}_levels")
        for value, grid, name in zip(operands, grids, ("first", "second"), strict=True)
    )
    shape, terms = to.shape(node), operands[0].shape[-1]
    if shape[0] != -1 or terms == -1:
        raise InputError(f"images must be the first axis of layer {layer!r}, not one of {shape}")
    _check_sums(layer, lut, terms)
    zeros = grids[0].zero_point, grids[1].zero_point
    product = MatrixProduct(layer, (first, second), layer, lut, shape[1:], terms, *zeros)
    name = to.builder.append(product)
    if any(zeros):
        inputs = (name, first, second)
        name = to.builder.append(WithoutZeroPoints(f"{layer}.centred", inputs, *zeros, terms))
    return Value(name, grids[0].scale * grids[1].scale, float64(0.0), shape)


def _check_sums(layer: str, lut: LUT, terms: int) -> None:
    """Accumulators have 32 bits, with the terms of zero points, at most 3 · 2**16 a product."""
    largest = int(abs(lut.table.astype("int64")).max()) + 3 * 2**16
    if terms * largest >= ACCUMULATOR_LIMIT:
        raise InputError(
            f"layer {layer!r} must sum at most {ACCUMULATOR_LIMIT // largest} products of "
            f"{lut.name!r}, not {terms}"
        )


def _batch_norm(to: Conversion, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Value:
    value = to.channels_first(node)
    value = to.builder.state(value) if value.relu else value
    assert module.running_mean is not None and module.running_var is not None
    gain = (module.running_var.to(torch.float64) + module.eps).rsqrt()
    shift = -module.running_mean.to(torch.float64) * gain
    if module.affine:
        weight, bias = (p.detach().to(torch.float64) for p in (module.weight, module.bias))
        gain, shift = gain * weight, shift * weight + bias
    return replace(
        value,
        scale=value.scale * gain,
        offset=value.offset * gain + shift,
        trailing=len(value.shape) - 2,
    )


def _layer_norm(to: Conversion, node: fx.Node, module: nn.LayerNorm) -> Value:
    state = to.state(node)
    if module.normalized_shape != state.shape[-1:]:
        raise InputError(
            f"layer {node.target!r} must normalise the last axis, not {module.normalized_shape}"
        )
    layer = LayerNormalise.of(str(node.target), (state.node,), state.shape[-1], module.eps)
    scale, offset = float64(2.0**-NORMALISED_BITS), float64(0.0)
    if module.weight is not None:
        scale = scale * module.weight.detach().to(torch.float64)
    if module.bias is not None:
        offset = module.bias.detach().to(torch.float64)
    return Value(to.builder.append(layer), scale, offset, state.shape, trailing=0)


# Pooling


def _max_pool(to: Conversion, node: fx.Node, module: nn.MaxPool2d) -> Value:
    state = to.state(node)
    window = (_side(module.kernel_size), _side(module.stride), _side(module.padding))
    pool = MaxPool(str(node.target), (state.node,), *window)
    return to.builder.append_state(pool, to.shape(node))


def _average_pool(to: Conversion, node: fx.Node, module: nn.AvgPool2d) -> Value:
    state = to.state(node)
    window = (_side(module.kernel_size), _side(module.stride), _side(module.padding))
    ones = torch.ones(1, 1, *state.shape[2:], dtype=torch.float64)
    counts = functional.avg_pool2d(ones, *window, divisor_override=1)[0, 0]
    if module.count_include_pad:
        counts = torch.full_like(counts, float(window[0] ** 2))
    multiplier = torch.round(2.0 ** (AVERAGE_BITS + AVERAGE_EXTRA_BITS) / counts).to(torch.int64)
    half = 1 << (AVERAGE_BITS - 1)
    pool = AveragePool(str(node.target), (state.node,), *window, multiplier, half, AVERAGE_BITS)
    scale = float64(STATE_SCALE / 2**AVERAGE_EXTRA_BITS)
    return Value(to.builder.append(pool), scale, float64(0), to.shape(node))


def _global_average_pool(to: Conversion, node: fx.Node, module: nn.AdaptiveAvgPool2d) -> Value:
    if module.output_size not in (1, (1, 1)):
        raise InputError(f"adaptive pooling must be to 1×1, not to {module.output_size}")
    return pooled_globally(to, node)


def pooled_globally(to: Conversion, node: fx.Node) -> Value:
    state = to.state(node)
    images, channels, height, width = state.shape
    pool = GlobalSum(str(node.target), (state.node,))
    scale = float64(STATE_SCALE / (height * width))
    return Value(to.builder.append(pool), scale, float64(0.0), (images, channels, 1, 1))


def _side(value: Any) -> int:
    """The side of a square kernel, stride or padding."""
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise InputError(f"pooling windows must be square, not {value}")
    return int(sides.pop())


# Functions


def rectified(to: Conversion, node: fx.Node, module: nn.Module | None = None) -> Value:
    return replace(to.raw(node), relu=True)


def _clipped(to: Conversion, node: fx.Node, module: nn.ReLU6) -> Value:
    state = to.builder.state(to.raw(node))
    six = round(6 / STATE_SCALE)
    return to.builder.append_state(Clamp(str(node.target), (state.node,), 0, six), state.shape)


def unchanged(to: Conversion, node: fx.Node, module: nn.Module | None = None) -> Value:
    """A reshape counts as one: integers get their new shape where they are read."""
    return to.raw(node)


def _softmax_layer(to: Conversion, node: fx.Node, module: nn.Softmax) -> Value:
    return softmax(to, node, module.dim)


def softmax(to: Conversion, node: fx.Node, axis: int | None) -> Value:
    state = to.state(node)
    if axis not in (-1, len(state.shape) - 1):
        raise InputError(f"softmax {node.name!r} must be over the last axis, not over {axis}")
    layer = Softmax(node.name, (state.node,), exponential_table())
    name = to.builder.append(layer)
    return Value(name, float64(2.0**-PROBABILITY_BITS), float64(0.0), state.shape)


def _looked_up_layer(to: Conversion, node: fx.Node, module: nn.Module) -> Value:
    return looked_up(to, node, type(module).__name__, module)


def looked_up(
    to: Conversion, node: fx.Node, name: str, function: Callable[[Tensor], Tensor]
) -> Value:
    """A function of one number, tabulated in float64 for every state."""
    patterns = torch.arange(1 << STATE_BITS)
    states = torch.where(patterns > STATE_RANGE[1], patterns - (1 << STATE_BITS), patterns)
    with torch.no_grad():
        real = function(states.to(torch.float64) * STATE_SCALE)
    table = torch.round(real / STATE_SCALE).clamp(*STATE_RANGE).to(torch.int64)
    state = to.builder.state(to.raw(node))
    lookup = Lookup(node.name, (state.node,), name, table)
    return to.builder.append_state(lookup, state.shape)


MODULES: dict[type[nn.Module], Callable[..., Value]] = {
    ApproxConv2d: _convolution,
    ApproxConv1d: _convolution_1d,
    ApproxLinear: _linear,
    ApproxMatmul: _matmul,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _global_average_pool,
    nn.ReLU: rectified,
    nn.ReLU6: _clipped,
    nn.GELU: _looked_up_layer,
    nn.SiLU: _looked_up_layer,
    nn.Hardswish: _looked_up_layer,
    nn.Sigmoid: _looked_up_layer,
    nn.Tanh: _looked_up_layer,
    nn.LeakyReLU: _looked_up_layer,
    nn.Softmax: _softmax_layer,
    nn.Identity: unchanged,
    nn.Dropout: unchanged,
    nn.Flatten: unchanged,
    nn.Unflatten: unchanged,
}
