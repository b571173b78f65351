"""Circuits as genomes of Cartesian genetic programming, adders among the primitives.

A genome is a row of nodes, each with a function and three inputs, of which it uses as many as its
function has, and the list of output nets. Nets 0 and 1 are the constants, then come the operands'
bits (first operand first, lowest bit first), then two nets a node; the second one is an adder's
carry, and a constant zero behind any other function. A node's inputs lie before it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .liberty import CellLibrary
from .netlist import FALSE, Gate, Netlist, Port

Integers = npt.NDArray[np.int64]

FUNCTIONS = (
    *("buf", "not", "and", "or", "xor", "nand", "nor", "xnor", "andnot"),
    *("half_adder", "full_adder"),
)
"""In the kernel's numbering."""
HALF_ADDER, FULL_ADDER = FUNCTIONS.index("half_adder"), FUNCTIONS.index("full_adder")
COST_UNIT = 1000
"""Costs are whole thousandths of a µm², so that sums are exact."""


@dataclass(frozen=True)
class Genome:
    """``functions`` (nodes,), ``inputs`` (nodes, 3) and ``outputs`` (product bits,), all int64."""

    a_width: int
    b_width: int
    functions: Integers
    inputs: Integers
    outputs: Integers

    @property
    def first_node_net(self) -> int:
        return 2 + self.a_width + self.b_width

    def copy(self) -> "Genome":
        """With arrays of its own."""
        arrays = (self.functions.copy(), self.inputs.copy(), self.outputs.copy())
        return Genome(self.a_width, self.b_width, *arrays)

    def net(self, number: int) -> int:
        """The net as the functions make it: a second output that is none is the constant zero."""
        node, second = divmod(number - self.first_node_net, 2)
        return FALSE if node >= 0 and second and self.functions[node] < HALF_ADDER else number

    def arity(self, node: int) -> int:
        """How many of its inputs the node uses."""
        function = self.functions[node]
        return 1 if function < 2 else 3 if function == FULL_ADDER else 2

    def used(self) -> set[int]:
        """The nets that reach an output."""
        used = {self.net(int(net)) for net in self.outputs}
        for node in reversed(range(len(self.functions))):
            first = self.first_node_net + 2 * node
            if first in used or first + 1 in used:
                used |= {self.net(int(net)) for net in self.inputs[node, : self.arity(node)]}
        return used


def function_costs(library: CellLibrary) -> Integers:
    """The area of each function by which outputs are used (1 first, 2 second, 3 both), int64.

    Of the smallest cells that compute it: an adder of which one output is used is made of gates.
    """
    cell = _CellAreas(library)
    gates = {name: cell.of_gate(name) for name in FUNCTIONS[:HALF_ADDER]}
    half = min(cell.of_outputs(2, (0b1000, 0b0110)), gates["and"] + gates["xor"])
    carry = min(cell.of_outputs(3, (0b11101000,)), 2 * gates["and"] + 2 * gates["or"])
    full = min(cell.of_outputs(3, (0b11101000, 0b10010110)), 2 * half + gates["or"])
    areas = [[0.0, area, 0.0, area] for area in gates.values()]
    areas.append([0.0, gates["xor"], gates["and"], half])
    areas.append([0.0, min(2 * gates["xor"], full), min(carry, full), full])
    return np.round(np.array(areas) * COST_UNIT).astype(np.int64)


