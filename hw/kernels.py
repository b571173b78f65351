"""The loops that numpy has no words for, compiled by numba; imported only when they are needed.

Numba keeps the compiled code beside this file, or in the user's cache folder, where it can.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., object])
MOST_PINS = 8
"""Input pins of a gate, at most: those that the Liberty reader lets through."""


def inlined(function: Function) -> Function:
    """Compiled into each of its callers."""
    return cast(Function, numba.njit(inline="always")(function))


def compiled(function: Function) -> Function:
    """Compiled by numba, which keeps the code where it may write; else anew in every process."""
    try:
        return cast(Function, numba.njit(cache=True)(function))
    except RuntimeError:  # numba found no folder that it may write to
        return cast(Function, numba.njit(function))


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


@compiled
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


@compiled
def _change_counts(state: Bytes, size: int) -> Integers:
    counts = np.zeros((2, size, size), np.int64)
    for step in range(1, state.size):
        counts[step & 1, state[step - 1], state[step]] += 1
    total: Integers = counts.sum(axis=0)
    return total


@compiled
def _flip_counts(state: Bytes, width: int, size: int) -> Integers:
    counts = np.zeros((size, size), np.int64)
    for bit in range(width):
        step = 1 << bit
        for start in range(0, 1 << width, 2 * step):
            for low in range(start, start + step):
                counts[state[low], state[low + step]] += 1
    return counts + counts.T


@compiled
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
    cursor = np.zeros(MOST_PINS, np.int64)
    most = 0
    for step in range(1, stimuli.shape[0]):
        edges[:] = 0
        for index in range(input_nets.size):
            if stimuli[step, index] != stimuli[step - 1, index]:
                edges[input_nets[index]] = 1
                times[input_nets[index], 0] = 0.0
        for gate in range(first_pin.size - 1):
            pin, pin_end = first_pin[gate], first_pin[gate + 1]
            if _moves(pins, pin, pin_end, edges) == 0:
                continue
            size = pin_end - pin
            first, last = first_output[gate], first_output[gate + 1]
            state = _state(settled, step - 1, pins, pin, pin_end)
            cursor[:] = 0
            while True:
                now = _earliest(times, edges, pins, pin, pin_end, cursor)
                if now == np.inf:
                    break
                changed = _taken(times, edges, pins, pin, pin_end, cursor, now)
                new = state ^ changed
                code = (state << size) + new
                input_changes[first_count[gate] + code] += 1
                for output in range(first, last):
                    value = tables[output, new]
                    if tables[output, state] != value:
                        net = outputs[output]
                        delay = _delay(delays, output, value, changed, size)
                        _schedule(times, codes, edges, net, now, delay, code)
                        if edges[net] > capacity:
                            return toggles, input_changes, output_changes, capacity + 1
                        most = max(most, int(edges[net]))
                state = new
            for output in range(first, last):
                net = outputs[output]
                start = first_count[gate] + ((output - first) << 2 * size)
                for edge in range(edges[net]):
                    output_changes[start + codes[net, edge]] += 1
        toggles += edges
    return toggles, input_changes, output_changes, most


@inlined
def _moves(pins: Integers, first: int, end: int, edges: Integers) -> int:
    """How many edges the inputs of a gate have."""
    total = 0
    for pin in range(first, end):
        total += int(edges[pins[pin]])
    return total


@inlined
def _state(settled: Bytes, pattern: int, pins: Integers, first: int, end: int) -> int:
    """The input state of a gate before anything moves."""
    state = 0
    for pin in range(first, end):
        state |= int(settled[pattern, pins[pin]]) << (pin - first)
    return state


@inlined
def _earliest(
    times: Array, edges: Integers, pins: Integers, first: int, end: int, cursor: Integers
) -> float:
    """When the next edge of an input comes; infinity where there is none."""
    now = np.inf
    for pin in range(first, end):
        at = cursor[pin - first]
        if at < edges[pins[pin]]:
            now = min(now, times[pins[pin], at])
    return now


@inlined
def _taken(
    times: Array,
    edges: Integers,
    pins: Integers,
    first: int,
    end: int,
    cursor: Integers,
    now: float,
) -> int:
    """The pins that have an edge now, as bits; their cursors move on."""
    changed = 0
    for pin in range(first, end):
        at = cursor[pin - first]
        if at < edges[pins[pin]] and times[pins[pin], at] == now:
            cursor[pin - first] += 1
            changed |= 1 << (pin - first)
    return changed


@inlined
def _delay(delays: Array, output: int, value: int, changed: int, size: int) -> float:
    """The longest delay to an edge of the output from the pins that moved."""
    longest = 0.0
    for pin in range(size):
        if changed >> pin & 1:
            longest = max(longest, delays[output, pin, value])
    return longest


@inlined
def _schedule(
    times: Array,
    codes: Integers,
    edges: Integers,
    net: int,
    now: float,
    delay: float,
    code: int,
) -> None:
    """An edge of the net; or none and one less, where the last has not happened yet.

    Beyond the room there is, it is only counted.
    """
    count = edges[net]
    if count > 0 and times[net, count - 1] > now:
        edges[net] = count - 1
        return
    if count < times.shape[1]:
        times[net, count] = now + delay
        codes[net, count] = code
    edges[net] = count + 1
