"""C++ statements of a multiplier: from its gates, from its exact factors, from its table."""

import re
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hw import Netlist
from hw.errors import InputError
from hw.netlist import FALSE, GATE_KINDS, TRUE
from lut import LUT

__all__ = ["circuit_body", "factors_body", "table_body"]

_EXPRESSIONS: Mapping[str, str] = {
    "buf": "{a}",
    "not": "!{a}",
    "and": "{a} & {b}",
    "nand": "!({a} & {b})",
    "or": "{a} | {b}",
    "nor": "!({a} | {b})",
    "xor": "{a} ^ {b}",
    "xnor": "!({a} ^ {b})",
    "andnot": "{a} & !{b}",
    "ornot": "{a} | !{b}",
    "mux": "{s} ? {b} : {a}",
}


def circuit_body(netlist: Netlist, signed: bool) -> Iterator[str]:
    """One bool a net, under the net's name and number. `signed`: so is the product."""
    names = {FALSE: "false", TRUE: "true"}
    (product,) = netlist.outputs
    used = {net for gate in netlist.gates for net in gate.inputs} | set(product.nets)
    for port, operand in zip(netlist.inputs, "ab", strict=True):
        if used.isdisjoint(port.nets):
            yield f"(void){operand};"
        for bit, net in enumerate(port.nets):
            names[net] = f"{operand}_{bit}"
            if net in used:
                yield f"const bool {operand}_{bit} = ({operand} >> {bit}) & 1u;"
    for gate in netlist.gates:
        kind = netlist.kinds[gate.kind]
        if GATE_KINDS.get(gate.kind) != kind:
            raise InputError(f"gates of {netlist.name} must be generic ones, not {gate.kind}")
        pins = dict(zip(kind.inputs, (names[net] for net in gate.inputs), strict=True))
        (net,) = gate.outputs
        names[net] = _name(netlist, net)
        yield f"const bool {names[net]} = {_EXPRESSIONS[gate.kind].format(**pins)};"
    terms = [
        f"(static_cast<unsigned>({names[net]}) << {bit})" for bit, net in enumerate(product.nets)
    ]
    yield "const unsigned p ="
    yield from (f"    {term} |" for term in terms[:-1])
    yield f"    {terms[-1]};"
    yield _returned("p", product.width) if signed else "return static_cast<int>(p);"


def factors_body(lut: LUT) -> Iterator[str]:
    """The sum of one product of two small tables a rank: exact, and quick on a processor."""
    terms = []
    if lut.factors.rank == 0:
        yield "(void)a, (void)b;"
    for rank in range(lut.factors.rank):
        for side, factor in (("u", lut.factors.u), ("v", lut.factors.v)):
            yield from _array(f"{side}{rank}", factor[:, rank])
        terms.append(f"u{rank}[a] * v{rank}[b]")
    yield f"return {' + '.join(terms) or '0'};"


def table_body(lut: LUT) -> Iterator[str]:
    """The table, row after row."""
    yield from _array("table", lut.table.reshape(-1))
    yield f"return table[(a << {lut.b_width}) | b];"


def _array(name: str, values: NDArray[np.integer]) -> Iterator[str]:
    """Declared in the narrowest standard type that holds the values."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    kinds = {"signed char": 7, "short": 15, "int": 31}
    kind = next((k for k, bits in kinds.items() if -(1 << bits) <= low and high < 1 << bits), None)
    if kind is None:
        raise InputError(f"values of {name} must fit 32 bits, not {low} … {high}")
    yield f"static const {kind} {name}[{len(values)}] = {{"
    for start in range(0, len(values), 16):
        yield f"    {', '.join(map(str, values[start : start + 16].tolist()))},"
    yield "};"


def _name(netlist: Netlist, net: int) -> str:
    plain = re.sub(r"\W+", "_", netlist.net_names.get(net, "n"), flags=re.ASCII).strip("_")
    return f"{plain if plain[:1].isalpha() else f'n{plain}'}_{net}"


def _returned(pattern: str, width: int) -> str:
    half = f"{1 << (width - 1)}"
    return f"return static_cast<int>({pattern} ^ {half}u) - {half};"
