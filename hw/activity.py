"""How often the nets and gates of a netlist are in which state, and how often they change it.

Three models, always named: what one flipped input bit moves (comparable with published power), a
workload at zero delay, and a workload with real delays, glitches included (``waveforms.py``). At
zero delay nothing moves but from one settled state to the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .netlist import FALSE, TRUE, Netlist, Port
from .simulation import Words, all_nets, simulate, unpacked

Array = npt.NDArray[np.float64]
Bits = Mapping[int, npt.NDArray[np.uint8]]

EnergyModel = Literal["published-comparable", "workload zero-delay", "workload real-delay"]
ENERGY_MODELS: tuple[EnergyModel, ...] = get_args(EnergyModel)

STREAM_LENGTH = 65_536
"""Operand pairs drawn from histograms where a stream is needed."""


@dataclass(frozen=True)
class GateActivity:
    """One gate. States are numbered by their input bits: bit i, input pin i.

    ``states`` are probabilities, shape (2**inputs,). The others are expected changes per operation,
    by old (row) and new state (column): of the inputs, and those that made an edge of each output.
    """

    states: Array
    changes: Array
    output_changes: tuple[Array, ...]


@dataclass(frozen=True)
class Activity:
    """Of every gate, in the netlist's order, and the expected edges of every net per operation."""

    gates: tuple[GateActivity, ...]
    net_toggles: Mapping[int, float]
    model: EnergyModel
    name: str

    def toggles(self, net: int) -> float:
        """Expected edges of a net per operation."""
        return self.net_toggles[net]

    def scaled(self, factor: float, name: str) -> "Activity":
        """So many times as many changes; the states' probabilities stay."""
        gates = tuple(
            GateActivity(
                gate.states,
                gate.changes * factor,
                tuple(changes * factor for changes in gate.output_changes),
            )
            for gate in self.gates
        )
        toggles = {net: edges * factor for net, edges in self.net_toggles.items()}
        return Activity(gates, toggles, self.model, name)


def operand_activity(
    netlist: Netlist, probabilities: Sequence[npt.ArrayLike | None] | None = None
) -> Activity:
    """The activity for operands drawn independently, one histogram an input port by bit pattern.

    None stands for uniform operands. Histograms need not be normalised. Exact: a net that is one
    with probability p toggles 2p(1 - p) times per operation, and a gate goes from state m to m'
    with probability P(m)·P(m').
    """
    given = probabilities or [None] * len(netlist.inputs)
    weights = _weights(netlist.inputs, given)
    bits = {net: unpacked(words)[: weights.size] for net, words in all_nets(netlist).items()}
    states = [
        _histogram(_states(bits, gate.inputs), len(gate.inputs), weights) for gate in netlist.gates
    ]
    ones = {FALSE: 0.0, TRUE: 1.0}
    for gate, probability in zip(netlist.gates, states, strict=True):
        for net, table in zip(gate.outputs, netlist.kinds[gate.kind].tables, strict=True):
            high = [state for state in range(probability.size) if table >> state & 1]
            ones[net] = float(probability[high].sum())
    for net in _input_nets(netlist):
        ones[net] = float(weights[bits[net] != 0].sum())
    uniform = all(histogram is None for histogram in given)
    name = "uniform operands" if uniform else "given operand histograms"
    return Activity(
        tuple(
            _settled(probability, np.outer(probability, probability), len(gate.outputs))
            for gate, probability in zip(netlist.gates, states, strict=True)
        ),
        {net: 2 * p * (1 - p) for net, p in ones.items()},
        "workload zero-delay",
        f"{name}, successive pairs independent, zero delay",
    )


def stream_activity(netlist: Netlist, stream: npt.ArrayLike) -> Activity:
    """The activity of operands that come one after another, at zero delay.

    ``stream``: integers, shape (length, input ports), bit patterns or two's-complement values.
    """
    from .kernels import change_counts

    patterns = stream_patterns(netlist, stream)
    bits = stream_bits(netlist, patterns)
    steps = len(patterns) - 1
    gates = []
    for gate in netlist.gates:
        size = len(gate.inputs)
        state = _states(bits, gate.inputs)
        changes = change_counts(state, 1 << size) / steps
        gates.append(_settled(_histogram(state, size), changes, len(gate.outputs)))
    toggles = {
        net: float(np.count_nonzero(values[1:] != values[:-1])) / steps
        for net, values in bits.items()
    }
    name = f"recorded stream of {len(patterns)} operand pairs, zero delay"
    return Activity(tuple(gates), toggles, "workload zero-delay", name)


def flip_activity(netlist: Netlist) -> Activity:
    """The activity of flipping one input bit, at zero delay: the mean over all states and bits."""
    from .kernels import flip_counts

    width = sum(port.width for port in netlist.inputs)
    bits = {net: unpacked(words)[: 1 << width] for net, words in all_nets(netlist).items()}
    flips = width << width
    gates = []
    for gate in netlist.gates:
        size = len(gate.inputs)
        state = _states(bits, gate.inputs)
        counts = flip_counts(state, width, 1 << size)
        gates.append(_settled(_histogram(state, size), counts / flips, len(gate.outputs)))
    toggles = {FALSE: 0.0, TRUE: 0.0} | dict.fromkeys(_input_nets(netlist), 1 / width)
    for index, gate in enumerate(netlist.gates):
        tables = netlist.kinds[gate.kind].tables
        for net, table in zip(gate.outputs, tables, strict=True):
            toggles[net] = _edges(gates[index].changes, table)
    name = "one input bit flipped, mean over all states and bits, zero delay"
    return Activity(tuple(gates), toggles, "published-comparable", name)


