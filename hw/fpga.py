"""What a circuit takes on an FPGA: cells and clock frequency on iCE40 and ECP5, placed and routed.

The circuit is put between registers, synthesised by Yosys and placed and routed by nextpnr, as pip
installs it (``pip install 'cosearch[fpga]'``). Placement begins at random, and the frequency
depends on it: the median over several seeds is given. The same netlist gives the same figures.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import InputError, unknown_name
from .netlist import Netlist
from .verilog import verilog
from .yosys import run_yosys

SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class FpgaFamily:
    """How a family is synthesised, and which of its devices the figures hold for."""

    name: str
    device: str
    synthesis: str
    program: str
    options: tuple[str, ...]
    lut: str
    """The cell that is a four-input FPGA look-up table."""


FPGA_FAMILIES: Mapping[str, FpgaFamily] = {
    "ice40": FpgaFamily(
        "ice40",
        "iCE40 HX8K, CT256",
        "synth_ice40 -top top -json top.json",
        "nextpnr_ice40",
        ("--hx8k", "--package", "ct256", "--pcf-allow-unconstrained"),
        "SB_LUT4",
    ),
    "ecp5": FpgaFamily(
        "ecp5",
        "ECP5 25F, CABGA381, speed 6",
        "synth_ecp5 -top top -json top.json",
        "nextpnr_ecp5",
        ("--25k", "--package", "CABGA381", "--speed", "6", "--lpf-allow-unconstrained"),
        "LUT4",
    ),
}


@dataclass(frozen=True)
class FpgaFigures:
    """``cells`` by type, registers and pins left out; the frequency between the registers."""

    family: str
    device: str
    luts: int
    cells: Mapping[str, int]
    fmax_mhz: float


def fpga_figures(netlist: Netlist, family: str, seeds: Sequence[int] = SEEDS) -> FpgaFigures:
    """The figures of a combinational netlist of generic gates between registers."""
    if family not in FPGA_FAMILIES:
        raise unknown_name("FPGA family", family, FPGA_FAMILIES)
    chosen = FPGA_FAMILIES[family]
    if importlib.util.find_spec(f"yowasp_{chosen.program}") is None:
        raise InputError(
            f"nextpnr for {family} must be installed (pip install 'cosearch[fpga]'), it is not"
        )
    text = _synthesised(netlist, chosen)
    counts = _counts(text)
    fmax = statistics.median(_fmax_mhz(text, chosen, seed, netlist.name) for seed in seeds)
    return FpgaFigures(family, chosen.device, counts.get(chosen.lut, 0), counts, fmax)


def _synthesised(netlist: Netlist, family: FpgaFamily) -> str:
    core = verilog(replace(netlist, net_names={}), module="core")
    commands = ("read_verilog core.v", "read_verilog top.v", family.synthesis)
    files = {"core.v": core, "top.v": _registered(netlist)}
    return run_yosys(commands, files, "top.json", what=netlist.name)


def _registered(netlist: Netlist) -> str:
    """Module ``top``: the core with registers at its inputs and outputs."""
    ranges = {port.name: f"[{port.width - 1}:0]" for port in (*netlist.inputs, *netlist.outputs)}
    inputs, outputs = ([port.name for port in each] for each in (netlist.inputs, netlist.outputs))
    pins = ", ".join(f".{name}(core_{name})" for name in ranges)
    return "\n".join(
        [
            f"module top(clock, {', '.join(ranges)});",
            "  input clock;",
            *(f"  input {ranges[name]} {name};" for name in inputs),
            *(f"  output reg {ranges[name]} {name};" for name in outputs),
            *(f"  reg {ranges[name]} core_{name};" for name in inputs),
            *(f"  wire {ranges[name]} core_{name};" for name in outputs),
            f"  core core_0 ({pins});",
            "  always @(posedge clock) begin",
            *(f"    core_{name} <= {name};" for name in inputs),
            *(f"    {name} <= core_{name};" for name in outputs),
            "  end",
            "endmodule",
            "",
        ]
    )


def _counts(text: str) -> dict[str, int]:
    cells: dict[str, Any] = json.loads(text)["modules"]["top"]["cells"]
    types = Counter(cell["type"] for cell in cells.values())
    return {
        kind: count
        for kind, count in sorted(types.items())
        if "DFF" not in kind and "_FF" not in kind and "_IO" not in kind and kind[0] != "$"
    }


_PROGRAM = "import sys, yowasp_{0} as program; sys.exit(program.run_{0}(sys.argv[1:]))"


def _fmax_mhz(text: str, family: FpgaFamily, seed: int, name: str) -> float:
    with tempfile.TemporaryDirectory(prefix="cosearch-fpga-") as folder:
        (Path(folder) / "top.json").write_text(text)
        command = [sys.executable, "-c", _PROGRAM.format(family.program), *family.options]
        command += ["--json", "top.json", "--report", "report.json", "--seed", str(seed), "-q"]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        report = Path(folder) / "report.json"
        if process.returncode or not report.exists():
            lines = [line for line in process.stderr.splitlines() if "ERROR" in line]
            raise InputError(f"{name} must fit {family.device}, but {(lines or ['failed'])[-1]}")
        (clock,) = json.loads(report.read_text())["fmax"].values()
        return float(clock["achieved"])
