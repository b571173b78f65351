"""A combinational Verilog module, read by Yosys; it may use the cells of a given library."""

import re
from pathlib import Path

from ..errors import InputError
from ..verilog import read_verilog
from .imported import Imported
from .source import Source, as_multiplier_ports


def imported(source: Source) -> Imported:
    """Module ``top`` (the only one, where not given); inputs as declared are its operands."""
    text = source.text("a Verilog file")
    top = source.top or _only_module(text, source.place)
    name = source.called(top)
    netlist = read_verilog(Path(source.place), top, source.cells)
    what = f"module {top} of {source.place}"
    operands = source.ordered([port.name for port in netlist.inputs], what)
    outputs = [port.name for port in netlist.outputs]
    if len(outputs) != 1 and source.product is None:
        raise InputError(f"{what} must have one output, or the product be named, not {outputs}")
    ported = as_multiplier_ports(netlist, name, operands, source.product or outputs[0])
    return Imported.of_gates(ported, source.is_signed(name), source.place)


def _only_module(text: str, place: str) -> str:
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    names: list[str] = re.findall(r"^\s*module\s+(\w+)", plain, re.MULTILINE)
    if len(names) != 1:
        raise InputError(
            f"top module of {place} must be given: it has {', '.join(names) or 'no module'}"
        )
    return names[0]
