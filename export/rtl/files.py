"""The Verilog files of a multiplier that a network uses, and the table that a file stands for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hw.errors import InputError
from lut import LUT, LibraryEntry

from .behavioural import behavioural_verilog
from .benches import bench_files, cocotb_files
from .converters import converted_verilog
from .names import ModuleNames, source_path
from .pipelined import MAX_STAGES, pipelined_verilog
from .structural import structural_verilog

if TYPE_CHECKING:
    from hw.multipliers import Multiplier

__all__ = [
    "entry_multiplier",
    "multiplier_files",
    "multiplier_verilog",
    "multipliers_rtl",
    "verilog_table",
]


def multipliers_rtl(entries: Sequence[LibraryEntry]) -> Mapping[str, str]:
    """Sources and benches of all the multipliers, text by path under ``rtl/``."""
    found: dict[str, str] = {}
    for entry in entries:
        found |= {**multiplier_files(entry), **bench_files(entry.lut)}
    return {**found, **cocotb_files([entry.lut for entry in entries])}


def multiplier_files(entry: LibraryEntry) -> Mapping[str, str]:
    """The multiplier in every form of it (`ModuleNames`), text by path under ``rtl/``.

    Raises InputError when the circuit of that name has another table than `entry`.
    """
    multiplier, header, lut = entry_multiplier(entry), _header(entry), entry.lut
    names = ModuleNames(entry.name)
    converted = names.converted(lut.a_signed)
    netlist = multiplier.netlist
    modules = {
        names.structural: structural_verilog(netlist, names.structural, header),
        names.behavioural: behavioural_verilog(
            multiplier, lut.table, names.behavioural, f"{header}\n\nBehavioural: the same products."
        ),
        names.pipelined: pipelined_verilog(netlist, names.pipelined, f"{header}\n{_PIPELINED}"),
        converted: converted_verilog(
            lut, names.structural, converted, f"{header}\n{_CONVERTED[lut.a_signed]}"
        ),
    }
    return {source_path(module): text for module, text in modules.items()}


_PIPELINED = f"""
Pipelined: p comes STAGES rising edges of clk after a and b (0 to {MAX_STAGES}; 0: combinational).
One pair of operands a clock. The last registers are at p, those before at about equal delays."""
_CONVERTED: Mapping[bool, str] = {
    False: """
For two's complement operands: magnitudes are multiplied, the sign is put back; a zero operand
gives zero. Figures are those of the multiplier inside.""",
    True: """
For unsigned operands of one bit less each; p is two's complement as the multiplier's own.
Figures are those of the multiplier inside.""",
}
"""What is said of the multiplier for the other operands, by whether it is signed itself."""


def multiplier_verilog(entry: LibraryEntry) -> str:
    """Structural Verilog-2001 of the multiplier; ports a, b, p; module names as `ModuleNames`.

    Raises InputError when the circuit of that name has another table than `entry`.
    """
    module = ModuleNames(entry.name).structural
    return structural_verilog(entry_multiplier(entry).netlist, module, _header(entry))


def verilog_table(path: Path, lut: LUT) -> NDArray[np.int32]:
    """The table of the module that `path` is named after, read by Yosys, every operand pair."""
    from hw import read_verilog, truth_table

    return truth_table(read_verilog(path, path.stem), signed=lut.a_signed)


def entry_multiplier(entry: LibraryEntry) -> "Multiplier":
    """The circuit of a library's entry. Raises InputError where that has another table."""
    from hw import build_multiplier

    multiplier = (
        build_multiplier(entry.name)
        if entry.circuit is None
        else build_multiplier(entry.name, entry.circuit.parent)
    )
    if LUT.of(multiplier).digest != entry.digest:
        raise InputError(
            f"multiplier {entry.name!r} must have the table of digest {entry.digest}, "
            "the circuit of that name has another"
        )
    return multiplier


def _header(entry: LibraryEntry) -> str:
    cost, metrics = entry.cost, entry.metrics
    kind = "two's complement" if entry.lut.a_signed else "unsigned"
    return "\n".join(
        [
            f"{entry.name}: {kind} multiplier, family {entry.family}",
            "p = a x b; a is the activation, b the weight",
            f"SHA-256 of the product table: {entry.digest}",
            f"MAE {metrics.mae:.6g}, WCE {metrics.wce}, MRE {metrics.mre:.6g}, EP {metrics.ep:.6g}",
            f"{cost.energy_fj:.1f} fJ a multiplication, {cost.delay_ps:.0f} ps, "
            f"{cost.area_um2:.1f} um2 on {cost.library} at {cost.clock_mhz:g} MHz",
            f"({cost.activity})",
        ]
    )
