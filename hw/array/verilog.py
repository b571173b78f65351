"""The array as Verilog-2001, one module a file, from Amaranth by way of Yosys.

Multipliers, units, columns and delays are instances, so that each can be replaced by another module
of the same ports. Yosys's text is tidied: a port is declared once, repetitions are written short.
"""

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..yosys import run_yosys
from .description import ArrayDescription

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

_COMMANDS = (
    "proc",
    "opt",
    "wreduce t:$add",
    "opt_clean -purge",
    "write_verilog -norename -noattr -simple-lhs array.v",
)


def array_verilog(array: ArrayDescription) -> dict[str, str]:
    """Verilog of the array without its multipliers: ``array/<module>.v`` → text.

    The top module is ``cosearch_systolic_array``; the multipliers' modules, ``cosearch_<name>``
    with ports a, b and p, are expected beside it. The same description gives the same text.
    """
    from amaranth.back import rtlil

    headers, files = {}, {}
    for module, component, header in _components(array):
        headers[module] = header
        files[f"{module}.il"] = rtlil.convert(component, name=module, emit_src=False)
    reads = [f"read_rtlil {name}" for name in files]
    text = run_yosys([*reads, *_COMMANDS], files, "array.v", what="the systolic array")
    modules = {
        re.search(r"module (\w+)", part)[1]: part  # type: ignore[index] # each begins with it
        for part in re.findall(r"^module .*?^endmodule\n", text, flags=re.M | re.DOTALL)
    }
    return {
        f"array/{module}.v": _comment(header) + _tidy(modules[module])
        for module, header in headers.items()
    }


def _components(array: ArrayDescription) -> Iterator[tuple[str, "Component", str]]:
    from .multiply_accumulate import MultiplyAccumulate
    from .systolic_array import (
        ARRAY_MODULE,
        Column,
        Delay,
        SystolicArray,
        column_module,
        delay_module,
        delays,
        unit_module,
    )

    yield ARRAY_MODULE, SystolicArray(array), _array_header(array)
    for index, tile in enumerate(array.tiles):
        unit = unit_module(array, index)
        names = ", ".join(multiplier.name for multiplier in tile.multipliers)
        yield unit, MultiplyAccumulate(array, tile), _UNIT_HEADER.format(names=names)
        header = _COLUMN_HEADER.format(rows=array.rows)
        yield column_module(array, index), Column(array, tile, None, unit), header
    for name, (width, clocks) in delays(array).items():
        amounts = ", ".join(map(str, clocks))
        header = _DELAY_HEADER.format(name=name, width=width, amounts=amounts)
        yield delay_module(name), Delay(width, clocks), header


def _comment(text: str) -> str:
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, 97)]
    return "".join(f"// {line}\n" for line in lines)


def _tidy(text: str) -> str:
    """Yosys's text of a module, without what is said twice or needs not be said.

    That is: second declarations of ports; initial values, as every register has a reset; Yosys's
    names for outputs that nothing reads. Operands get the widths that Verilog would give them.
    """
    text = re.sub(r"^(  reg .*) = \d+'\w+;$", r"\1;", text, flags=re.M)
    ports = re.findall(rf"^  (?:input|output) {_DECLARED};$", text, flags=re.M)
    again = {f"  wire {sign}{bits}{name};" for sign, bits, name in ports}
    text = "".join(f"{line}\n" for line in text.splitlines() if line not in again)
    for port, wire in re.findall(r"\.(\w+)\(\\(\$\d+) \)", text):
        text = re.sub(rf"\\{re.escape(wire)} ", f"unused_{port}", text)
    text = _explicit_widths(text)
    text = re.sub(r"\{ ([^{}]*) \}", _short_concatenation, text)
    assert "\\" not in text, text
    return text


_DECLARED = r"(signed )?(\[\d+:0\] )?(\w+)"
_SIGNED_SUM = r"assign (\w+) = \$signed\((\w+)\) \+ \$signed\((?:\{ (1'h0), )?(\w+)(?: \})?\);"


def _explicit_widths(text: str) -> str:
    """Comparisons with constants as wide as the signal, addends as wide as their sum."""
    found = re.findall(rf"^  (?:input|output|wire|reg) {_DECLARED};$", text, flags=re.M)
    widths = {name: int(bits[1:-4]) + 1 if bits else 1 for _, bits, name in found}

    def compared(match: re.Match[str]) -> str:
        name, operator, value = match.groups()
        return f"{name} {operator} {widths[name]}'h{value}"

    def added(match: re.Match[str]) -> str:
        total, augend, zero, addend = match.groups()
        missing = widths[total] - widths[addend]
        extension = f"{missing}'h0" if zero else f"{{{missing}{{{addend}[{widths[addend] - 1}]}}}}"
        wide = f"{{ {extension}, {addend} }}" if missing else addend
        return f"assign {total} = {augend} + {wide};"

    text = re.sub(r"! (\w+)", lambda m: f"{m[1]} == {widths[m[1]]}'h0", text)
    text = re.sub(r"(\w+) (==|>=) \d+'h(\w+)", compared, text)
    return re.sub(_SIGNED_SUM, added, text)


def _short_concatenation(match: re.Match[str]) -> str:
    """Runs of three or more equal items as a replication."""
    runs: list[tuple[str, int]] = []
    for item in match[1].split(", "):
        if runs and runs[-1][0] == item:
            runs[-1] = (item, runs[-1][1] + 1)
        else:
            runs.append((item, 1))
    items = [
        f"{{{count}{{{item}}}}}" if count > 2 else ", ".join([item] * count) for item, count in runs
    ]
    if len(items) == 1 and runs[0][1] > 2:
        return items[0]
    return f"{{ {', '.join(items)} }}"


_UNIT_HEADER = """\
Multiply-accumulate unit: sum <= partial_sum + activation x held weight. Multipliers: {names}.
load: weight and active go into the waiting register; swap: the waiting register is handed to the
held one, which computes from the next clock on. Not active: the product does not count. enable low:
nothing moves. next_*: what came in, one clock later, for the unit to the right."""
_COLUMN_HEADER = """\
One column of {rows} units: weight and active reach all of them (load says which takes them),
partial sums pass down from row 0, everything else passes from left to right. Row 0 in the lowest
bits."""
_DELAY_HEADER = """\
Delays the fields of {name}, {width} bits each, by {amounts} clocks, lowest field first."""


def _array_header(array: ArrayDescription) -> str:
    fan_in = {m.name: array.largest_fan_in(m.name) for m in array.multipliers}
    lines = [
        f"Weight-stationary systolic array, {array.rows} rows x {array.columns} columns, "
        f"accumulators of {array.accumulator_width} bits, two's complement.",
        "sums[c] = partial_sums[c] + sum over rows r of activations[r] x weight[r, c], "
        f"{array.latency} clocks after",
        "the clock in which they came in (valid -> sums_valid). Field 0 in the lowest bits.",
        "load, load_row, weights, active: the waiting weights of a row; swap: they count from the "
        "next clock on.",
        "Rows may be loaded in order, one a clock, from the clock of the swap on that hands over "
        "the rows before.",
        "enable low: nothing moves. rst: synchronous, clears every register.",
    ]
    first = 0
    for tile in array.tiles:
        names = ", ".join(f"{i} {m.name}" for i, m in enumerate(tile.multipliers))
        lines.append(f"columns {first} to {first + tile.columns - 1}: multipliers {names}")
        first += tile.columns
    if array.select_width:
        lines.append("select: which of them, for the position that comes in the same clock")
    lines += [f"no overflow below {k + 1} products of {name}" for name, k in fan_in.items()]
    return "\n".join(lines)
