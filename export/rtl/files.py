"""The Verilog files of a multiplier that a network uses, and the table that a file stands for."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hw.errors import InputError
from lut import LUT, LibraryEntry

from .names import ModuleNames, source_path
from .pipelined import MAX_STAGES, pipelined_verilog
from .structural import structural_verilog

if TYPE_CHECKING:
    from hw import Multiplier

__all__ = ["multiplier_files", "multiplier_verilog", "verilog_table"]


def multiplier_verilog(entry: LibraryEntry) -> str:
    """Structural Verilog-2001 of the multiplier; ports a, b, p; module names as `ModuleNames`.

    Raises InputError when the circuit of that name has another table than `entry`.
    """
    module = ModuleNames(entry.name).structural
    return structural_verilog(_circuit(entry).netlist, module, _header(entry))


def verilog_table(path: Path, lut: LUT) -> NDArray[np.int32]:
    """The table of the module that `path` is named after, read by Yosys, every operand pair."""
    from hw import read_verilog, truth_table

    return truth_table(read_verilog(path, path.stem), signed=lut.a_signed)


def _circuit(entry: LibraryEntry) -> "Multiplier":
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
            f"{cost.energy_fj:.1f} fJ a multiplication ({cost.activity}), {cost.delay_ps:.0f} ps, "
            f"{cost.area_um2:.1f} um2",
            f"on {cost.library} at {cost.clock_mhz:g} MHz",
        ]
    )
