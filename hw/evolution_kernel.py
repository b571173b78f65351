"""The inner loop of evolution, compiled by numba: mutate a genome, simulate it, keep or drop it.

Simulation is bit-parallel over all operand pairs in blocks of words; the error is computed on bit
planes too (a bit-sliced subtraction and population counts), and a candidate is dropped at the first
block that shows it to be out of bounds. Genomes: hw/evolution_genome.py.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

BUF, NOT, AND, OR, XOR, NAND, NOR, XNOR, ANDNOT, HALF_ADDER, FULL_ADDER = range(11)
FUNCTIONS = 11
BLOCK = 64
"""Words simulated at once: small enough for every net's words to stay in the cache."""

NO_BOUND = 1 << 62


def _population_count(typing_context: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), code


_ones: Any = intrinsic(_population_count)
"""The number of ones in a word, one machine instruction."""


@numba.njit(cache=True)
def evolve(
    functions: Integers,
    inputs: Integers,
    outputs: Integers,
    first_node_net: int,
    costs: Integers,
    stimuli: Words,
    exact: Words,
    weights: Words,
    zeros: Words,
    bounds: Integers,
    signed: bool,
    random: Words,
    offspring: int,
    mutations: int,
    generations: int,
) -> int:
    """Run so many generations on the genome in place; the cost it ends with.

    ``stimuli`` (input nets, words) and ``exact`` (product bits, words) are bit planes over the
    pairs, the words a multiple of ``BLOCK``; ``weights`` (bits, words) are the pairs' integer
    weights; ``zeros`` marks the pairs whose product must be zero. ``bounds``: weighted sum of
    errors, worst case, magnitude of the weighted sum. ``costs`` by function and by which outputs
    are used (1 first, 2 second, 3 both). Of equally good children the last one becomes the parent.
    """
    nodes = functions.shape[0]
    used = np.zeros(first_node_net + 2 * nodes, np.uint8)
    nets = np.zeros((first_node_net + 2 * nodes, BLOCK), np.uint64)
    nets[1, :] = ~np.uint64(0)
    best_functions, best_inputs, best_outputs = functions.copy(), inputs.copy(), outputs.copy()
    parent_functions, parent_inputs = functions.copy(), inputs.copy()
    parent_outputs = outputs.copy()
    cost = _cost(functions, inputs, outputs, first_node_net, costs, used)
    for _ in range(generations):
        found = -1
        for _ in range(offspring):
            functions[:] = parent_functions
            inputs[:] = parent_inputs
            outputs[:] = parent_outputs
            _mutate(functions, inputs, outputs, first_node_net, random, mutations)
            child = _cost(functions, inputs, outputs, first_node_net, costs, used)
            limit = cost if found < 0 else found
            if child > limit:
                continue
            same = child == cost and _same(
                functions, inputs, outputs, parent_functions, parent_inputs, parent_outputs,
                first_node_net, used,
            )  # fmt: skip
            if same or _within(
                functions, inputs, outputs, first_node_net, used, nets,
                stimuli, exact, weights, zeros, bounds, signed,
            ):  # fmt: skip
                found = child
                best_functions[:] = functions
                best_inputs[:] = inputs
                best_outputs[:] = outputs
        if found >= 0:
            cost = found
            parent_functions[:] = best_functions
            parent_inputs[:] = best_inputs
            parent_outputs[:] = best_outputs
    functions[:] = parent_functions
    inputs[:] = parent_inputs
    outputs[:] = parent_outputs
    return cost


@numba.njit(cache=True)
def _random_below(random: Words, limit: int) -> int:
    """A number 0 … limit - 1 (xorshift64*, the upper 32 bits scaled); advances the state."""
    state = random[0]
    state ^= state >> np.uint64(12)
    state ^= state << np.uint64(25)
    state ^= state >> np.uint64(27)
    random[0] = state
    upper = (state * np.uint64(2685821657736338717)) >> np.uint64(32)
    return int((upper * np.uint64(limit)) >> np.uint64(32))


@numba.njit(cache=True)
def _random_net(random: Words, first_node_net: int, node: int) -> int:
    """A constant, an operand bit, or either output of a node before ``node``."""
    return _random_below(random, first_node_net + 2 * node)


