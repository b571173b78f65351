"""A multiplier's gates with registers between them: parameter STAGES says how many clocks it takes.

The gates are cut into slices of about equal delay. Behind each slice is a rank of registers, of
which STAGES are there, as evenly spread as the slices allow, the last one at the output; the others
are wires. So every way from an operand to the product passes STAGES registers, whatever STAGES is.
"""

from collections.abc import Mapping, Sequence

from hw.netlist import Gate, Netlist
from hw.verilog import net_references

from .slices import slices
from .structural import (
    Group,
    assignment,
    bit_range,
    comment,
    concatenation,
    declarations,
    grouped,
    live,
    port_lines,
    unused_inputs,
    wrapped,
)

__all__ = ["MAX_STAGES", "pipelined_verilog"]

MAX_STAGES = 12
"""Into how many slices the gates are cut; divisible by 1, 2, 3, 4 and 6."""


def pipelined_verilog(netlist: Netlist, module: str, header: str) -> str:
    """The netlist, of generic gates and with ports a, b and p, as a pipeline."""
    netlist = live(netlist)
    cut = slices(netlist, MAX_STAGES)
    names = _Names(netlist)
    lines = [*comment(header), *_head(netlist, module), *unused_inputs(netlist)]
    for k, nets in enumerate(cut.crossing):
        gates = [g for g, place in zip(netlist.gates, cut.of_gate, strict=True) if place == k]
        lines += _slice(gates, names.references, k + 1)
        if k + 1 < MAX_STAGES:
            lines += _rank(nets, names, k + 1)
    lines += _last_rank(netlist, names.references)
    return "\n".join([*lines, "endmodule"]) + "\n"


class _Names:
    """How nets are written where they are read: anew after each rank that they pass."""

    def __init__(self, netlist: Netlist) -> None:
        reserved = {"clk", "unused", "unused_clk"}
        for k in range(1, MAX_STAGES + 1):
            reserved |= {f"{word}_{k}" for word in ("before", "after", "rank")}
        self.references = net_references(netlist, reserved | {"register"})
        self._plain = {
            net: name.replace("[", "_").replace("]", "") for net, name in self.references.items()
        }
        self._taken = reserved | set(self.references.values())

    def passed(self, nets: Sequence[int], rank: int) -> None:
        """Give the nets the names that they have behind the rank."""
        for net in nets:
            name = f"{self._plain[net]}_after_{rank}"
            while name in self._taken:
                name += "_"
            self._taken.add(name)
            self.references[net] = name


def _head(netlist: Netlist, module: str) -> list[str]:
    ranks = [
        f"  localparam RANK_{k} = {k} * STAGES / {MAX_STAGES} - {k - 1} * STAGES / {MAX_STAGES};"
        for k in range(1, MAX_STAGES + 1)
    ]
    return [
        f"module {module} #(parameter STAGES = 2)(clk, a, b, p);",
        "  input clk;",
        *port_lines(netlist),
        "",
        "  // which ranks are registers",
        *ranks,
        "  generate",
        f"    if (STAGES < 0 || STAGES > {MAX_STAGES}) begin : check",
        f"      STAGES_must_be_0_to_{MAX_STAGES} refused();",
        "    end",
        "  endgenerate",
        "",
        "  // without registers the clock is not used",
        "  wire unused_clk = &{1'b0, clk};",
    ]


def _slice(gates: Sequence[Gate], references: Mapping[int, str], number: int) -> list[str]:
    if not gates:
        return []
    groups: list[Group] = grouped(gates, references)
    return [
        f"  // slice {number}",
        *declarations(groups, references),
        *(assignment(gate, references) for group in groups for gate in group.gates),
        "",
    ]


def _rank(nets: Sequence[int], names: _Names, number: int) -> list[str]:
    if not nets:
        return []
    before = concatenation(nets, names.references, "  ")
    names.passed(nets, number)
    after = concatenation(nets, names.references, "  ")
    wires = ", ".join(names.references[net] for net in nets)
    width = bit_range(len(nets))
    return [
        f"  // rank {number}: {len(nets)} nets",
        f"  wire {width}before_{number} = {before};",
        f"  wire {width}after_{number};",
        *wrapped(f"wire {wires};", "  "),
        f"  assign {after} = after_{number};",
        *_registers(number, len(nets), f"after_{number}", f"before_{number}"),
    ]


def _last_rank(netlist: Netlist, references: Mapping[int, str]) -> list[str]:
    nets = netlist.outputs[0].nets
    return [
        f"  // rank {MAX_STAGES}: the product",
        f"  wire {bit_range(len(nets))}before_{MAX_STAGES} = "
        f"{concatenation(nets, references, '  ')};",
        *_registers(MAX_STAGES, len(nets), "p", f"before_{MAX_STAGES}"),
    ]


def _registers(number: int, width: int, after: str, before: str) -> list[str]:
    return [
        "  generate",
        f"    if (RANK_{number} != 0) begin : rank_{number}",
        f"      reg {bit_range(width)}register;",
        f"      always @(posedge clk) register <= {before};",
        f"      assign {after} = register;",
        f"    end else begin : rank_{number}",
        f"      assign {after} = {before};",
        "    end",
        "  endgenerate",
        "",
    ]
