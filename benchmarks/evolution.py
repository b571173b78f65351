"""Evolved multipliers against the catalogue: ``python -m benchmarks.evolution [FOLDER]``.

For each bound on MAE (in percent of 2^16) and both signs, one search from the exact array, 0·x = 0
kept; two processes. The target of its energy is the least of the catalogue's broken-array and
truncated designs within the bound, those with correction included. Embedded library, uniform
operands, zero delay. With FOLDER the circuits are kept there.
"""

import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measurement import Measurement, print_machine, print_measurement
from hw import CATALOGUE, build_multiplier, multiplier_cost, truth_table
from hw.evolution import EvolutionTask, Evolved, evolve_multiplier
from hw.multipliers import parse_multiplier_name, save_multiplier

BOUNDS = (0.05, 0.2, 0.5, 2.0)
SIGNS = "us"
EVALUATIONS, LINES = 5_000_000, 4
PROCESSES = 2
TOTAL_S = 600
SEARCH_S = 0.9 * TOTAL_S * PROCESSES / (len(BOUNDS) * len(SIGNS))
"""A search is stopped after so long, on a machine on which its evaluations take longer."""


@dataclass(frozen=True)
class Design:
    """A catalogue entry: its MAE in percent of 2^16 and its energy."""

    name: str
    mae: float
    energy_fj: float


def main(folder: Path | None = None) -> None:
    """All measurements, each as soon as it is there."""
    print_machine()
    designs = rivals()
    evolve_multiplier(EvolutionTask("mul4u_array", mae=1.0, evaluations=100))  # compiled once
    start = time.perf_counter()
    cases = list(itertools.product(BOUNDS, SIGNS))
    with ProcessPoolExecutor(PROCESSES) as pool:
        for (bound, sign), evolved in zip(cases, pool.map(search, cases), strict=True):
            for measurement in figures(bound, sign, evolved, designs):
                print_measurement(measurement)
            if folder is not None:
                save_multiplier(evolved.multiplier, folder)
    elapsed_s = time.perf_counter() - start
    title = f"{len(cases)} searches, {PROCESSES} processes"
    print_measurement(Measurement(title, elapsed_s, "s", TOTAL_S))


def search(case: tuple[float, str]) -> Evolved:
    """The circuit of least energy found for a bound and a sign."""
    bound, sign = case
    task = EvolutionTask(f"mul8{sign}_array", mae=bound, evaluations=EVALUATIONS, lines=LINES)
    return evolve_multiplier(task, seconds=SEARCH_S)


def rivals() -> list[Design]:
    """The catalogue's broken-array and truncated designs, and the exact arrays."""
    families = {name: parse_multiplier_name(name).family.name for name in CATALOGUE}
    return [
        _design(name)
        for name, family in families.items()
        if family in ("array", "broken_array") or family.startswith("truncated")
    ]


def figures(bound: float, sign: str, evolved: Evolved, designs: list[Design]) -> list[Measurement]:
    """Energy against the best rival within the bound; MAE, WCE and area for the record."""
    within = [d for d in designs if d.name[4] == sign and d.mae <= bound]
    best = min(within, key=lambda design: design.energy_fj)
    case = f"evolved mul8{sign}, MAE <= {bound:g} %"
    energy = f"{case}: energy (target: {best.name})"
    return [
        Measurement(energy, evolved.cost.energy_fj, "fJ", best.energy_fj),
        Measurement(f"{case}: MAE", evolved.errors.mae / 655.36, "%", bound),
        Measurement(f"{case}: WCE", evolved.errors.wce / 655.36, "%"),
        Measurement(f"{case}: area", evolved.cost.area_um2, "um2"),
        Measurement(f"{case}: delay", evolved.cost.delay_ps, "ps"),
        Measurement(f"{case}: evaluations", evolved.evaluations, "circuits"),
    ]


def _design(name: str) -> Design:
    multiplier = build_multiplier(name)
    table = truth_table(multiplier.netlist, multiplier.signed)
    operand = np.arange(256)
    values = np.where(operand > 127, operand - 256, operand) if multiplier.signed else operand
    mae = float(np.abs(table - np.outer(values, values)).mean())
    return Design(name, mae / 655.36, multiplier_cost(multiplier).energy_fj)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
