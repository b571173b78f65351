"""A combinational circuit: gates in topological order between named ports.

Nets are integers: 0 and 1 are the constants, every other net is driven once, by an input port or a
gate. The nets of a port are listed from its least significant bit. A gate's kind is a name in the
netlist's own ``kinds``: the generic ones here, or the cells of a library in a mapped netlist.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import InputError, unknown_name

if TYPE_CHECKING:
    import networkx as nx

FALSE, TRUE = 0, 1
"""The nets that carry the constants."""


@dataclass(frozen=True)
class GateKind:
    """What a gate computes: its pins, and one truth table per output.

    Bit ``m`` of a table is the output for the input pins at the bits of ``m``, the first pin being
    bit 0.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tables: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.outputs) == len(self.tables), self
        assert all(0 <= table < 1 << (1 << len(self.inputs)) for table in self.tables), self


def _kinds(*kinds: GateKind) -> Mapping[str, GateKind]:
    return {kind.name: kind for kind in kinds}


GATE_KINDS = _kinds(
    GateKind("buf", ("a",), ("y",), (0b10,)),
    GateKind("not", ("a",), ("y",), (0b01,)),
    GateKind("and", ("a", "b"), ("y",), (0b1000,)),
    GateKind("nand", ("a", "b"), ("y",), (0b0111,)),
    GateKind("or", ("a", "b"), ("y",), (0b1110,)),
    GateKind("nor", ("a", "b"), ("y",), (0b0001,)),
    GateKind("xor", ("a", "b"), ("y",), (0b0110,)),
    GateKind("xnor", ("a", "b"), ("y",), (0b1001,)),
    GateKind("andnot", ("a", "b"), ("y",), (0b0010,)),
    GateKind("ornot", ("a", "b"), ("y",), (0b1011,)),
    GateKind("mux", ("a", "b", "s"), ("y",), (0b11001010,)),
)
"""The generic gates; ``andnot`` is a & ~b, ``ornot`` is a | ~b, ``mux`` is b where s, else a."""


@dataclass(frozen=True)
class Gate:
    """An instance of a kind; inputs and outputs in the order of the kind's pins."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """A named bundle of nets, least significant bit first."""

    name: str
    nets: tuple[int, ...]

    @property
    def width(self) -> int:
        return len(self.nets)


@dataclass(frozen=True)
class Netlist:
    """A combinational circuit; ``net_names`` may leave nets unnamed, no two nets share a name."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    gates: tuple[Gate, ...]
    net_names: Mapping[int, str] = field(default_factory=dict)
    kinds: Mapping[str, GateKind] = field(default_factory=lambda: GATE_KINDS, repr=False)

    def __post_init__(self) -> None:
        _check_ports(self)
        driven = {FALSE, TRUE}
        _drive(
            driven, (net for port in self.inputs for net in port.nets), f"an input of {self.name}"
        )
        for gate in self.gates:
            _check_gate(self, gate, driven)
            _drive(driven, gate.outputs, f"a {gate.kind} gate of {self.name}")
        for port in self.outputs:
            _check_driven(driven, port.nets, f"output {port.name!r} of {self.name}")
        if len(set(self.net_names.values())) != len(self.net_names):
            raise InputError(
                f"net names of {self.name} must be distinct, not shared by several nets"
            )

    @property
    def net_count(self) -> int:
        """One more than the highest net."""
        outputs = (net for gate in self.gates for net in gate.outputs)
        inputs = (net for port in self.inputs for net in port.nets)
        return 1 + max(TRUE, max(outputs, default=TRUE), max(inputs, default=TRUE))

    def input(self, name: str) -> Port:
        """The input port of that name."""
        return _port(self.inputs, name, f"input of {self.name}")

    def output(self, name: str) -> Port:
        """The output port of that name."""
        return _port(self.outputs, name, f"output of {self.name}")

    def gate_counts(self) -> dict[str, int]:
        """How many gates of each kind, by name."""
        names = [gate.kind for gate in self.gates]
        return {kind: names.count(kind) for kind in sorted(set(names))}

    def graph(self) -> "nx.DiGraph[str]":
        """The circuit as a graph: ``gate/<i>`` and ``input/<port>[<bit>]`` to gates and outputs.

        Edges carry ``net``; constants have no node.
        """
        return _graph(self)


def _check_ports(netlist: Netlist) -> None:
    names = [port.name for port in (*netlist.inputs, *netlist.outputs)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"ports of {netlist.name} must have distinct names, not two {name!r}")


def _check_gate(netlist: Netlist, gate: Gate, driven: set[int]) -> None:
    kind = netlist.kinds.get(gate.kind)
    if kind is None:
        raise unknown_name(f"gate kind in {netlist.name}", gate.kind, netlist.kinds)
    if (len(gate.inputs), len(gate.outputs)) != (len(kind.inputs), len(kind.outputs)):
        raise InputError(
            f"a {kind.name} gate of {netlist.name} must have {len(kind.inputs)} inputs and "
            f"{len(kind.outputs)} outputs, not {len(gate.inputs)} and {len(gate.outputs)}"
        )
    _check_driven(driven, gate.inputs, f"input of a {gate.kind} gate of {netlist.name}")


def _check_driven(driven: set[int], nets: Iterable[int], what: str) -> None:
    for net in nets:
        if net not in driven:
            raise InputError(
                f"{what} must be a net driven before it, not net {net} (undriven, or in a cycle)"
            )


def _drive(driven: set[int], nets: Iterable[int], what: str) -> None:
    for net in nets:
        if net in driven or net < 0:
            raise InputError(f"{what} must drive a net of its own, not net {net}, driven already")
        driven.add(net)


def _port(ports: tuple[Port, ...], name: str, what: str) -> Port:
    for port in ports:
        if port.name == name:
            return port
    raise unknown_name(what, name, [port.name for port in ports])


def _graph(netlist: Netlist) -> "nx.DiGraph[str]":
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph(name=netlist.name)
    driver: dict[int, str] = {}
    for port in netlist.inputs:
        for bit, net in enumerate(port.nets):
            driver[net] = f"input/{port.name}[{bit}]"
            graph.add_node(driver[net], kind="input")
    for index, gate in enumerate(netlist.gates):
        node = f"gate/{index}"
        graph.add_node(node, kind=gate.kind)
        _add_edges(graph, driver, gate.inputs, node)
        driver.update((net, node) for net in gate.outputs)
    for port in netlist.outputs:
        for bit, net in enumerate(port.nets):
            node = f"output/{port.name}[{bit}]"
            graph.add_node(node, kind="output")
            _add_edges(graph, driver, (net,), node)
    return graph


def _add_edges(
    graph: "nx.DiGraph[str]", driver: Mapping[int, str], nets: Iterable[int], node: str
) -> None:
    for net in nets:
        if net in driver:
            graph.add_edge(driver[net], node, net=net)
