"""Netlists out of Yosys's JSON: single-bit gates or library cells, one flat module.

A net is named in the scope of the gate that drives it, so that an adder's sum is ``adder_3_1.sum``
and not the input of whichever gate reads it.
"""

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InputError
from .netlist import FALSE, GATE_KINDS, TRUE, Gate, GateKind, Netlist, Port

YOSYS_GATES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "$_BUF_": ("buf", ("A",)),
    "$_NOT_": ("not", ("A",)),
    "$_AND_": ("and", ("A", "B")),
    "$_NAND_": ("nand", ("A", "B")),
    "$_OR_": ("or", ("A", "B")),
    "$_NOR_": ("nor", ("A", "B")),
    "$_XOR_": ("xor", ("A", "B")),
    "$_XNOR_": ("xnor", ("A", "B")),
    "$_ANDNOT_": ("andnot", ("A", "B")),
    "$_ORNOT_": ("ornot", ("A", "B")),
    "$_MUX_": ("mux", ("A", "B", "S")),
    "$pos": ("buf", ("A",)),
    "$buf": ("buf", ("A",)),
    "$not": ("not", ("A",)),
    "$and": ("and", ("A", "B")),
    "$or": ("or", ("A", "B")),
    "$xor": ("xor", ("A", "B")),
    "$xnor": ("xnor", ("A", "B")),
    "$mux": ("mux", ("A", "B", "S")),
}
"""Yosys's cells (all of one bit) as generic gates, with the pins in our order; the output is Y."""

_IGNORED = frozenset({"$scopeinfo"})
_CONSTANTS: Mapping[int | str, int] = {"0": FALSE, "1": TRUE, "x": FALSE, "z": FALSE}


@dataclass(frozen=True)
class _Cell:
    """A gate whose nets are still Yosys's bits."""

    scope: str
    kind: str
    inputs: tuple[int | str, ...]
    outputs: tuple[int | str, ...]


def netlist_from_json(
    text: str,
    top: str,
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    kinds: Mapping[str, GateKind] = GATE_KINDS,
) -> Netlist:
    """The module ``top`` as a netlist, its ports in the given order; undefined bits are zero.

    With the kinds of a cell library, cells are looked up by name and pin; unconnected outputs get
    nets that nothing reads.
    """
    module = json.loads(text)["modules"][top]
    cells = [
        _cell(path, cell, kinds, name)
        for path, cell in module["cells"].items()
        if cell["type"] not in _IGNORED
    ]
    nets = dict(_CONSTANTS)
    input_ports = tuple(_input_port(module["ports"], port, nets) for port in inputs)
    ordered = _topological(cells, nets, name)
    numbers = itertools.count(1 + max(nets.values()))
    nets.update((bit, next(numbers)) for cell in ordered for bit in cell.outputs)
    gates = tuple(_gate(cell, nets) for cell in ordered)
    output_ports = tuple(_output_port(module["ports"], port, nets, name) for port in outputs)
    names = _net_names(module["netnames"], ordered, nets)
    return Netlist(name, input_ports, output_ports, gates, names, kinds)


def port_names(text: str, top: str, direction: str) -> list[str]:
    """The module's ports of that direction, in the order of the file."""
    ports = json.loads(text)["modules"][top]["ports"]
    return [name for name, port in ports.items() if port["direction"] == direction]


def _cell(path: str, cell: dict[str, Any], kinds: Mapping[str, GateKind], name: str) -> _Cell:
    connections: dict[str, list[int | str]] = cell["connections"]
    if cell["type"] in YOSYS_GATES:
        kind, pins = YOSYS_GATES[cell["type"]]
        outputs: tuple[str, ...] = ("Y",)
    elif cell["type"] in kinds:
        kind = cell["type"]
        pins, outputs = kinds[kind].inputs, kinds[kind].outputs
    else:
        raise InputError(
            f"{name} must be combinational logic of known cells, not contain a {cell['type']}"
        )
    if any(len(bits) > 1 for bits in connections.values()):
        raise InputError(
            f"{name} must be made of one-bit cells, not {cell['type']} of several bits"
        )
    return _Cell(
        _scope(path),
        kind,
        tuple((connections.get(pin) or ["x"])[0] for pin in pins),
        tuple((connections.get(pin) or [f"{path}.{pin}"])[0] for pin in outputs),
    )


