"""Verilog of the multipliers that a network uses, and the table that a file of it stands for."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.errors import InputError
from lut import LUT, LibraryEntry

__all__ = ["multiplier_verilog", "verilog_table"]


def multiplier_verilog(entry: LibraryEntry) -> str:
    """Structural Verilog-2001 of the multiplier; module name = multiplier name, ports a, b, p.

    Raises InputError when the circuit of that name has another table than `entry`.
    """
    from hw import build_multiplier, verilog

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
    return verilog(multiplier.netlist, module=entry.name, header=_header(entry))


def verilog_table(path: Path, lut: LUT) -> NDArray[np.int32]:
    """The table of the module in `path` that is named `lut.name`, read by Yosys, every operand
    pair.
    """
    from hw import read_verilog, truth_table

    return truth_table(read_verilog(path, lut.name), signed=lut.a_signed)


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