class _CellAreas:
    """Areas in µm² of the smallest cells of a library by function; infinite where there is none."""

    def __init__(self, library: CellLibrary) -> None:
        self._areas: dict[tuple[int, tuple[int, ...]], float] = defaultdict(lambda: float("inf"))
        for cell in library.cells.values():
            key = len(cell.kind.inputs), tuple(sorted(cell.kind.tables))
            self._areas[key] = min(self._areas[key], cell.area_um2)

    def of_outputs(self, inputs: int, tables: tuple[int, ...]) -> float:
        """Any output may be inverted by an inverter more."""
        full = (1 << (1 << inputs)) - 1
        inverter = self._areas[(1, (0b01,))]
        best = float("inf")
        for flips in range(1 << len(tables)):
            chosen = [t ^ full if flips >> n & 1 else t for n, t in enumerate(tables)]
            area = self._areas[(inputs, tuple(sorted(chosen)))] + inverter * flips.bit_count()
            best = min(best, area)
        return best

    def of_gate(self, name: str) -> float:
        inverter, nand = self.of_outputs(1, (0b01,)), self.of_outputs(2, (0b0111,))
        tables = {"and": 0b1000, "or": 0b1110, "nand": 0b0111, "nor": 0b0001}
        if name in ("buf", "not"):
            return inverter if name == "not" else 0.0
        if name == "andnot":
            return min(self.of_gate("nor"), self.of_gate("and")) + inverter
        if name in ("xor", "xnor"):
            table = 0b0110 if name == "xor" else 0b1001
            return min(self.of_outputs(2, (table,)), 4 * nand + inverter)
        return min(self.of_outputs(2, (tables[name],)), nand + 3 * inverter)


# From a netlist.


def genome_of(netlist: Netlist) -> Genome:
    """The netlist as a genome, with half and full adders found in its gates."""
    if len(netlist.inputs) != 2 or len(netlist.outputs) != 1:
        raise InputError(f"{netlist.name} must have two operands and one product to be evolved")
    plain = list(_without_mux(netlist))
    nodes = _with_adders(plain, netlist.outputs[0])
    a, b = netlist.inputs
    numbers = {0: 0, 1: 1}
    numbers |= {net: 2 + place for place, net in enumerate((*a.nets, *b.nets))}
    first = 2 + a.width + b.width
    for place, (_, _, drives) in enumerate(nodes):
        numbers |= {net: first + 2 * place + which for which, net in enumerate(drives)}
    inputs = np.zeros((len(nodes), 3), np.int64)
    for place, (_, reads, _) in enumerate(nodes):
        inputs[place, : len(reads)] = [numbers[net] for net in reads]
    functions = np.array([FUNCTIONS.index(name) for name, _, _ in nodes], np.int64)
    outputs = np.array([numbers[net] for net in netlist.outputs[0].nets], np.int64)
    return Genome(a.width, b.width, functions, inputs, outputs)


