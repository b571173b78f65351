"""Static timing of a mapped netlist: when each net's edges arrive at the latest, and how steep.

Tables of delay and output slew by input slew and load, the worst of all arcs and states, edges kept
apart; the load of a net is the capacitance of the pins it drives. No wires.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .liberty import CellLibrary, Table, TimingArc
from .netlist import FALSE, TRUE, Gate, Netlist

INPUT_SLEW_PS = 40.0
"""Slew of the edges that arrive at the inputs, all at time zero."""
OUTPUT_LOAD_FF = 0.0
"""What an output port drives."""


@dataclass(frozen=True)
class Edges:
    """A figure of the rising and of the falling edge of a net."""

    rise: float
    fall: float

    @property
    def worst(self) -> float:
        return max(self.rise, self.fall)

    @property
    def mean(self) -> float:
        return (self.rise + self.fall) / 2


@dataclass(frozen=True)
class Timing:
    """By net: load in fF, arrival and slew in ps. Constants have no arrival."""

    loads_ff: Mapping[int, float]
    arrivals_ps: Mapping[int, Edges]
    slews_ps: Mapping[int, Edges]
    delay_ps: float
    """The latest edge at an output port."""


def static_timing(netlist: Netlist, library: CellLibrary) -> Timing:
    """The timing of a netlist made of the library's cells."""
    loads = net_loads(netlist, library)
    inputs = [net for port in netlist.inputs for net in port.nets]
    arrivals = dict.fromkeys(inputs, Edges(0.0, 0.0))
    slews = dict.fromkeys((FALSE, TRUE, *inputs), Edges(INPUT_SLEW_PS, INPUT_SLEW_PS))
    for gate in netlist.gates:
        cell = library.cells[gate.kind]
        for output, net in enumerate(gate.outputs):
            found = [
                _edges(
                    arc, arrivals[gate.inputs[arc.input]], slews[gate.inputs[arc.input]], loads[net]
                )
                for arc in cell.timing
                if arc.output == output and gate.inputs[arc.input] in arrivals
            ]
            slews[net] = slews[FALSE]
            if found:
                arrivals[net] = _latest([arrival for arrival, _ in found])
                slews[net] = _latest([slew for _, slew in found])
    outputs = [net for port in netlist.outputs for net in port.nets]
    delay = max((arrivals[net].worst for net in outputs if net in arrivals), default=0.0)
    return Timing(loads, arrivals, slews, delay)


def net_loads(netlist: Netlist, library: CellLibrary) -> dict[int, float]:
    """The capacitance in fF each net drives: input pins, and output ports."""
    loads = {net: 0.0 for port in netlist.inputs for net in port.nets}
    loads |= {FALSE: 0.0, TRUE: 0.0}
    loads |= {net: 0.0 for gate in netlist.gates for net in gate.outputs}
    for gate in netlist.gates:
        capacitances = library.cells[gate.kind].capacitances_ff
        for net, capacitance in zip(gate.inputs, capacitances, strict=True):
            loads[net] += capacitance
    for port in netlist.outputs:
        for net in port.nets:
            loads[net] += OUTPUT_LOAD_FF
    return loads


def arc_delays(gate: Gate, output: int, library: CellLibrary, timing: Timing) -> dict[int, Edges]:
    """By input pin: delays in ps to the output's edges, the mean over the arcs from that pin."""
    load = timing.loads_ff[gate.outputs[output]]
    found: dict[int, list[Edges]] = {}
    for arc in library.cells[gate.kind].timing:
        if arc.output == output:
            slew = timing.slews_ps[gate.inputs[arc.input]]
            edges, _ = _edges(arc, Edges(0.0, 0.0), slew, load)
            found.setdefault(arc.input, []).append(edges)
    return {pin: _mean(edges) for pin, edges in found.items()}


def _mean(edges: list[Edges]) -> Edges:
    count = len(edges)
    return Edges(sum(edge.rise for edge in edges) / count, sum(edge.fall for edge in edges) / count)


def _latest(edges: list[Edges]) -> Edges:
    return Edges(max(edge.rise for edge in edges), max(edge.fall for edge in edges))


def _edges(arc: TimingArc, arrival: Edges, slew: Edges, load: float) -> tuple[Edges, Edges]:
    """Arrival and slew of the output's edges by one arc."""
    rise, rise_slew = _edge(arc.delay_rise, arc.slew_rise, _causes(arc.sense, arrival, slew), load)
    causes = _causes(-arc.sense, arrival, slew)
    fall, fall_slew = _edge(arc.delay_fall, arc.slew_fall, causes, load)
    return Edges(rise, fall), Edges(rise_slew, fall_slew)


def _causes(sense: int, arrival: Edges, slew: Edges) -> list[tuple[float, float]]:
    """Arrival and slew of the input edges that can cause the output's edge of that sense."""
    rise, fall = (arrival.rise, slew.rise), (arrival.fall, slew.fall)
    return [rise] if sense > 0 else [fall] if sense < 0 else [rise, fall]


def _edge(
    delay: Table, slew: Table, causes: list[tuple[float, float]], load: float
) -> tuple[float, float]:
    return (
        max(arrival + delay.at(input_slew, load) for arrival, input_slew in causes),
        max(slew.at(input_slew, load) for _, input_slew in causes),
    )
