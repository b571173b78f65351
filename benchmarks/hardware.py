"""Gates to figures: ``python -m benchmarks.hardware`` prints one JSON object a line.

``--cells LIB`` adds how the embedded library ranks the catalogue against LIB (FreePDK45: gscl45nm).
Single figures are of one process on one core and nothing is remembered; the catalogue is computed
in as many processes as there are cores, first with an empty cache, then again.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.measurement import Measurement, print_machine, print_measurement, seconds
from hw import (
    CATALOGUE,
    Cost,
    EnergyModel,
    Multiplier,
    Operands,
    build_multiplier,
    default_library,
    mapped_cost,
    operand_stream,
    read_liberty,
    read_verilog,
    synthesise,
    truth_table,
    verilog,
    write_text,
)
from hw.cache import Cache
from hw.fpga import FPGA_FAMILIES, fpga_figures
from hw.liberty import DEFAULT_LIBRARY
from hw.survey import Survey, survey

EXACT = "mul8u_array"
FPGA_CIRCUITS = (EXACT, "mul8u_truncated_k6")
Costs = Mapping[str, Mapping[EnergyModel, Cost]]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="", help="Liberty file to rank the catalogue with")
    arguments = parser.parse_args()
    print_machine()
    for measurement in speed():
        print_measurement(measurement)
    with tempfile.TemporaryDirectory(prefix="cosearch-benchmark-") as folder:
        for measurement in catalogue(Cache(Path(folder)), arguments.cells):
            print_measurement(measurement)
    for measurement in fpga():
        print_measurement(measurement)


def speed() -> Iterator[Measurement]:
    """How long the steps from a netlist to its figures take."""
    exact = build_multiplier(EXACT)
    library = default_library()
    mapped = synthesise(exact.netlist, library)
    table_s = seconds(lambda: truth_table(exact.netlist, signed=False))
    yield Measurement("LUT of an 8x8 netlist, all 65,536 pairs", table_s * 1e3, "ms", 20)
    stream = Operands(stream=operand_stream(mapped))
    histograms = Operands(np.arange(256), np.arange(256)[::-1])
    zero: EnergyModel = "workload zero-delay"
    real: EnergyModel = "workload real-delay"
    for what, operands in (("uniform", None), ("histograms", histograms), ("stream", stream)):
        energy_s = seconds(partial(mapped_cost, mapped, library, operands, model=zero))
        yield Measurement(f"energy, zero delay, 65,536 pairs, {what}", energy_s * 1e3, "ms", 50)
    real_s = seconds(lambda: mapped_cost(mapped, library, stream, model=real))
    yield Measurement("energy, real delays, 65,536 pairs, stream", real_s, "s", 10)
    published_s = seconds(lambda: mapped_cost(mapped, library, model="published-comparable"))
    yield Measurement("energy, published-comparable", published_s * 1e3, "ms")
    synthesis_s = seconds(lambda: synthesise(exact.netlist, library), 3)
    yield Measurement("synthesis of one 8x8 multiplier", synthesis_s, "s", 2)
    yield Measurement("reading the embedded library", seconds(_read_library) * 1e3, "ms", 200)


def catalogue(cache: Cache, cells: str) -> Iterator[Measurement]:
    """What the catalogue costs, and whether every circuit is what its Verilog says."""
    yield Measurement("design points of the catalogue", len(CATALOGUE), "", 60, "higher")
    (costs, first_s), (again, second_s) = (_survey(Survey(cache=cache)) for _ in range(2))
    yield Measurement("catalogue, all three energies, delay, area: first", first_s, "s", 180)
    yield Measurement("catalogue, all three energies, delay, area: again", second_s, "s", 1)
    differing = sum(costs[name] != again[name] for name in CATALOGUE)
    yield Measurement("remembered figures that differ from the computed", differing, "", 0)
    wrong = sum(not _verilog_agrees(build_multiplier(name)) for name in CATALOGUE)
    yield Measurement("circuits whose Verilog reads back differently", wrong, "", 0)
    yield Measurement("truncations that cost more energy", _increases(costs), "pairs", 0)
    yield from _exact(costs[EXACT])
    if cells:
        others, _ = _survey(Survey(cells, cache=cache))
        for model in costs[EXACT]:
            ours, theirs = ([each[name][model] for name in CATALOGUE] for each in (costs, others))
            what = f"catalogue ranked as by {theirs[0].library}, {model} energy: Spearman"
            yield Measurement(what, _spearman(ours, theirs), "", 0.98, "higher")


def fpga() -> Iterator[Measurement]:
    """What circuits take on FPGAs, where nextpnr is installed."""
    for name, family in itertools.product(FPGA_CIRCUITS, FPGA_FAMILIES):
        if find_spec(f"yowasp_{FPGA_FAMILIES[family].program}") is not None:
            figures = fpga_figures(build_multiplier(name).netlist, family)
            what = f"{name} on {figures.device}"
            yield Measurement(f"{what}: four-input FPGA LUTs", figures.luts, "")
            yield Measurement(f"{what}: frequency between registers", figures.fmax_mhz, "MHz")


def _survey(what: Survey) -> tuple[Costs, float]:
    start = time.perf_counter()
    found = dict(survey(CATALOGUE, what))
    return found, time.perf_counter() - start


def _exact(costs: Mapping[EnergyModel, Cost]) -> Iterator[Measurement]:
    for model, cost in costs.items():
        yield Measurement(f"{EXACT}: {model} energy per multiplication", cost.energy_fj, "fJ")
        glitches = cost.energy_fj / costs["workload zero-delay"].energy_fj
        yield Measurement(f"{EXACT}: {model} energy over zero-delay energy", glitches, "")
    cost = costs["workload zero-delay"]
    yield Measurement(f"{EXACT}: critical path", cost.delay_ps, "ps")
    yield Measurement(f"{EXACT}: area", cost.area_um2, "um2")


def _spearman(ours: list[Cost], theirs: list[Cost]) -> float:
    return float(np.corrcoef(_ranks(ours), _ranks(theirs))[0, 1])


def _ranks(costs: list[Cost]) -> npt.NDArray[np.float64]:
    return np.argsort(np.argsort([cost.energy_fj for cost in costs])).astype(np.float64)


def _verilog_agrees(multiplier: Multiplier) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "multiplier.v"
        write_text(path, verilog(multiplier.netlist))
        back = read_verilog(path, multiplier.name)
    return np.array_equal(
        truth_table(back, multiplier.signed), truth_table(multiplier.netlist, multiplier.signed)
    )


def _increases(costs: Costs) -> int:
    """Neighbours in the chain of truncations of one sign where the second costs more."""
    chains = [
        [f"mul8{sign}_array", *(f"mul8{sign}_truncated_k{k}" for k in range(2, 10))]
        for sign in "su"
    ]
    return sum(
        costs[more][model].energy_fj < costs[less][model].energy_fj
        for chain in chains
        for more, less in itertools.pairwise(name for name in chain if name in costs)
        for model in costs[EXACT]
    )


def _read_library() -> object:
    return read_liberty(DEFAULT_LIBRARY)


if __name__ == "__main__":
    main()