Node = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Function, nets read, nets driven."""


def _without_mux(netlist: Netlist) -> Iterator[Gate]:
    """Gates that are functions of genomes: ``mux`` and ``ornot`` are taken apart."""
    fresh = netlist.net_count
    for gate in netlist.gates:
        if gate.kind == "mux":
            a, b, s = gate.inputs
            yield Gate("andnot", (a, s), (fresh,))
            yield Gate("and", (b, s), (fresh + 1,))
            yield Gate("or", (fresh, fresh + 1), gate.outputs)
            fresh += 2
        elif gate.kind == "ornot":
            yield Gate("not", (gate.inputs[1],), (fresh,))
            yield Gate("or", (gate.inputs[0], fresh), gate.outputs)
            fresh += 1
        elif gate.kind in FUNCTIONS:
            yield gate
        else:
            raise InputError(f"gates of {netlist.name} must be generic ones, not {gate.kind}")


def _with_adders(gates: list[Gate], product: Port) -> list[Node]:
    """The gates, but those of an adder as one node, in the place of the first of its outputs."""
    adders = _Adders(gates, product)
    nodes: list[Node] = []
    placed: set[int] = set()
    for gate in gates:
        (net,) = gate.outputs
        if net in adders.drivers:
            node = adders.drivers[net]
            if node[2][0] not in placed:
                placed.add(node[2][0])
                nodes.append(node)
        elif net not in adders.inner:
            nodes.append((gate.kind, gate.inputs, gate.outputs))
    return nodes


class _Adders:
    """Adders found in gates: which node drives a net, and which nets are inside one."""

    def __init__(self, gates: list[Gate], product: Port) -> None:
        self.drivers: dict[int, Node] = {}
        self.inner: set[int] = set()
        self._gate = {gate.outputs[0]: gate for gate in gates}
        self._of = {(gate.kind, frozenset(gate.inputs)): gate.outputs[0] for gate in gates}
        self._readers = _reader_counts(gates, product)
        for gate in gates:
            if gate.kind == "or":
                self._full(gate)
        for gate in gates:
            if gate.kind == "and":
                self._half(gate)

    def _full(self, carry: Gate) -> None:
        """carry = ab + xc, where x = a XOR b, and total = x XOR c."""
        for generated, passed in (carry.inputs, carry.inputs[::-1]):
            ands = [self._inner_gate(net, "and", 1) for net in (generated, passed)]
            if ands[0] is None or ands[1] is None:
                continue
            half = self._of.get(("xor", frozenset(ands[0].inputs)))
            if half is None or half not in ands[1].inputs or self._readers[half] != 2:
                continue
            total = self._of.get(("xor", frozenset(ands[1].inputs)))
            if total is None:
                continue
            (third,) = set(ands[1].inputs) - {half}
            node = ("full_adder", (*ands[0].inputs, third), (total, carry.outputs[0]))
            self._found(node, {generated, passed, half})
            return

    def _half(self, carry: Gate) -> None:
        total = self._of.get(("xor", frozenset(carry.inputs)))
        nets = {carry.outputs[0], total}
        if total is not None and not nets & self.inner and not nets & set(self.drivers):
            self._found(("half_adder", carry.inputs, (total, carry.outputs[0])), set())

    def _inner_gate(self, net: int, kind: str, readers: int) -> Gate | None:
        gate = self._gate.get(net)
        free = net not in self.inner and self._readers[net] == readers
        return gate if gate is not None and gate.kind == kind and free else None

    def _found(self, node: Node, inner: set[int]) -> None:
        self.inner |= inner
        self.drivers |= dict.fromkeys(node[2], node)


def _reader_counts(gates: list[Gate], product: Port) -> Mapping[int, int]:
    readers: dict[int, int] = defaultdict(int)
    for gate in gates:
        for net in gate.inputs:
            readers[net] += 1
    for net in product.nets:
        readers[net] += 1
    return readers


# To a netlist.


def netlist_of(genome: Genome, name: str) -> Netlist:
    """The genome's circuit in generic gates; gates that reach no output are left out."""
    used = genome.used()
    bits = range(2, genome.first_node_net)
    ports = (
        Port("a", tuple(bits[: genome.a_width])),
        Port("b", tuple(bits[genome.a_width :])),
    )
    product = Port("p", tuple(genome.net(int(net)) for net in genome.outputs))
    fresh = genome.first_node_net + 2 * len(genome.functions)
    gates: list[Gate] = []
    for node, function in enumerate(genome.functions):
        first = genome.first_node_net + 2 * node
        if first in used or first + 1 in used:
            reads = [genome.net(int(net)) for net in genome.inputs[node, : genome.arity(node)]]
            gates += _gates(FUNCTIONS[function], reads, first, fresh)
            fresh += 3
    return Netlist(name, ports, (product,), tuple(_reaching(gates, product)))


def _gates(function: str, reads: list[int], first: int, fresh: int) -> list[Gate]:
    """A node's gates; ``fresh`` and the two nets after it are for the inside of a full adder."""
    pair = tuple(reads[:2])
    if function == "half_adder":
        return [Gate("xor", pair, (first,)), Gate("and", pair, (first + 1,))]
    if function == "full_adder":
        return [
            Gate("xor", pair, (fresh,)),
            Gate("and", pair, (fresh + 1,)),
            Gate("and", (fresh, reads[2]), (fresh + 2,)),
            Gate("xor", (fresh, reads[2]), (first,)),
            Gate("or", (fresh + 1, fresh + 2), (first + 1,)),
        ]
    return [Gate(function, tuple(reads), (first,))]


def _reaching(gates: list[Gate], product: Port) -> list[Gate]:
    """The gates that reach the product."""
    needed = set(product.nets)
    kept = []
    for gate in reversed(gates):
        if needed & set(gate.outputs):
            needed |= set(gate.inputs)
            kept.append(gate)
    return kept[::-1]
