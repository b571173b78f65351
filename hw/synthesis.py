"""Mapping a netlist onto a cell library: adders first, then the logic between them.

Full and half adders are found in the gates and become the library's adder cells (ABC, which maps
the rest, cannot use cells of two outputs). Yosys runs in a fresh process and gets a canonical text,
so the result depends on nothing but the netlist and the library. It is compared with its source.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .errors import InputError
from .liberty import CellLibrary, LibraryCell
from .netlist import Gate, GateKind, Netlist, Port
from .simulation import Words, all_nets, simulate
from .verilog import verilog
from .yosys import run_yosys
from .yosys_json import netlist_from_json

EXHAUSTIVE_BITS = 20
"""Up to so many input bits the result is compared for every pattern, beyond for random ones."""

_ADDER_TABLES = {2: (0b1000, 0b0110), 3: (0b11101000, 0b10010110)}
"""Carry and sum of two and three bits."""


@dataclass(frozen=True)
class AdderCell:
    """A library's half or full adder: which output is the carry, and which are inverted."""

    cell: LibraryCell
    carry: int
    carry_inverted: bool
    total_inverted: bool


def synthesise(netlist: Netlist, library: CellLibrary) -> Netlist:
    """The netlist made of the library's cells, with the same ports; same result every time."""
    _check_complete(library)
    full, half = adder_cell(library, 3), adder_cell(library, 2)
    adders = [adder for adder in (full, half) if adder is not None]
    files = {
        "source.v": verilog(_anonymous(netlist), module="top"),
        "boxes.v": "".join(black_box(adder.cell.kind) for adder in adders),
        "adders.v": "" if full is None else _adder_map(full, half),
        "cells.lib": library.text,
    }
    text = run_yosys(
        _commands(full is not None, [adder.cell.name for adder in adders]),
        files,
        "mapped.json",
        what=netlist.name,
    )
    inputs = [port.name for port in netlist.inputs]
    outputs = [port.name for port in netlist.outputs]
    mapped = netlist_from_json(text, "top", netlist.name, inputs, outputs, library.kinds)
    mapped = _with_ordered_pins(mapped)
    _check_equal(netlist, mapped)
    return mapped


def _check_complete(library: CellLibrary) -> None:
    """ABC needs an inverter, and a gate of two inputs that with it makes every function."""
    kinds = [cell.kind for cell in library.cells.values()]
    functions = {(len(kind.inputs), table) for kind in kinds for table in kind.tables}
    pairs = {(2, table) for table in (0b0111, 0b0001, 0b1000, 0b1110)}
    if (1, 0b01) not in functions or functions.isdisjoint(pairs):
        raise InputError(
            f"cell library {library.name} must have an inverter and a NAND, NOR, AND or OR of two "
            f"inputs, not only {', '.join(sorted(library.cells))[:200]}"
        )


def adder_cell(library: CellLibrary, inputs: int) -> AdderCell | None:
    """The smallest adder of so many bits in the library, if it has one."""
    found = [adder for cell in library.cells.values() for adder in _as_adder(cell, inputs)]
    return min(found, key=lambda adder: (adder.cell.area_um2, adder.cell.name), default=None)


def _as_adder(cell: LibraryCell, inputs: int) -> Iterator[AdderCell]:
    if len(cell.kind.inputs) != inputs or len(cell.kind.outputs) != 2:
        return
    carry_table, total_table = _ADDER_TABLES[inputs]
    full = (1 << (1 << inputs)) - 1
    for carry in (0, 1):
        found, other = cell.kind.tables[carry], cell.kind.tables[1 - carry]
        if found in (carry_table, full ^ carry_table) and other in (
            total_table,
            full ^ total_table,
        ):
            yield AdderCell(cell, carry, found != carry_table, other != total_table)


def _commands(adders: bool, adder_names: list[str]) -> list[str]:
    map_adders = ["extract_fa -v", "opt_clean", "techmap -map adders.v", "techmap", "opt_clean"]
    unused = "".join(f" -dont_use {name}" for name in adder_names)
    return [
        "read_verilog source.v",
        "read_verilog -lib boxes.v",
        "hierarchy -top top",
        "simplemap",
        "opt",
        *(map_adders if adders else []),
        "opt",
        f"abc -liberty cells.lib{unused}",
        "opt_clean -purge",
        "write_json mapped.json",
    ]


