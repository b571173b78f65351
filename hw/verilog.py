"""Netlists as structural Verilog-2001, written here and read back by another program, Yosys.

The writer is ours, so that the text is readable: one wire a net, under the name the design gave it.
The reader is not, so that reading back what was written checks it.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .amaranth_netlist import TO_GATES
from .errors import InputError
from .liberty import CellLibrary
from .netlist import FALSE, GATE_KINDS, TRUE, Gate, GateKind, Netlist, Port
from .yosys import run_yosys
from .yosys_json import netlist_from_json, port_names

_EXPRESSIONS: Mapping[str, str] = {
    "buf": "{a}",
    "not": "~{a}",
    "and": "{a} & {b}",
    "nand": "~({a} & {b})",
    "or": "{a} | {b}",
    "nor": "~({a} | {b})",
    "xor": "{a} ^ {b}",
    "xnor": "~({a} ^ {b})",
    "andnot": "{a} & ~{b}",
    "ornot": "{a} | ~{b}",
    "mux": "{s} ? {b} : {a}",
}
_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic
    before begin bind bins binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle
    checker class clocking cmos config const constraint context continue cover covergroup coverpoint
    cross deassign default defparam design disable dist do edge else end endcase endchecker endclass
    endclocking endconfig endfunction endgenerate endgroup endinterface endmodule endpackage
    endprimitive endprogram endproperty endsequence endspecify endtable endtask enum event
    eventually expect export extends extern final first_match for force foreach forever fork
    forkjoin function generate genvar global highz0 highz1 if iff ifnone ignore_bins illegal_bins
    implements implies import incdir include initial inout input inside instance int integer
    interconnect interface intersect join join_any join_none large let liblist library local
    localparam logic longint macromodule matches medium modport module nand negedge nettype new
    nexttime nmos nor noshowcancelled not notif0 notif1 null or output package packed parameter pmos
    posedge primitive priority program property protected pull0 pull1 pulldown pullup
    pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase randsequence rcmos real realtime
    ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0 rtranif1 s_always
    s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
    signed small soft solve specify specparam static string strong strong0 strong1 struct super
    supply0 supply1 sync_accept_on sync_reject_on table tagged task this throughout time
    timeprecision timeunit tran tranif0 tranif1 tri tri0 tri1 triand trior trireg type typedef union
    unique unique0 unsigned until until_with untyped use uwire var vectored virtual void wait
    wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
    """,
    )
)
"""The reserved words of Verilog-2001 and of SystemVerilog (IEEE 1800-2017, annex B), which some
tools read every file as."""


