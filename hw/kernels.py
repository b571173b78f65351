"""The loops that numpy has no words for, compiled by numba; imported only when they are needed.

Numba keeps the compiled code beside this file, or in the user's cache folder.
"""

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


def flip_counts(state: Bytes, width: int, size: int) -> Array:
    """How often flipping any one of ``width`` bits of a pattern takes a gate from state to state.

    ``state`` by pattern, 2**width of them; the result is of shape (size, size), old by new.
    """
    counts: Array = _flip_counts(state, width, size).astype(np.float64)
    return counts


def weight_of_states(state: Bytes, weights: Array, size: int) -> Array:
    """The weight of every state, over patterns with their weights."""
    sums: Array = _weight_of_states(state, weights, size)
    return sums


def change_counts(state: Bytes, size: int) -> Array:
    """How often a gate goes from state to state in a sequence, shape (size, size), old by new."""
    counts: Array = _change_counts(state, size).astype(np.float64)
    return counts


@numba.njit(cache=True)
def _weight_of_states(state: Bytes, weights: Array, size: int) -> Array:
    sums: Array = np.zeros((4, size))  # four, so that one addition need not wait for the one before
    whole = state.size // 4 * 4
    for start in range(0, whole, 4):
        for lane in range(4):
            sums[lane, state[start + lane]] += weights[start + lane]
    for last in range(whole, state.size):
        sums[0, state[last]] += weights[last]
    total: Array = sums.sum(axis=0)
    return total


@numba.njit(cache=True)
def _change_counts(state: Bytes, size: int) -> Integers:
    counts = np.zeros((2, size, size), np.int64)
    for step in range(1, state.size):
        counts[step & 1, state[step - 1], state[step]] += 1
    total: Integers = counts.sum(axis=0)
    return total


@numba.njit(cache=True)
def _flip_counts(state: Bytes, width: int, size: int) -> Integers:
    counts = np.zeros((size, size), np.int64)
    for bit in range(width):
        step = 1 << bit
        for start in range(0, 1 << width, 2 * step):
            for low in range(start, start + step):
                counts[state[low], state[low + step]] += 1
    return counts + counts.T


@numba.njit(cache=True)
def run_waveforms(
    stimuli: Bytes,
    settled: Bytes,
    input_nets: Integers,
    pins: Integers,
    first_pin: Integers,
    outputs: Integers,
    first_output: Integers,
    tables: Bytes,
    delays: Array,
    first_count: Integers,
    capacity: int,
) -> tuple[Integers, Integers, Integers, int]:
    """Every edge of every net after every operand pattern but the first.

    ``stimuli`` (patterns, input nets) and ``settled`` (patterns, nets) are bits; pins and outputs
    of gate g lie from ``first_pin[g]`` and ``first_output[g]`` on. ``tables`` (outputs, states),
    ``delays`` in ps (outputs, pins, edge: fall, rise). Returned are toggles by net, changes of the
    inputs and changes that made an edge, each at ``first_count`` (+ output · states²), and the
    most edges that a net had at once, which is more than ``capacity`` where the run was given up.
    """
    nets = settled.shape[1]
    times = np.zeros((nets, capacity))
    codes = np.zeros((nets, capacity), np.int64)
    edges = np.zeros(nets, np.int64)
    toggles = np.zeros(nets, np.int64)
    input_changes = np.zeros(first_count[-1], np.int64)
    output_changes = np.zeros(first_count[-1], np.int64)
    cursor = np.zeros(16, np.int64)
    most = 0
    for step in range(1, stimuli.shape[0]):
        edges[:] = 0
        for index in range(input_nets.size):
            if stimuli[step, index] != stimuli[step - 1, index]:
                edges[input_nets[index]] = 1
                times[input_nets[index], 0] = 0.0
                toggles[input_nets[index]] += 1
        for gate in range(first_pin.size - 1):
            base, count = first_pin[gate], first_pin[gate + 1] - first_pin[gate]
            moves = 0
            state = 0
            for pin in range(count):
                net = pins[base + pin]
                cursor[pin] = 0
                moves += edges[net]
                state |= int(settled[step - 1, net]) << pin
            if moves == 0:
                continue
            states = 1 << count
            while True:
                now = np.inf
                for pin in range(count):
                    net = pins[base + pin]
                    if cursor[pin] < edges[net] and times[net, cursor[pin]] < now:
                        now = times[net, cursor[pin]]
                if now == np.inf:
                    break
                changed = 0
                for pin in range(count):
                    net = pins[base + pin]
                    if cursor[pin] < edges[net] and times[net, cursor[pin]] == now:
                        cursor[pin] += 1
                        changed |= 1 << pin
                new = state ^ changed
                input_changes[first_count[gate] + state * states + new] += 1
                for output in range(first_output[gate], first_output[gate + 1]):
                    value = tables[output, new]
                    if tables[output, state] == value:
                        continue
                    net = outputs[output]
                    if edges[net] > 0 and times[net, edges[net] - 1] > now:
                        edges[net] -= 1  # the pulse is shorter than the delay: swallowed
                        continue
                    delay = 0.0
                    for pin in range(count):
                        if changed >> pin & 1:
                            delay = max(delay, delays[output, pin, value])
                    if edges[net] == capacity:
                        return toggles, input_changes, output_changes, capacity + 1
                    times[net, edges[net]] = now + delay
                    codes[net, edges[net]] = state * states + new
                    edges[net] += 1
                    most = max(most, int(edges[net]))
                state = new
            for output in range(first_output[gate], first_output[gate + 1]):
                net = outputs[output]
                toggles[net] += edges[net]
                start = first_count[gate] + (output - first_output[gate]) * states * states
                for edge in range(edges[net]):
                    output_changes[start + codes[net, edge]] += 1
    return toggles, input_changes, output_changes, most