def _anonymous(netlist: Netlist) -> Netlist:
    """Without net names: what Yosys sees must not depend on them."""
    return replace(netlist, net_names={})


# Adders.


def _adder_map(full: AdderCell, half: AdderCell | None) -> str:
    """Verilog for Yosys: what becomes of ``$fa``; a half adder is one whose C is a constant 0."""
    half_body = _HALF_GATES if half is None else _instance(half, ("A", "B"))
    return f"""
module \\$fa (A, B, C, X, Y);
  parameter WIDTH = 1;
  parameter _TECHMAP_CONSTMSK_C_ = 0;
  parameter _TECHMAP_CONSTVAL_C_ = 0;
  input A, B, C;
  output X, Y;
  wire _TECHMAP_FAIL_ = WIDTH != 1;
  generate
    if (_TECHMAP_CONSTMSK_C_ == 1 && _TECHMAP_CONSTVAL_C_ == 0) begin
      {half_body}
    end else begin
      {_instance(full, ("A", "B", "C"))}
    end
  endgenerate
endmodule
"""


_HALF_GATES = "assign X = A & B; assign Y = A ^ B;"


def _instance(adder: AdderCell, operands: tuple[str, ...]) -> str:
    kind = adder.cell.kind
    pins = dict(zip(kind.inputs, operands, strict=True))
    pins |= {kind.outputs[adder.carry]: "carry", kind.outputs[1 - adder.carry]: "total"}
    wired = ", ".join(f".{pin}({net})" for pin, net in pins.items())
    carry = "~carry" if adder.carry_inverted else "carry"
    total = "~total" if adder.total_inverted else "total"
    return (
        f"wire carry, total; {kind.name} adder ({wired}); assign X = {carry}; assign Y = {total};"
    )


def black_box(kind: GateKind) -> str:
    ports = [f"input {pin}" for pin in kind.inputs] + [f"output {pin}" for pin in kind.outputs]
    return f"(* blackbox *) module {kind.name} ({', '.join(ports)}); endmodule\n"


def _with_ordered_pins(netlist: Netlist) -> Netlist:
    """Adders' interchangeable inputs in one order: the deepest net on the last pin, usually the
    fastest one; ties by net number."""
    depth: dict[int, int] = {}
    gates = []
    for gate in netlist.gates:
        kind = netlist.kinds[gate.kind]
        if len(kind.outputs) == 2 and is_symmetric(kind):
            ordered = tuple(sorted(gate.inputs, key=lambda net: (depth.get(net, 0), net)))
            gate = Gate(gate.kind, ordered, gate.outputs)
        level = 1 + max((depth.get(net, 0) for net in gate.inputs), default=0)
        depth.update((net, level) for net in gate.outputs)
        gates.append(gate)
    return replace(netlist, gates=tuple(gates))


def is_symmetric(kind: GateKind) -> bool:
    """Whether every order of the inputs gives the same outputs."""
    by_count: dict[tuple[int, int], set[int]] = {}
    for output, table in enumerate(kind.tables):
        for state in range(1 << len(kind.inputs)):
            values = by_count.setdefault((output, state.bit_count()), set())
            values.add(table >> state & 1)
    return all(len(values) == 1 for values in by_count.values())


# Equality with the source.


def _check_equal(source: Netlist, mapped: Netlist) -> None:
    """Promised to the user of ``synthesise``: what was mapped computes what was given."""
    for before, after in zip(_output_words(source), _output_words(mapped), strict=True):
        assert np.array_equal(before, after), f"synthesis of {source.name} changed its function"


def _output_words(netlist: Netlist) -> list[Words]:
    bits = sum(port.width for port in netlist.inputs)
    if bits <= EXHAUSTIVE_BITS:
        nets: Mapping[int, Words] = all_nets(netlist)
    else:
        nets = simulate(netlist, _random_stimuli(netlist.inputs))
    return [nets[net] for port in netlist.outputs for net in port.nets]


def _random_stimuli(ports: tuple[Port, ...]) -> dict[int, Words]:
    generator = np.random.default_rng(0)
    nets = [net for port in ports for net in port.nets]
    return {net: generator.integers(0, 1 << 64, 1 << 12, dtype=np.uint64) for net in nets}
