"""How often the nets and gates of a netlist are in which state, exactly, over all operands.

Successive operands are independent draws, and nothing moves but from one settled state to the next
(zero delay): a net that is one with probability p toggles 2p(1 - p) times per operation, and a gate
goes from input state m to m' with probability P(m)·P(m').
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .netlist import FALSE, TRUE, Netlist, Port
from .simulation import all_nets, unpacked

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Activity:
    """Probabilities of each gate's input states (bit i of a state: input pin i), and of nets."""

    gate_states: tuple[Array, ...]
    net_ones: dict[int, float]
    name: str

    def toggles(self, net: int) -> float:
        """Expected edges of a net per operation."""
        p = self.net_ones[net]
        return 2 * p * (1 - p)


def operand_activity(
    netlist: Netlist, probabilities: Sequence[npt.ArrayLike | None] | None = None
) -> Activity:
    """The activity for operands drawn independently, one histogram an input port by bit pattern.

    None stands for uniform operands. Histograms need not be normalised.
    """
    given = probabilities or [None] * len(netlist.inputs)
    weights = _weights(netlist.inputs, given)
    bits = {net: unpacked(words)[: weights.size] for net, words in all_nets(netlist).items()}
    states = tuple(_state_probabilities(bits, gate.inputs, weights) for gate in netlist.gates)
    ones = {FALSE: 0.0, TRUE: 1.0}
    for gate, probability in zip(netlist.gates, states, strict=True):
        for net, table in zip(gate.outputs, netlist.kinds[gate.kind].tables, strict=True):
            high = [state for state in range(probability.size) if table >> state & 1]
            ones[net] = float(probability[high].sum())
    for port in netlist.inputs:
        for net in port.nets:
            ones[net] = float(weights[bits[net] != 0].sum())
    uniform = all(histogram is None for histogram in given)
    name = "uniform operands" if uniform else "given operand histograms"
    return Activity(states, ones, f"{name}, successive pairs independent, zero delay")


def _state_probabilities(
    bits: dict[int, npt.NDArray[np.uint8]], inputs: tuple[int, ...], weights: Array
) -> Array:
    state = np.zeros(weights.size, np.uint8)
    for position, net in enumerate(inputs):
        state |= bits[net] << np.uint8(position)
    return np.bincount(state, weights, minlength=1 << len(inputs)).astype(np.float64)


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
