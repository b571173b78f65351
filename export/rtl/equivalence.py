"""Proofs that two Verilog modules compute the same, by Yosys and ABC.

The modules are joined into a miter, a circuit whose only output is one where they differ, which ABC
turns into a binary decision diagram: it collapses to the constant zero exactly if they are equal,
and Yosys's SAT solver is asked to prove that of what is left.

A pipeline is proved in two steps. Every way from an input to the output has the same number of
registers, all of one clock, without reset or enable, and none is in a cycle: so the output is, that
many clocks later, what the circuit without registers gives. And that circuit is proved equal.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hw.errors import InputError
from hw.yosys import run_yosys

__all__ = ["pipeline_latency", "prove_equivalent"]

_FLATTEN = ("hierarchy -check -top {module}", "proc", "flatten", "opt_clean")
_NO_REGISTERS = """
module \\$_DFF_P_ (input C, D, output Q);
  assign Q = D;
endmodule
"""


def prove_equivalent(
    golden: str,
    revised: str,
    files: Mapping[str, str],
    *,
    parameters: Mapping[str, int] | None = None,
    latency: int | None = None,
) -> None:
    """Prove that module ``revised`` gives for every a and b the p of the combinational ``golden``.

    ``files``: Verilog by name, in which both modules and all they use are. ``parameters`` are set
    for ``revised``. With ``latency``, ``revised`` is a pipeline on the clock ``clk`` and gives it
    so many clocks later. Raises InputError when that is not so.
    """
    settings = parameters or {}
    if latency is not None:
        found = pipeline_latency(revised, files, settings)
        if found not in (latency, None):
            raise InputError(f"latency of {revised} must be {latency} clocks, not {found}")
    commands = [
        *_combinational(golden, "gold", {}, files),
        *_combinational(revised, "gate", settings, files),
        "design -copy-from gold -as gold gold",
        "design -copy-from gate -as gate gate",
        "miter -equiv -flatten gold gate miter",
        "hierarchy -top miter",
        "opt_clean",
        "check -assert",
        "techmap",
        "opt",
        "abc -script +strash;collapse;strash",
        "opt_clean",
        "sat -verify -prove trigger 0",
        "write_json proved.json",
    ]
    _run(commands, files, golden, revised)


def _combinational(
    module: str, name: str, parameters: Mapping[str, int], files: Mapping[str, str]
) -> list[str]:
    """Commands that keep the module, flat and without registers, as ``name``."""
    return [
        "design -reset",
        *_read(module, parameters, files),
        "simplemap t:$dff",
        "techmap -map registers.v",
        "clean",
        f"rename -top {name}",
        *_without_clock(name),
        f"design -save {name}",
    ]


def _without_clock(name: str) -> tuple[str, str]:
    """The clock is no port once nothing is clocked."""
    return f"delete -input {name}/clk", f"delete {name}/clk"


def _read(module: str, parameters: Mapping[str, int], files: Mapping[str, str]) -> list[str]:
    return [
        *(f"read_verilog {_file_name(number)}" for number in range(len(files))),
        *(f"chparam -set {name} {value} {module}" for name, value in parameters.items()),
        *(command.format(module=module) for command in _FLATTEN),
    ]


def _run(commands: Sequence[str], files: Mapping[str, str], golden: str, revised: str) -> None:
    what = f"equivalence of {golden} and {revised}"
    try:
        run_yosys(
            commands, {**_numbered(files), "registers.v": _NO_REGISTERS}, "proved.json", what=what
        )
    except InputError as error:
        if "proof did fail" not in str(error):
            raise
        raise InputError(
            f"module {revised} must compute what {golden} does, not another product"
        ) from None


def _numbered(files: Mapping[str, str]) -> dict[str, str]:
    return {_file_name(number): text for number, text in enumerate(files.values())}


def _file_name(number: int) -> str:
    return f"source_{number}.v"


def pipeline_latency(
    module: str, files: Mapping[str, str], parameters: Mapping[str, int] | None = None
) -> int | None:
    """Registers on every way from an input of the module to an output; None where there is no way.

    Raises InputError when ways differ, when one is a cycle, or when a register is anything but
    driven by the rising edge of port clk.
    """
    commands = [*_read(module, parameters or {}, files), "techmap", "write_json top.json"]
    text = run_yosys(commands, _numbered(files), "top.json", what=f"module {module}")
    (found,) = [m for m in json.loads(text)["modules"].values() if "top" in m["attributes"]]
    return _latency(found, module)


def _latency(found: dict[str, Any], module: str) -> int | None:
    """The latency of a flat module in Yosys's JSON."""
    clock = found["ports"].get("clk", {"bits": [None]})["bits"][0]
    after: dict[int, int | None] = {}
    for name, port in found["ports"].items():
        if port["direction"] == "input" and name != "clk":
            after.update(dict.fromkeys(port["bits"], 0))
    waiting = list(found["cells"].values())
    while waiting:
        ready = [cell for cell in waiting if all(bit in after for bit in _sources(cell))]
        if not ready:
            raise InputError(f"{module} must be free of cycles to have a latency, it is not")
        for cell in ready:
            after.update(dict.fromkeys(_driven(cell), _cell_latency(cell, after, clock, module)))
        waiting = [cell for cell in waiting if not all(bit in after for bit in _driven(cell))]
    outputs = [p["bits"] for p in found["ports"].values() if p["direction"] == "output"]
    return _common((bit for bits in outputs for bit in bits), after, module)


def _cell_latency(
    cell: dict[str, Any], after: Mapping[int, int | None], clock: object, module: str
) -> int | None:
    before = _common(_sources(cell), after, module)
    if "FF" not in cell["type"] and "LATCH" not in cell["type"]:
        return before
    if cell["type"] != "$_DFF_P_" or cell["connections"]["C"] != [clock]:
        raise InputError(
            f"registers of {module} must be on the rising edge of clk alone, not {cell['type']}"
        )
    return None if before is None else before + 1


def _common(bits: Any, after: Mapping[int, int | None], module: str) -> int | None:
    """The one latency of all bits; constants have none."""
    found = {after[bit] for bit in bits if isinstance(bit, int)} - {None}
    if len(found) > 1:
        raise InputError(
            f"ways through {module} must pass equally many registers, not {sorted(map(str, found))}"
        )
    return found.pop() if found else None


def _sources(cell: dict[str, Any]) -> list[int]:
    return [
        bit
        for pin, bits in cell["connections"].items()
        if cell["port_directions"][pin] == "input" and not ("FF" in cell["type"] and pin == "C")
        for bit in bits
        if isinstance(bit, int)
    ]


def _driven(cell: dict[str, Any]) -> list[int]:
    return [
        bit
        for pin, bits in cell["connections"].items()
        if cell["port_directions"][pin] == "output"
        for bit in bits
    ]
