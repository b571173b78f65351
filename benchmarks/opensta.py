"""Delay and power against OpenSTA, a static timing analyser that knows nothing of this project.

``python -m benchmarks.opensta [--sta PROGRAM] [--cells LIB]`` prints one JSON object a line. Any
version serves for delay, so Debian's (package ``opensta``); power is compared only with version 3
or later, whose ``report_power`` is given the activity that our own figures are made from. OpenSTA's
switching power has no nets that input ports drive; with those left out of ours it is the same
figure, so both ratios are printed.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measurement import Measurement, print_machine, print_measurement
from hw import (
    CATALOGUE,
    Activity,
    CellLibrary,
    Netlist,
    build_multiplier,
    find_library,
    netlist_cost,
    operand_activity,
    static_timing,
    synthesise,
    verilog,
)
from hw.timing import INPUT_SLEW_PS

CIRCUITS = CATALOGUE[:: max(1, len(CATALOGUE) // 10)][:10]
CLOCK_NS = 2.0


@dataclass(frozen=True)
class Report:
    """What OpenSTA says: delay in ps, powers in W (none from a version before 3)."""

    delay_ps: float
    internal_w: float | None = None
    switching_w: float | None = None
    leakage_w: float | None = None


@dataclass(frozen=True)
class Ratios:
    """Ours over theirs, of one circuit."""

    delay: float
    internal: float | None = None
    switching: float | None = None
    switching_without_inputs: float | None = None


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sta", default="sta", help="OpenSTA's program")
    parser.add_argument("--cells", default="", help="Liberty file; default: the embedded library")
    arguments = parser.parse_args()
    if shutil.which(arguments.sta) is None:
        raise SystemExit(
            f"--sta must be OpenSTA (Debian: apt install opensta), not {arguments.sta}"
        )
    print_machine()
    library = find_library(arguments.cells)
    for measurement in measurements(arguments.sta, library):
        print_measurement(measurement)


def measurements(sta: str, library: CellLibrary) -> Iterator[Measurement]:
    """The worst deviations over ten circuits."""
    ratios = [compare(sta, library, name) for name in CIRCUITS]
    what = f"{len(ratios)} circuits on {library.name}, ours over OpenSTA {version(sta)}"
    delays = [ratio.delay for ratio in ratios]
    yield Measurement(f"{what}: delay, largest deviation", _deviation(delays), "%", 4.0)
    internal = [ratio.internal for ratio in ratios if ratio.internal is not None]
    if internal:
        yield Measurement(f"{what}: internal power", _deviation(internal), "%", 4.0)
        for field, note in (("switching", ""), ("switching_without_inputs", " without input nets")):
            values = [getattr(ratio, field) for ratio in ratios]
            yield Measurement(f"{what}: switching power{note}, least ratio", min(values), "")
            yield Measurement(f"{what}: switching power{note}, largest ratio", max(values), "")


def compare(sta: str, library: CellLibrary, name: str) -> Ratios:
    """One circuit of the catalogue, uniform operands."""
    mapped = synthesise(build_multiplier(name).netlist, library)
    activity = operand_activity(mapped)
    report = opensta_report(sta, library, mapped, activity)
    delay = static_timing(mapped, library).delay_ps / report.delay_ps
    if report.internal_w is None or report.switching_w is None:
        return Ratios(delay)
    cost = netlist_cost(mapped, library, activity, clock_mhz=1e3 / CLOCK_NS)
    to_w = 1e-15 / (CLOCK_NS * 1e-9)
    return Ratios(
        delay,
        cost.internal_fj * to_w / report.internal_w,
        cost.switching_fj * to_w / report.switching_w,
        (cost.switching_fj - _of_inputs(mapped, library, activity)) * to_w / report.switching_w,
    )


def version(sta: str) -> str:
    """OpenSTA's version, as it says it."""
    text = subprocess.run([sta, "-version"], capture_output=True, text=True, check=True).stdout
    return text.strip().splitlines()[-1]


def opensta_report(sta: str, library: CellLibrary, mapped: Netlist, activity: Activity) -> Report:
    """OpenSTA's figures of a mapped netlist."""
    power = int(version(sta).partition(".")[0]) >= 3
    with tempfile.TemporaryDirectory(prefix="cosearch-opensta-") as folder:
        (Path(folder) / "cells.lib").write_text(library.text)
        (Path(folder) / "top.v").write_text(verilog(mapped, module="top"))
        commands = [*_TIMING, *(_power_commands(mapped, activity) if power else []), "exit"]
        (Path(folder) / "run.tcl").write_text("\n".join(commands))
        text = subprocess.run(
            [sta, "-no_splash", "-exit", "run.tcl"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    delay = re.search(r"([\d.]+)\s+data arrival time", text)
    if delay is None:
        raise RuntimeError(f"OpenSTA reported no path: {text[-500:]}")
    total = re.search(r"^Total +(\S+) +(\S+) +(\S+)", text, re.MULTILINE)
    powers = [float(value) for value in total.groups()] if total else []
    return Report(float(delay[1]) * 1e3, *powers)


_TIMING = (
    "read_liberty cells.lib",
    "read_verilog top.v",
    "link_design top",
    "set_cmd_units -time ns -capacitance fF -power W",
    f"create_clock -name clock -period {CLOCK_NS}",
    "set_max_delay 1000 -from [all_inputs] -to [all_outputs]",
    f"set_input_transition {INPUT_SLEW_PS / 1e3} [all_inputs]",
    "report_checks -path_delay max -digits 5",
)


def _power_commands(mapped: Netlist, activity: Activity) -> Iterator[str]:
    """Edges a clock cycle and share of ones, of every input and every pin that drives a net."""
    ones = _ones(mapped, activity)
    for port in mapped.inputs:
        for bit, net in enumerate(port.nets):
            place = f"-input_ports [get_ports {{{port.name}[{bit}]}}]"
            yield _activity(place, activity.toggles(net), ones[net])
    for index, gate in enumerate(mapped.gates):
        pins = mapped.kinds[gate.kind].outputs
        for pin, net in zip(pins, gate.outputs, strict=True):
            place = f"-pins [get_pins cell_{index}/{pin}]"
            yield _activity(place, activity.toggles(net), ones[net])
    yield "report_power -digits 8"


def _activity(place: str, edges: float, ones: float) -> str:
    return f"set_power_activity {place} -activity {edges:.8g} -duty {ones:.8g}"


def _ones(mapped: Netlist, activity: Activity) -> dict[int, float]:
    ones = {net: 0.5 for port in mapped.inputs for net in port.nets}
    for gate, each in zip(mapped.gates, activity.gates, strict=True):
        for net, table in zip(gate.outputs, mapped.kinds[gate.kind].tables, strict=True):
            high = [state for state in range(each.states.size) if table >> state & 1]
            ones[net] = float(each.states[high].sum())
    return ones


def _of_inputs(mapped: Netlist, library: CellLibrary, activity: Activity) -> float:
    """Our switching energy of the nets that input ports drive, in fJ."""
    loads = static_timing(mapped, library).loads_ff
    nets = [net for port in mapped.inputs for net in port.nets]
    return sum(activity.toggles(net) * loads[net] * library.voltage_v**2 / 2 for net in nets)


def _deviation(ratios: list[float]) -> float:
    return float(np.abs(np.array(ratios) - 1).max() * 100)


if __name__ == "__main__":
    main()
