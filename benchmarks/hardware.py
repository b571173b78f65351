"""Gates to figures: ``python -m benchmarks.hardware`` prints one JSON object a line.

One process on one core, the embedded cell library; nothing is cached between the measurements.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measurement import Measurement, print_machine, print_measurement, seconds
from hw import (
    CATALOGUE,
    Cost,
    Multiplier,
    build_multiplier,
    default_library,
    multiplier_cost,
    netlist_cost,
    operand_activity,
    read_liberty,
    read_verilog,
    synthesise,
    truth_table,
    verilog,
    write_text,
)
from hw.liberty import DEFAULT_LIBRARY

EXACT = "mul8u_array"


def main() -> None:
    """All measurements."""
    print_machine()
    for measurement in (*speed(), *figures()):
        print_measurement(measurement)


def speed() -> list[Measurement]:
    """How long the steps from a name to its figures take."""
    exact = build_multiplier(EXACT)
    library = default_library()
    mapped = synthesise(exact.netlist, library)
    table_s = seconds(lambda: truth_table(exact.netlist, signed=False))
    energy_s = seconds(lambda: netlist_cost(mapped, library, operand_activity(mapped)))
    histogram = np.arange(256)
    weighted_s = seconds(lambda: operand_activity(mapped, [histogram, histogram]))
    build_multiplier.cache_clear()
    ten_s = _once(lambda: [multiplier_cost(build_multiplier(name)) for name in CATALOGUE[:10]])
    return [
        Measurement("LUT of an 8x8 netlist, all 65,536 pairs", table_s * 1e3, "ms", 20),
        Measurement("energy, 65,536 pairs, zero delay", energy_s * 1e3, "ms", 50),
        Measurement("activity under operand histograms", weighted_s * 1e3, "ms", 50),
        Measurement(
            "synthesis of one 8x8 multiplier",
            seconds(lambda: synthesise(exact.netlist, library), 3),
            "s",
            2,
        ),
        Measurement("reading the embedded library", seconds(_read_library) * 1e3, "ms", 200),
        Measurement("ten multipliers, gates to figures, one core", ten_s, "s", 20),
    ]


def figures() -> list[Measurement]:
    """What the catalogue costs, and whether every circuit is what its Verilog says."""
    start = time.perf_counter()
    multipliers = [build_multiplier(name) for name in CATALOGUE]
    costs = {multiplier.name: multiplier_cost(multiplier) for multiplier in multipliers}
    catalogue_s = time.perf_counter() - start
    differing = sum(not _verilog_agrees(multiplier) for multiplier in multipliers)
    exact = costs[EXACT]
    return [
        Measurement(f"catalogue of {len(CATALOGUE)}, one core", catalogue_s, "s", 180),
        Measurement("circuits whose Verilog reads back differently", differing, "circuits", 0),
        Measurement("truncations that cost more energy", _increases(costs), "pairs", 0),
        Measurement(f"{EXACT}: energy per multiplication", exact.energy_fj, "fJ"),
        Measurement(f"{EXACT}: critical path", exact.delay_ps, "ps"),
        Measurement(f"{EXACT}: area", exact.area_um2, "um2"),
    ]


def _verilog_agrees(multiplier: Multiplier) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "multiplier.v"
        write_text(path, verilog(multiplier.netlist))
        back = read_verilog(path, multiplier.name)
    return np.array_equal(
        truth_table(back, multiplier.signed), truth_table(multiplier.netlist, multiplier.signed)
    )


def _increases(costs: dict[str, Cost]) -> int:
    """Neighbours in the chain of truncations of one sign where the second costs more."""
    chains = [[f"mul8{s}_array", *(f"mul8{s}_truncated_k{k}" for k in range(2, 10))] for s in "su"]
    return sum(
        costs[more].energy_fj < costs[less].energy_fj
        for chain in chains
        for more, less in itertools.pairwise(chain)
    )


def _read_library() -> object:
    return read_liberty(DEFAULT_LIBRARY)


def _once(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
