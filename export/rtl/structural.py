"""A multiplier's gates as structural Verilog-2001, grouped as the circuit is built."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hw.netlist import GATE_KINDS, Gate, Netlist, Port
from hw.verilog import gate_expression, net_references

__all__ = ["structural_verilog"]

TITLES: Mapping[str, str] = {
    "product": "partial products",
    "both": "ANDs",
    "half_adder": "half adders: half_adder_<column>_<number>",
    "half_adder_plus_one": "half adders that also add one: half_adder_plus_one_<column>_<number>",
    "full_adder": "full adders: full_adder_<column>_<number>",
    "leading": "leading ones",
    "n": "gates",
}
"""What a group of gates is called above it, by the first word of its nets; else by that word."""

_WIDTH = 98


@dataclass(frozen=True)
class Group:
    """Gates whose nets are called alike, in a reader's order."""

    stem: str
    gates: tuple[Gate, ...]

    @property
    def title(self) -> str:
        return TITLES.get(self.stem, self.stem.replace("_", " "))


def structural_verilog(netlist: Netlist, module: str, header: str) -> str:
    """The netlist, of generic gates and with ports a, b and p, as one module: one wire a net."""
    netlist = live(netlist)
    references = net_references(netlist, reserved=("unused",))
    groups = grouped(netlist.gates, references)
    lines = [
        *comment(header),
        f"module {module}(a, b, p);",
        *port_lines(netlist),
        "",
        *declarations(groups, references),
        *(line for group in groups for line in _assignments(group, references)),
        *unused_inputs(netlist),
        f"  assign p = {concatenation(netlist.outputs[0].nets, references, '  ')};",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def live(netlist: Netlist) -> Netlist:
    """The netlist with ports a, b and p and without gates that no output depends on."""
    assert all(GATE_KINDS.get(gate.kind) == netlist.kinds[gate.kind] for gate in netlist.gates)
    needed = set(netlist.outputs[0].nets)
    kept: list[Gate] = []
    for gate in reversed(netlist.gates):
        if needed.intersection(gate.outputs):
            needed.update(gate.inputs)
            kept.append(gate)
    gates = tuple(reversed(kept))
    driven = {net for gate in gates for net in gate.outputs}
    names = {net: name for net, name in netlist.net_names.items() if net in driven}
    inputs = tuple(Port(name, port.nets) for name, port in zip("ab", netlist.inputs, strict=True))
    return Netlist(netlist.name, inputs, (Port("p", netlist.outputs[0].nets),), gates, names)


def grouped(gates: Sequence[Gate], references: Mapping[int, str]) -> list[Group]:
    """The gates by the first word of their nets' names, groups by how early they begin.

    Within a group by the numbers in the names; an adder's gates stay as they are, together.
    """
    depths = _depths(gates)
    found: dict[str, list[Gate]] = {}
    for gate in gates:
        found.setdefault(_parts(references[gate.outputs[0]])[0], []).append(gate)

    def begin(stem: str) -> tuple[int, str]:
        return min(depths[gate.outputs[0]] for gate in found[stem]), stem

    return [
        Group(stem, tuple(sorted(found[stem], key=lambda g: _parts(references[g.outputs[0]])[1])))
        for stem in sorted(found, key=begin)
    ]


def _parts(name: str) -> tuple[str, tuple[int, ...]]:
    """``full_adder_7_1_carry`` is (full_adder, (7, 1)), ``n12`` is (n, (12,))."""
    match = re.match(r"(\D*?)_?(\d+(?:_\d+)*)(?!\d)", name)
    if match is None:
        return name, ()
    return match[1] or name, tuple(int(number) for number in match[2].split("_"))


def _depths(gates: Iterable[Gate]) -> dict[int, int]:
    """Gates on the longest way to each net that a gate drives."""
    depths: dict[int, int] = {}
    for gate in gates:
        depth = 1 + max((depths.get(net, 0) for net in gate.inputs), default=0)
        depths.update(dict.fromkeys(gate.outputs, depth))
    return depths


def comment(text: str) -> list[str]:
    """Lines of a ``//`` comment."""
    return [f"// {line}".rstrip() for line in text.splitlines()]


def port_lines(netlist: Netlist) -> list[str]:
    """Declarations of the ports."""
    return [
        *(f"  input {bit_range(port.width)}{port.name};" for port in netlist.inputs),
        *(f"  output {bit_range(port.width)}{port.name};" for port in netlist.outputs),
    ]


def bit_range(width: int) -> str:
    """``[7:0] `` for 8, nothing for a single bit."""
    return "" if width == 1 else f"[{width - 1}:0] "


def declarations(groups: Iterable[Group], references: Mapping[int, str]) -> list[str]:
    """The wires of each group."""
    lines: list[str] = []
    for group in groups:
        names = [references[net] for gate in group.gates for net in gate.outputs]
        lines += wrapped(f"wire {', '.join(names)};", "  ")
    return lines


def _assignments(group: Group, references: Mapping[int, str]) -> list[str]:
    return [
        "",
        f"  // {group.title}",
        *(assignment(gate, references) for gate in group.gates),
    ]


def assignment(gate: Gate, references: Mapping[int, str]) -> str:
    """The continuous assignment that is a gate."""
    return f"  assign {references[gate.outputs[0]]} = {gate_expression(gate, references)};"


def unused_inputs(netlist: Netlist) -> list[str]:
    """Bits of the operands that no product depends on, put together so that no tool warns."""
    used = {net for gate in netlist.gates for net in gate.inputs}
    used.update(netlist.outputs[0].nets)
    references = net_references(netlist)
    left = [references[net] for port in netlist.inputs for net in port.nets if net not in used]
    if not left:
        return [""]
    text = f"wire unused = &{{1'b0, {', '.join(left)}}};"
    return [
        "",
        "  // bits of the operands that the product does not depend on",
        *wrapped(text, "  "),
        "",
    ]


def concatenation(nets: Sequence[int], references: Mapping[int, str], indent: str) -> str:
    """``{highest, …, lowest}`` over as many lines as it takes."""
    bits = ", ".join(references[net] for net in reversed(nets))
    if len(nets) == 1:
        return bits
    if len(bits) < _WIDTH - 40:
        return f"{{{bits}}}"
    return "\n".join(["{", *wrapped(bits, f"{indent}  "), f"{indent}}}"])


def wrapped(text: str, indent: str) -> list[str]:
    """The text in lines, broken at spaces, all but the first indented once more."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if text.endswith(";") else indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