@numba.njit(cache=True)
def _mutate(
    functions: Integers,
    inputs: Integers,
    outputs: Integers,
    first_node_net: int,
    random: Words,
    mutations: int,
) -> None:
    """Change one to ``mutations`` genes: a function, an input of a node, or an output."""
    nodes = functions.shape[0]
    for _ in range(1 + _random_below(random, mutations)):
        gene = _random_below(random, 4 * nodes + outputs.shape[0])
        if gene >= 4 * nodes:
            outputs[gene - 4 * nodes] = _random_net(random, first_node_net, nodes)
        elif gene % 4 == 3:
            functions[gene // 4] = _random_below(random, FUNCTIONS)
        else:
            inputs[gene // 4, gene % 4] = _random_net(random, first_node_net, gene // 4)


@numba.njit(cache=True)
def _arity(function: int) -> int:
    return 1 if function <= NOT else 3 if function == FULL_ADDER else 2


@numba.njit(cache=True)
def _cost(
    functions: Integers,
    inputs: Integers,
    outputs: Integers,
    first_node_net: int,
    costs: Integers,
    used: npt.NDArray[np.uint8],
) -> int:
    """Mark the nets that reach an output; the sum of what their nodes cost."""
    used[:] = 0
    for net in outputs:
        used[net] = 1
    total = 0
    for node in range(functions.shape[0] - 1, -1, -1):
        first = first_node_net + 2 * node
        function = functions[node]
        if function < HALF_ADDER:
            used[first + 1] = 0
        if used[first] or used[first + 1]:
            total += int(costs[function, used[first] + 2 * used[first + 1]])
            for pin in range(_arity(function)):
                used[inputs[node, pin]] = 1
    return total


@numba.njit(cache=True)
def _same(
    functions: Integers,
    inputs: Integers,
    outputs: Integers,
    parent_functions: Integers,
    parent_inputs: Integers,
    parent_outputs: Integers,
    first_node_net: int,
    used: npt.NDArray[np.uint8],
) -> bool:
    """Whether the circuit is the parent's: only nodes that reach no output differ."""
    for bit in range(outputs.shape[0]):
        if outputs[bit] != parent_outputs[bit]:
            return False
    for node in range(functions.shape[0]):
        net = first_node_net + 2 * node
        if not (used[net] or used[net + 1]):
            continue
        if functions[node] != parent_functions[node]:
            return False
        for pin in range(_arity(functions[node])):
            if inputs[node, pin] != parent_inputs[node, pin]:
                return False
    return True


@numba.njit(cache=True)
def _within(
    functions: Integers,
    inputs: Integers,
    outputs: Integers,
    first_node_net: int,
    used: npt.NDArray[np.uint8],
    nets: Words,
    stimuli: Words,
    exact: Words,
    weights: Words,
    zeros: Words,
    bounds: Integers,
    signed: bool,
) -> bool:
    """Whether the genome's errors are in bounds; ``nets`` is scratch space."""
    blocks = stimuli.shape[1] // BLOCK
    planes = np.zeros((exact.shape[0] + 1, BLOCK), np.uint64)
    sources = np.zeros_like(outputs)
    for bit in range(outputs.shape[0]):
        sources[bit] = _source(functions, first_node_net, outputs[bit])
    error, bias = 0, 0
    for number in range(blocks):
        # From both ends in turn: small and large operands, so that a bad one shows early.
        half = number // 2
        start = BLOCK * (blocks - 1 - half if number % 2 == 0 else half)
        for net in range(stimuli.shape[0]):
            if used[2 + net]:
                for w in range(BLOCK):
                    nets[2 + net, w] = stimuli[net, start + w]
        _simulate(functions, inputs, first_node_net, used, nets)
        _subtract(sources, nets, exact, planes, start, signed)
        if _forbidden(sources, nets, planes, zeros, bounds[1], start):
            return False
        block_error, block_bias = _sums(planes, weights, start)
        error += block_error
        bias += block_bias
        if error > bounds[0]:
            return False
    return bool(abs(bias) <= bounds[2])


@numba.njit(cache=True)
def _source(functions: Integers, first_node_net: int, net: int) -> int:
    """The net itself, but the constant zero for the second output of a gate of one output."""
    node = net - first_node_net
    return 0 if node & 1 and node > 0 and functions[node >> 1] < HALF_ADDER else net


@numba.njit(cache=True)
def _simulate(
    functions: Integers,
    inputs: Integers,
    first_node_net: int,
    used: npt.NDArray[np.uint8],
    nets: Words,
) -> None:
    for node in range(functions.shape[0]):
        net = first_node_net + 2 * node
        function = functions[node]
        if not (used[net] or used[net + 1]):
            continue
        a = _source(functions, first_node_net, inputs[node, 0])
        b = _source(functions, first_node_net, inputs[node, 1])
        if function == FULL_ADDER:
            _full_adder(nets, a, b, _source(functions, first_node_net, inputs[node, 2]), net)
        elif function == HALF_ADDER:
            _gate(XOR, nets, a, b, net)
            _gate(AND, nets, a, b, net + 1)
        else:
            _gate(function, nets, a, b, net)


# Loops over a constant count and indices into one array: views of rows cost reference counts, and
# loops of unknown length are compiled several times as slow.


@numba.njit(cache=True)
def _full_adder(nets: Words, a: int, b: int, c: int, total: int) -> None:
    for w in range(BLOCK):
        half = nets[a, w] ^ nets[b, w]
        carry = (nets[a, w] & nets[b, w]) | (half & nets[c, w])
        nets[total, w] = half ^ nets[c, w]
        nets[total + 1, w] = carry


@numba.njit(cache=True)
def _gate(function: int, nets: Words, a: int, b: int, y: int) -> None:
    if function == AND:
        for w in range(BLOCK):
            nets[y, w] = nets[a, w] & nets[b, w]
    elif function == XOR:
        for w in range(BLOCK):
            nets[y, w] = nets[a, w] ^ nets[b, w]
    elif function == OR:
        for w in range(BLOCK):
            nets[y, w] = nets[a, w] | nets[b, w]
    elif function == NAND:
        for w in range(BLOCK):
            nets[y, w] = ~(nets[a, w] & nets[b, w])
    elif function == NOR:
        for w in range(BLOCK):
            nets[y, w] = ~(nets[a, w] | nets[b, w])
    elif function == XNOR:
        for w in range(BLOCK):
            nets[y, w] = ~(nets[a, w] ^ nets[b, w])
    elif function == ANDNOT:
        for w in range(BLOCK):
            nets[y, w] = nets[a, w] & ~nets[b, w]
    elif function == NOT:
        for w in range(BLOCK):
            nets[y, w] = ~nets[a, w]
    else:
        for w in range(BLOCK):
            nets[y, w] = nets[a, w]


@numba.njit(cache=True)
def _subtract(
    outputs: Integers,
    nets: Words,
    exact: Words,
    planes: Words,
    start: int,
    signed: bool,
) -> None:
    """Planes of product minus exact product; the last one is the difference's sign."""
    width = exact.shape[0]
    borrow = planes[width]
    borrow[:] = 0
    for bit in range(width):
        x, plane = nets[outputs[bit]], planes[bit]
        for w in range(BLOCK):
            y = exact[bit, start + w]
            plane[w] = x[w] ^ y ^ borrow[w]
            borrow[w] = (~x[w] & (y | borrow[w])) | (y & borrow[w])
    if signed:
        x = nets[outputs[width - 1]]
        for w in range(BLOCK):
            borrow[w] ^= x[w] ^ exact[width - 1, start + w]


@numba.njit(cache=True)
def _forbidden(
    outputs: Integers,
    nets: Words,
    planes: Words,
    zeros: Words,
    worst: int,
    start: int,
) -> bool:
    """Whether a product is not zero where it must be, or an error is above the worst allowed."""
    wrong = np.uint64(0)
    for bit in range(outputs.shape[0]):
        x = nets[outputs[bit]]
        for w in range(BLOCK):
            wrong |= x[w] & zeros[start + w]
    if wrong != 0:
        return True
    if worst >= NO_BOUND:
        return False
    width = planes.shape[0] - 1
    for w in range(BLOCK):
        above, equal, sign = np.uint64(0), ~np.uint64(0), planes[width, w]
        for bit in range(width - 1, -1, -1):
            magnitude = planes[bit, w] ^ sign  # |difference|, less one where negative
            if worst >> bit & 1:
                equal &= magnitude
            else:
                above |= equal & magnitude
                equal &= ~magnitude
        wrong |= above | (equal & sign)
    return bool(wrong != 0)


@numba.njit(cache=True)
def _sums(planes: Words, weights: Words, start: int) -> tuple[int, int]:
    """Weighted sums of the absolute and of the signed differences."""
    width = planes.shape[0] - 1
    sign = planes[width]
    error, bias = 0, 0
    for level in range(weights.shape[0]):
        weight = weights[level, start : start + BLOCK]
        negative = np.uint64(0)
        for w in range(BLOCK):
            negative += _ones(sign[w] & weight[w])
        level_error = int(negative)
        level_bias = -(int(negative) << width)
        for bit in range(width):
            plane = planes[bit]
            magnitude, ones = np.uint64(0), np.uint64(0)
            for w in range(BLOCK):
                magnitude += _ones((plane[w] ^ sign[w]) & weight[w])
                ones += _ones(plane[w] & weight[w])
            level_error += int(magnitude) << bit
            level_bias += int(ones) << bit
        error += level_error << level
        bias += level_bias << level
    return error, bias