def operand_stream(
    netlist: Netlist,
    probabilities: Sequence[npt.ArrayLike | None] | None = None,
    *,
    length: int = STREAM_LENGTH,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Operands drawn independently from histograms by bit pattern, shape (length, input ports)."""
    given = probabilities or [None] * len(netlist.inputs)
    generator = np.random.default_rng(seed)
    columns = []
    for port, histogram in zip(netlist.inputs, given, strict=True):
        if histogram is None:
            columns.append(generator.integers(0, 1 << port.width, length))
        else:
            size = 1 << port.width
            columns.append(generator.choice(size, length, p=_normalised(port, histogram)))
    return np.stack(columns, axis=1)


def stream_patterns(netlist: Netlist, stream: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The stream as bit patterns, after checking its shape and range."""
    given = np.asarray(stream)
    if given.ndim != 2 or given.shape[1] != len(netlist.inputs) or len(given) < 2:
        raise InputError(
            f"stream of operands must be of shape (at least 2, {len(netlist.inputs)}), "
            f"not {given.shape}"
        )
    if not np.issubdtype(given.dtype, np.integer):
        raise InputError(f"stream of operands must be of integers, not {given.dtype}")
    patterns = given.astype(np.int64)
    for column, port in zip(patterns.T, netlist.inputs, strict=True):
        low, high = -(1 << port.width - 1), (1 << port.width) - 1
        if column.min() < low or column.max() > high:
            wrong = column[(column < low) | (column > high)][0]
            raise InputError(
                f"operands {port.name!r} of a stream must be {low} to {high}, not {wrong}"
            )
    widths = np.array([port.width for port in netlist.inputs])
    return patterns & ((1 << widths) - 1)


def stream_bits(
    netlist: Netlist, patterns: npt.NDArray[np.int64]
) -> dict[int, npt.NDArray[np.uint8]]:
    """The settled bit of every net for every operand pattern of a stream."""
    stimuli: dict[int, Words] = {}
    for port, column in zip(netlist.inputs, patterns.T, strict=True):
        for bit, net in enumerate(port.nets):
            stimuli[net] = _packed((column >> bit & 1).astype(np.uint8))
    nets = simulate(netlist, stimuli)
    return {net: unpacked(words)[: len(patterns)] for net, words in nets.items()}


def settled_states(netlist: Netlist, bits: Bits) -> list[Array]:
    """The probability of every state of every gate, over the patterns of the bits."""
    return [_histogram(_states(bits, gate.inputs), len(gate.inputs)) for gate in netlist.gates]


def _packed(bits: npt.NDArray[np.uint8]) -> Words:
    octets = np.packbits(bits, bitorder="little")
    return np.pad(octets, (0, -octets.size % 8)).view(np.uint64)


def _settled(states: Array, changes: Array, outputs: int) -> GateActivity:
    """At zero delay every change of the inputs is one of the outputs, if they differ."""
    return GateActivity(states, changes, (changes,) * outputs)


def _states(bits: Bits, inputs: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    state = bits[inputs[0]].copy()
    for position, net in enumerate(inputs[1:], 1):
        state |= bits[net] << np.uint8(position)
    return state


def _histogram(state: npt.NDArray[np.uint8], inputs: int, weights: Array | None = None) -> Array:
    from .kernels import weight_of_states

    if weights is None:
        return np.bincount(state, minlength=1 << inputs) / state.size
    return weight_of_states(state, weights, 1 << inputs)


def _edges(changes: Array, table: int) -> float:
    """How many of the changes of the inputs change an output of that truth table."""
    value = np.array([table >> state & 1 for state in range(len(changes))])
    return float(changes[value[:, None] != value[None, :]].sum())


def _input_nets(netlist: Netlist) -> list[int]:
    return [net for port in netlist.inputs for net in port.nets]


def _weights(ports: tuple[Port, ...], given: Sequence[npt.ArrayLike | None]) -> Array:
    """The probability of every pattern of the inputs, the first port in the high bits."""
    if len(given) != len(ports):
        raise InputError(f"operand histograms must be {len(ports)}, not {len(given)}")
    weights = np.ones(1)
    for port, histogram in zip(ports, given, strict=True):
        weights = np.outer(weights, _normalised(port, histogram)).ravel()
    return weights


def _normalised(port: Port, histogram: npt.ArrayLike | None) -> Array:
    size = 1 << port.width
    if histogram is None:
        return np.full(size, 1 / size)
    array = np.asarray(histogram, np.float64)
    if array.shape != (size,) or not np.isfinite(array).all() or (array < 0).any():
        raise InputError(
            f"histogram of operand {port.name!r} must be {size} numbers not below zero, "
            f"not an array of shape {array.shape}"
        )
    if array.sum() == 0:
        raise InputError(f"histogram of operand {port.name!r} must not be all zero")
    normalised: Array = array / array.sum()
    return normalised