def verilog(netlist: Netlist, module: str | None = None, header: str = "") -> str:
    """The netlist as one Verilog module; ``header`` is put above it as ``//`` comment lines.

    Generic gates become continuous assignments, library cells become instances.
    """
    name = _identifier(module or netlist.name)
    references = net_references(netlist)
    ports = ", ".join(port.name for port in (*netlist.inputs, *netlist.outputs))
    wires = [references[net] for gate in netlist.gates for net in gate.outputs]
    lines = [
        *(f"// {line}".rstrip() for line in header.splitlines()),
        f"module {name}({ports});",
        *(f"  input {_range(port)}{port.name};" for port in netlist.inputs),
        *(f"  output {_range(port)}{port.name};" for port in netlist.outputs),
        "",
        *(f"  wire {wire};" for wire in wires),
        "",
        *(_gate(netlist, index, gate, references) for index, gate in enumerate(netlist.gates)),
        "",
        *(f"  assign {port.name} = {_bundle(port, references)};" for port in netlist.outputs),
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def read_verilog(
    path: str | os.PathLike[str], top: str, cells: CellLibrary | None = None
) -> Netlist:
    """Module ``top`` of a Verilog file as gates; ports as declared. Yosys is the reader.

    Instances of the cells of a library, where one is given, become gates with their functions.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", top):
        raise InputError(f"top module must be a Verilog name, not {top!r}")
    try:
        text = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"{path} must be a Verilog file, but there is no such file") from None
    models = "".join(cell_model(kind) for kind in (cells.kinds if cells else {}).values())
    commands = (
        "read_verilog cells.v",
        "read_verilog -overwrite top.v",
        f"hierarchy -check -top {top}",
        *TO_GATES,
        "write_json top.json",
    )
    result = run_yosys(
        commands, {"top.v": text, "cells.v": models}, "top.json", what=f"module {top} of {path}"
    )
    inputs, outputs = (port_names(result, top, way) for way in ("input", "output"))
    return netlist_from_json(result, top, top, inputs, outputs)


def cell_model(kind: GateKind) -> str:
    """A Verilog module that computes what the cell does: parities as such, else as minterms."""
    ports = [f"input {pin}" for pin in kind.inputs] + [f"output {pin}" for pin in kind.outputs]
    lines = [f"module {kind.name} ({', '.join(ports)});"]
    for output, table in zip(kind.outputs, kind.tables, strict=True):
        lines.append(f"  assign {output} = {_function(kind.inputs, table)};")
    return "\n".join([*lines, "endmodule"]) + "\n"


def _function(inputs: tuple[str, ...], table: int) -> str:
    states = range(1 << len(inputs))
    parity = sum(1 << state for state in states if state.bit_count() & 1)
    if table in (parity, parity ^ ((1 << len(states)) - 1)):
        return ("" if table == parity else "~") + f"({' ^ '.join(inputs)})"
    terms = [
        "(" + " & ".join(p if state >> i & 1 else f"~{p}" for i, p in enumerate(inputs)) + ")"
        for state in states
        if table >> state & 1
    ]
    return " | ".join(terms) or "1'b0"


def net_references(netlist: Netlist, reserved: Iterable[str] = ()) -> dict[int, str]:
    """How each net is written: a constant, a bit of an input port, or a wire of its own.

    No wire is called like a port, like another wire, or by one of the ``reserved`` names.
    """
    references = {FALSE: "1'b0", TRUE: "1'b1"}
    for port in netlist.inputs:
        for bit, net in enumerate(port.nets):
            references[net] = port.name if port.width == 1 else f"{port.name}[{bit}]"
    taken = {*reserved, *(port.name for port in (*netlist.inputs, *netlist.outputs))}
    for gate in netlist.gates:
        for net in gate.outputs:
            references[net] = _unused(_identifier(netlist.net_names.get(net, f"n{net}")), taken)
    return references


def gate_expression(gate: Gate, references: Mapping[int, str]) -> str:
    """What a generic gate assigns to its output, in Verilog."""
    pins = zip(GATE_KINDS[gate.kind].inputs, gate.inputs, strict=True)
    return _EXPRESSIONS[gate.kind].format(**{pin: references[net] for pin, net in pins})


def _identifier(name: str) -> str:
    """A plain Verilog name that resembles ``name``."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "unnamed"
    return f"_{plain}" if plain[0].isdigit() or plain in _KEYWORDS else plain


def _unused(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def _range(port: Port) -> str:
    return "" if port.width == 1 else f"[{port.width - 1}:0] "


def _bundle(port: Port, references: Mapping[int, str]) -> str:
    bits = [references[net] for net in reversed(port.nets)]
    return bits[0] if len(bits) == 1 else "{" + ", ".join(bits) + "}"


def _gate(netlist: Netlist, index: int, gate: Gate, references: Mapping[int, str]) -> str:
    kind = netlist.kinds[gate.kind]
    if GATE_KINDS.get(gate.kind) == kind:
        return f"  assign {references[gate.outputs[0]]} = {gate_expression(gate, references)};"
    inputs = dict(zip(kind.inputs, (references[net] for net in gate.inputs), strict=True))
    outputs = dict(zip(kind.outputs, (references[net] for net in gate.outputs), strict=True))
    return f"  {kind.name} cell_{index} ({_connections({**inputs, **outputs}.items())});"


def _connections(pins: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f".{pin}({net})" for pin, net in pins)
