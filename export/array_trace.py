"""Golden traces of a network's layers for the systolic array, and what plays them in simulators.

A trace holds what is loaded, what is streamed and what must come out. It is cut from the integer
network's own trace, whose accumulators are those of the ONNX model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hw.array import (
    ArrayDescription,
    ArrayMultiplier,
    ArraySchedule,
    LayerShape,
    Pass,
    array_verilog,
)
from hw.errors import InputError, unknown_name
from lut import LUT

from .array_bench import COCOTB_TEST, VERILATOR_RUN, verilog_bench
from .integer import Convolution, IntegerNetwork
from .operands import activation_patterns

__all__ = [
    "ArrayTrace",
    "array_files",
    "array_multiplier",
    "layer_trace",
    "network_array",
    "trace_files",
]

Bits = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ArrayTrace:
    """One layer's run through an array, all arrays int64 bit patterns unless said otherwise.

    weights: (passes, rows, columns); active: likewise, 0 or 1. activations: (group tiles · fan-in
    tiles, positions, rows), as passes of different outputs stream the same. accumulators: the
    integers (group tiles · output tiles, positions, columns) after each last pass; columns that
    are not used give 0. select: the value of the array's select input.
    """

    layer: str
    multiplier: str
    array: ArrayDescription
    schedule: ArraySchedule
    select: int
    weights: Bits
    active: Bits
    activations: Bits
    accumulators: Bits


def array_multiplier(lut: LUT) -> ArrayMultiplier:
    """The multiplier of a table as an array sees it: signed where one of its operands is.

    Raises InputError where a product does not fit the bits of both operands together.
    """
    signed = lut.a_signed or lut.b_signed
    multiplier = ArrayMultiplier(lut.name, lut.a_width, lut.b_width, signed)
    limit = 1 << (multiplier.p_width - int(signed))
    low = -limit if signed else 0
    if lut.table.min() < low or lut.table.max() >= limit:
        raise InputError(
            f"products of {lut.name} must be {low} to {limit - 1} for {multiplier.p_width} bits, "
            f"not {lut.table.min()} to {lut.table.max()}"
        )
    return multiplier


def network_array(
    network: IntegerNetwork, rows: int, columns: int, *, accumulator_width: int = 32
) -> ArrayDescription:
    """An array that switches between all the multipliers of a network, in order of first use."""
    multipliers = [array_multiplier(lut) for lut in network.luts]
    return ArrayDescription.uniform(rows, columns, multipliers, accumulator_width=accumulator_width)


def layer_trace(
    network: IntegerNetwork,
    layer: str,
    images: Tensor,
    array: ArrayDescription,
    positions: int | None = None,
) -> ArrayTrace:
    """The trace of a layer for the first `positions` output positions of uint8 `images`.

    Positions count through images, then rows, then columns of the output. Raises InputError for an
    unknown layer, a multiplier the array lacks, and a fan-in whose sums might overflow.
    """
    node = _layer(network, layer)
    _check_fan_in(node, array)
    return _node_trace(node, network.trace(images), array, positions)


def _check_fan_in(node: Convolution, array: ArrayDescription) -> None:
    fan_in, largest = node.weight[0].numel(), array.largest_fan_in(node.lut.name)
    if fan_in > largest:
        raise InputError(
            f"fan-in of layer {node.layer!r} must be at most {largest} for accumulators of "
            f"{array.accumulator_width} bits, not {fan_in}"
        )


def _node_trace(
    node: Convolution, values: Mapping[str, Tensor], array: ArrayDescription, positions: int | None
) -> ArrayTrace:
    """The trace of a layer, given the integers of every node."""
    usable = array.columns_with(node.lut.name)
    operands = activation_patterns(node, values[node.inputs[0]])[:, :positions]
    sums = values[node.name].permute(1, 0, 2, 3).flatten(1).numpy()[:, :positions]
    shape = LayerShape.convolution(node.weight.shape, node.geometry.groups, operands.shape[1])
    schedule = ArraySchedule(array.rows, len(usable), shape, array.latency)
    passes = list(schedule.passes())
    weights, active = _weights(node, passes, array, usable)
    streamed = [part for part in passes if part.outputs.start == 0]
    return ArrayTrace(
        node.layer,
        node.lut.name,
        array,
        schedule,
        array.select_value(node.lut.name),
        weights,
        active,
        np.stack([_streamed(part, operands, array, shape) for part in streamed])
        & ((1 << array.a_width) - 1),
        np.stack([_results(part, sums, array, usable, shape) for part in passes if part.last]),
    )


def _layer(network: IntegerNetwork, layer: str) -> Convolution:
    by_name = {node.layer: node for node in network.convolutions}
    if layer not in by_name:
        raise unknown_name("layer", layer, by_name)
    return by_name[layer]


def _weights(
    node: Convolution, passes: Sequence[Pass], array: ArrayDescription, usable: Sequence[int]
) -> tuple[Bits, Bits]:
    """Weights and active bits (passes, rows, columns)."""
    per_group = len(node.weight) // node.geometry.groups
    mask = (1 << array.b_width) - 1
    kernels = node.weight.flatten(1).numpy().astype(np.int64) & mask
    weights = np.zeros((len(passes), array.rows, array.columns), np.int64)
    active = np.zeros_like(weights)
    for index, part in enumerate(passes):
        for row, (group, operand) in enumerate(part.operands()):
            for column, (other, output) in enumerate(part.results()):
                if group == other:
                    place = index, row, usable[column]
                    weights[place] = kernels[group * per_group + output, operand]
                    active[place] = 1
    return weights, active


def _streamed(part: Pass, operands: Bits, array: ArrayDescription, shape: LayerShape) -> Bits:
    """Activations (positions, rows) of a pass; rows that are not used get zeros."""
    streamed = np.zeros((shape.positions, array.rows), np.int64)
    for row, (group, operand) in enumerate(part.operands()):
        streamed[:, row] = operands[group * shape.fan_in + operand]
    return streamed


def _results(
    part: Pass, sums: Bits, array: ArrayDescription, usable: Sequence[int], shape: LayerShape
) -> Bits:
    """Accumulators (positions, columns) of the outputs of a last pass."""
    results = np.zeros((shape.positions, array.columns), np.int64)
    for column, (group, output) in enumerate(part.results()):
        results[:, usable[column]] = sums[group * shape.outputs + output]
    return results


def trace_files(trace: ArrayTrace) -> dict[str, str]:
    """The trace and its self-checking Verilog bench: path under rtl/ → text.

    The bench is ``tb/cosearch_array_<layer>.v``. In ``tb/array/<layer>/``: ``weights.hex``, a line
    for each row of each pass, the active bits above the weights; ``activations.hex``, one for each
    streamed position; ``accumulators.hex``, one for each position of each tile of outputs (field 0
    in the lowest digits); ``trace.json``, what the cocotb test reads.
    """
    array, layer = trace.array, plain_name(trace.layer)
    folder, bench = f"tb/array/{layer}", f"cosearch_array_{layer}"
    rows = np.concatenate([trace.weights, trace.active], axis=2).reshape(-1, 2 * array.columns)
    widths = [array.b_width] * array.columns + [1] * array.columns
    sums = trace.accumulators.reshape(-1, array.columns) & ((1 << array.accumulator_width) - 1)
    parameters = _parameters(trace)
    return {
        f"{folder}/weights.hex": _hex_lines(rows, widths),
        f"{folder}/activations.hex": _hex_lines(
            trace.activations.reshape(-1, array.rows), [array.a_width] * array.rows
        ),
        f"{folder}/accumulators.hex": _hex_lines(sums, [array.accumulator_width] * array.columns),
        f"{folder}/trace.json": json.dumps(parameters, indent=1) + "\n",
        f"tb/{bench}.v": verilog_bench(bench, f"array/{layer}", parameters),
    }


def array_files(
    network: IntegerNetwork,
    images: Tensor,
    *,
    rows: int = 8,
    columns: int = 8,
    layers: Sequence[str] | None = None,
    positions: int = 256,
) -> dict[str, str]:
    """The array of a network, golden traces of layers through it, benches: path under rtl/ → text.

    `layers`: those given, otherwise for each multiplier the layer of fewest multiplications that
    uses it, of several positions an image where there is one.
    """
    array = network_array(network, rows, columns)
    chosen = layers if layers is not None else _smallest_layers(network)
    nodes = [_layer(network, layer) for layer in chosen]
    for node in nodes:
        _check_fan_in(node, array)
    values = network.trace(images[: _images_needed(nodes, positions)])
    files = array_verilog(array)
    for node in nodes:
        layer, found = node.layer, trace_files(_node_trace(node, values, array, positions))
        if not files.keys().isdisjoint(found):
            raise InputError(
                f"layers must have distinct plain names, not {plain_name(layer)!r} twice"
            )
        files |= found
    return {
        **files,
        "tb/array/test_systolic_array.py": COCOTB_TEST,
        "tb/array/run_verilator.py": VERILATOR_RUN,
    }


def _smallest_layers(network: IntegerNetwork) -> list[str]:
    smallest: dict[str, Convolution] = {}
    for node in network.convolutions:
        best = smallest.setdefault(node.lut.digest, node)
        smallest[node.lut.digest] = min(best, node, key=lambda n: (n.output_size == (1, 1), n.macs))
    return [node.layer for node in smallest.values()]


def _images_needed(nodes: Sequence[Convolution], positions: int) -> int:
    """How many images have that many positions in each of the layers."""
    return max(-(-positions // (node.output_size[0] * node.output_size[1])) for node in nodes)


def plain_name(layer: str) -> str:
    """A layer's path in letters, digits and underscores."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in layer)


def _parameters(trace: ArrayTrace) -> dict[str, str | int]:
    array, schedule = trace.array, trace.schedule
    return {
        "layer": trace.layer,
        "multiplier": trace.multiplier,
        "rows": array.rows,
        "columns": array.columns,
        "a_width": array.a_width,
        "b_width": array.b_width,
        "accumulator_width": array.accumulator_width,
        "select_width": array.select_width,
        "select": trace.select,
        "group_tiles": schedule.group_tiles,
        "output_tiles": schedule.output_tiles,
        "fan_in_tiles": schedule.fan_in_tiles,
        "positions": schedule.layer.positions,
        "period": schedule.period,
        "reentry_period": schedule.reentry_period,
        "latency": array.latency,
        "clocks": schedule.clocks,
    }


def _hex_lines(values: Bits, widths: Sequence[int]) -> str:
    """Each row of ``values`` as one hexadecimal number, the first field in its lowest bits."""
    digits = -(-sum(widths) // 4)
    shifts = np.cumsum([0, *widths[:-1]]).tolist()
    lines = [
        f"{sum(value << shift for value, shift in zip(row, shifts, strict=True)):0{digits}x}\n"
        for row in values.tolist()
    ]
    return "".join(lines)
