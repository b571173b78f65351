"""The activity of a mapped netlist with real delays: every edge of every net, glitches included.

Gate by gate in topological order, the edges of the inputs are merged in time and those of the
outputs follow after the delay of the library's arc from the pin that moved (the longest, where
several move at once), at the slews and loads of static timing. Delays are inertial: a pulse that
would be shorter than the gate's delay is swallowed, and both its edges with it. A new operand pair
comes when everything has settled.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .activity import (
    Activity,
    Array,
    GateActivity,
    settled_states,
    stream_bits,
    stream_patterns,
)
from .liberty import CellLibrary
from .netlist import Netlist
from .timing import Timing, arc_delays, static_timing

Integers = npt.NDArray[np.int64]
LEAST_DELAY_PS = 0.001
EDGES_AT_ONCE = 128
"""Room for the edges of a net in one operation; doubled where it does not suffice."""


def delayed_activity(
    netlist: Netlist, library: CellLibrary, stream: npt.ArrayLike, timing: Timing | None = None
) -> Activity:
    """The activity of operands that come one after another, with the library's delays.

    ``stream`` as for ``stream_activity``.
    """
    patterns = stream_patterns(netlist, stream)
    bits = stream_bits(netlist, patterns)
    layout = _layout(netlist, library, timing or static_timing(netlist, library))
    counts = _run(netlist, layout, bits, len(patterns))
    steps = len(patterns) - 1
    states = settled_states(netlist, bits)
    return Activity(
        tuple(_gate_activity(counts, layout, g, states[g], steps) for g in range(len(states))),
        {net: float(counts.toggles[net]) / steps for net in bits},
        "workload real-delay",
        f"recorded stream of {len(patterns)} operand pairs, delays of {library.name}",
    )


@dataclass(frozen=True)
class _Layout:
    """The netlist as flat arrays, for the compiled loop."""

    pins: Integers
    first_pin: Integers
    outputs: Integers
    first_output: Integers
    tables: npt.NDArray[np.uint8]
    delays: Array
    first_count: Integers


@dataclass(frozen=True)
class _Counts:
    toggles: Integers
    input_changes: Integers
    output_changes: Integers


def _layout(netlist: Netlist, library: CellLibrary, timing: Timing) -> _Layout:
    kinds = [netlist.kinds[gate.kind] for gate in netlist.gates]
    outputs = [net for gate in netlist.gates for net in gate.outputs]
    pins = max((len(kind.inputs) for kind in kinds), default=1)
    tables = np.zeros((len(outputs), 1 << pins), np.uint8)
    delays = np.full((len(outputs), pins, 2), LEAST_DELAY_PS)
    row = 0
    for gate, kind in zip(netlist.gates, kinds, strict=True):
        for output, table in enumerate(kind.tables):
            states = range(1 << len(kind.inputs))
            tables[row, : len(states)] = [table >> state & 1 for state in states]
            for pin, edges in arc_delays(gate, output, library, timing).items():
                delays[row, pin] = np.maximum((edges.fall, edges.rise), LEAST_DELAY_PS)
            row += 1
    return _Layout(
        np.array([net for gate in netlist.gates for net in gate.inputs], np.int64),
        _starts([len(kind.inputs) for kind in kinds]),
        np.array(outputs, np.int64),
        _starts([len(kind.outputs) for kind in kinds]),
        tables,
        delays,
        _starts([len(kind.outputs) << 2 * len(kind.inputs) for kind in kinds]),
    )


def _starts(sizes: list[int]) -> Integers:
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


def _run(
    netlist: Netlist, layout: _Layout, bits: dict[int, npt.NDArray[np.uint8]], patterns: int
) -> _Counts:
    from .kernels import run_waveforms

    nets = np.array([net for port in netlist.inputs for net in port.nets], np.int64)
    settled = np.zeros((patterns, netlist.net_count), np.uint8)
    for net, values in bits.items():
        settled[:, net] = values
    stimuli = np.ascontiguousarray(settled[:, nets])
    capacity = EDGES_AT_ONCE
    while True:
        *counts, most = run_waveforms(
            stimuli,
            settled,
            nets,
            layout.pins,
            layout.first_pin,
            layout.outputs,
            layout.first_output,
            layout.tables,
            layout.delays,
            layout.first_count,
            capacity,
        )
        if most <= capacity:
            return _Counts(*counts)
        capacity *= 2


def _gate_activity(
    counts: _Counts, layout: _Layout, gate: int, states: Array, steps: int
) -> GateActivity:
    size = states.size
    start, stop = layout.first_count[gate], layout.first_count[gate + 1]
    made = counts.output_changes[start:stop].reshape(-1, size, size) / steps
    moved = counts.input_changes[start : start + size * size].reshape(size, size) / steps
    return GateActivity(states, moved, tuple(made))