def _scope(path: str) -> str:
    """The instance in which a flattened cell was written: ``$flatten\\outer.\\inner.$1``."""
    match = re.fullmatch(r"\$flatten(.*)\.[^.]*", path)
    return match[1].replace("\\", "") if match else ""


def _input_port(ports: dict[str, Any], name: str, nets: dict[int | str, int]) -> Port:
    bits = ports[name]["bits"]
    first = 1 + max(nets.values())
    nets.update((bit, first + index) for index, bit in enumerate(bits))
    return Port(name, tuple(nets[bit] for bit in bits))


def _output_port(
    ports: dict[str, Any], name: str, nets: dict[int | str, int], netlist_name: str
) -> Port:
    bits = ports[name]["bits"]
    if any(bit not in nets for bit in bits):
        raise InputError(f"output {name!r} of {netlist_name} must be driven, not left open")
    return Port(name, tuple(nets[bit] for bit in bits))


def _topological(cells: list[_Cell], nets: Mapping[int | str, int], name: str) -> list[_Cell]:
    """The cells, each after those that drive it, otherwise in the order they came in."""
    driver = {bit: cell for cell in cells for bit in cell.outputs}
    state: dict[int, bool] = {}
    ordered: list[_Cell] = []
    for root in cells:
        stack = [root]
        while stack:
            cell = stack[-1]
            if state.get(id(cell)):
                stack.pop()
                continue
            waiting = [
                driver[bit]
                for bit in cell.inputs
                if bit in driver and not state.get(id(driver[bit]))
            ]
            if not waiting:
                state[id(cell)] = True
                ordered.append(stack.pop())
            elif id(cell) in state:
                raise InputError(
                    f"{name} must be free of cycles, not feed a {cell.kind} gate back to itself"
                )
            else:
                state[id(cell)] = False
                stack.extend(reversed(waiting))
    for cell in cells:
        for bit in cell.inputs:
            if bit not in nets and bit not in driver:
                raise InputError(f"inputs of the gates of {name} must be driven, not left open")
    return ordered


def _gate(cell: _Cell, nets: Mapping[int | str, int]) -> Gate:
    return Gate(
        cell.kind,
        tuple(nets[bit] for bit in cell.inputs),
        tuple(nets[bit] for bit in cell.outputs),
    )


def _net_names(
    entries: dict[str, Any], cells: list[_Cell], nets: Mapping[int | str, int]
) -> dict[int, str]:
    """A name for every net that has a public one; ports are named by their port and bit."""
    aliases: dict[int | str, list[str]] = defaultdict(list)
    for name, entry in entries.items():
        if not entry["hide_name"]:
            for index, bit in enumerate(entry["bits"]):
                aliases[bit].append(name if len(entry["bits"]) == 1 else f"{name}[{index}]")
    names: dict[int, str] = {}
    taken: set[str] = set()
    for cell in cells:
        for bit in cell.outputs:
            best = _best_name(aliases[bit], cell.scope)
            if best is not None and best not in taken:
                names[nets[bit]] = best
                taken.add(best)
    return names


def _best_name(aliases: list[str], scope: str) -> str | None:
    """The name the driving scope gives its own net, rather than that of a pin it is wired to."""
    local = [alias for alias in aliases if alias.rpartition(".")[0] == scope]
    deeper = {alias.rpartition(".")[2] for alias in aliases if alias.count(".") > scope.count(".")}
    own = [alias for alias in local if _base(alias) not in deeper]
    ranked = sorted(
        own or local or aliases, key=lambda alias: ("$" in alias, "[" in alias, len(alias), alias)
    )
    return ranked[0] if ranked else None


def _base(alias: str) -> str:
    return re.sub(r"\$\d+$", "", alias.rpartition(".")[2])
