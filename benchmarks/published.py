"""Our figures against those published with circuits, for a folder of them that the user has.

``python -m benchmarks.published --circuits FOLDER --cells LIB`` prints one JSON object a line.
FOLDER holds files of evoapprox8b (``multipliers_8``) or EvoApproxLib-lite (``multiplers/8x8_*``),
at any depth; what was published is read from the comments at the head of each file. LIB is the
Liberty file of the library that the published figures were made with: gscl45nm (1.1 V) for
"45 nm", OSU018 (1.8 V) for "180 nm". Three comparisons: the mapped netlists as they were published;
the circuits of EvoApproxLib-lite, synthesised again; and the error metrics of every C function.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.measurement import Measurement, print_machine, print_measurement
from hw import (
    CellLibrary,
    Cost,
    InputError,
    Netlist,
    mapped_cost,
    read_liberty,
    synthesise,
)
from hw.importers import Imported, Source, import_multiplier
from hw.synthesis import black_box
from hw.yosys import run_yosys
from hw.yosys_json import netlist_from_json

Array = npt.NDArray[np.float64]
NODES = {1.1: "45", 1.8: "180"}
MUX, PUBLISHED_MUX = "MUX2X1", 0b11001010
"""The published netlists mean B where S, else A; the libraries' own cell is ~(A where S, else B).

Seen by comparison with the C functions of the same circuits."""
ORDER_SAMPLE = 6
LEAST_POWER_MW = 0.002
"""Circuits of less published power, printed with one or two digits, are left out of comparisons."""


@dataclass(frozen=True)
class Published:
    """The head of a file: figures as printed, by our names for them."""

    path: Path
    figures: dict[str, str]

    @property
    def name(self) -> str:
        return self.path.stem.removesuffix("_pdk45")

    @property
    def is_lite(self) -> bool:
        return "lite_power_45" in self.figures

    def number(self, figure: str) -> float:
        return float(self.figures[figure])


@dataclass(frozen=True)
class Figures:
    """Power in mW, area in µm², delay in ns, of several circuits."""

    power: Array
    area: Array
    delay: Array


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--circuits", type=Path, required=True, help="folder with the files")
    parser.add_argument("--cells", type=Path, required=True, help="Liberty file")
    parser.add_argument("--fresh", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    library = read_liberty(arguments.cells)
    if arguments.fresh:
        print(json.dumps([_again(Path(path), library).to_json() for path in arguments.fresh]))
        return
    print_machine()
    for measurement in measurements(arguments.circuits, arguments.cells, library):
        print_measurement(measurement)


def measurements(circuits: Path, cells: Path, library: CellLibrary) -> Iterator[Measurement]:
    """All comparisons that the folder has files for."""
    node = NODES.get(library.voltage_v)
    if node is None:
        raise SystemExit(f"--cells must be a library of 1.1 or 1.8 V, not {library.voltage_v} V")
    verilog = list(heads(circuits, "*.v"))
    mapped = [head for head in verilog if f"power_{node}" in head.figures and _is_mapped(head)]
    if mapped:
        yield from compare_mapped(mapped, library, node)
    again = distinct(head for head in verilog if f"lite_power_{node}" in head.figures)
    if again:
        yield from compare_again(again, cells, library, node)
    yield from compare_errors(list(heads(circuits, "*.c")))


# What was published.

_HEAD = {
    "power_45": r"Power +\(45\) = (\S+)",
    "area_45": r"Area +\(45\) = (\S+)",
    "delay_45": r"Delay +\(45\) = (\S+)",
    "power_180": r"Power +\(180\) = (\S+)",
    "area_180": r"Area +\(180\) = (\S+)",
    "delay_180": r"Delay +\(180\) = (\S+)",
    "lite_power_45": r"PDK45_PWR = (\S+) mW",
    "lite_area_45": r"PDK45_AREA = (\S+) um2",
    "lite_delay_45": r"PDK45_DELAY = (\S+) ns",
    "MAE": r"MAE = (\S+)",
    "WCE": r"WCE = (\S+)",
    "MRE": r"MRE%? = (\S+) %",
    "EP": r"EP%? = (\S+) %",
    "MSE": r"MSE = (\S+)",
}


def heads(folder: Path, pattern: str) -> Iterator[Published]:
    """The files of 8×8 multipliers that say their figures, in order of their paths."""
    for path in sorted(folder.rglob(pattern)):
        if re.match(r"mul8[us]?_", path.name):
            head = path.read_text(errors="replace")[:3000]
            found = {key: re.search(rf"^///? *{text}", head, re.M) for key, text in _HEAD.items()}
            figures = {key: match[1] for key, match in found.items() if match}
            if figures:
                yield Published(path, figures)


def distinct(published: Iterable[Published]) -> list[Published]:
    """One file a circuit and set of figures: files repeat by Pareto set and release."""
    chosen: dict[tuple[object, ...], Published] = {}
    for head in published:
        key = (head.name, *sorted(head.figures.items()))
        if key not in chosen or _is_mapped(head):
            chosen[key] = head
    return list(chosen.values())


def _is_mapped(head: Published) -> bool:
    return head.path.stem.endswith("_pdk45")


# The mapped netlists.


def compare_mapped(
    published: Sequence[Published], library: CellLibrary, node: str
) -> Iterator[Measurement]:
    """Published-comparable power, area and delay of the netlists as they are."""
    netlists = read_mapped(published, library)
    costs = [mapped_cost(each, library, model="published-comparable") for each in netlists]
    ours, theirs = _ours(costs), _theirs(published, node, "", 1e-3)
    what = f"{len(costs)} mapped netlists, {library.name}"
    yield from _power(what, ours, theirs, (0.999, 0.999, 1.5))
    differing = np.count_nonzero(np.abs(ours.area - theirs.area) > 0.5 + 1e-6)
    yield Measurement(f"{what}: areas that differ in a printed digit", int(differing), "", 0)
    yield _correlation(f"{what}: delay, Pearson", ours.delay, theirs.delay, 0.995)


def read_mapped(published: Sequence[Published], library: CellLibrary) -> list[Netlist]:
    """All netlists, read by one Yosys process; cells stay what they are."""
    files = {f"{i}.v": head.path.read_bytes() for i, head in enumerate(published)}
    boxes = "".join(black_box(cell.kind) for cell in library.cells.values())
    commands = [
        "read_verilog -lib boxes.v",
        *(f"read_verilog {name}" for name in files),
        "opt_clean",
        "write_json all.json",
    ]
    text = run_yosys(commands, {**files, "boxes.v": boxes}, "all.json", what="mapped netlists")
    modules = json.loads(text)["modules"]
    kinds = dict(library.kinds)
    if MUX in kinds:
        kinds[MUX] = replace(kinds[MUX], tables=(PUBLISHED_MUX,))
    return [
        netlist_from_json(
            json.dumps({"modules": {head.name: modules[head.name]}}),
            head.name,
            head.name,
            ["A", "B"],
            ["O"],
            kinds,
        )
        for head in published
    ]


# Synthesised again.


def compare_again(
    published: Sequence[Published], cells: Path, library: CellLibrary, node: str
) -> Iterator[Measurement]:
    """The same figures after synthesis, and whether they depend on the process and its order."""
    costs = [_again(head.path, library) for head in published]
    ours, theirs = _ours(costs), _theirs(published, node, "lite_", 1.0)
    powered = theirs.power >= LEAST_POWER_MW
    what = f"{int(powered.sum())} lite circuits synthesised again, {library.name}"
    ours, theirs = _where(ours, powered), _where(theirs, powered)
    yield from _power(what, ours, theirs, (0.995, 0.99, 5.0))
    fitted = ours.power / np.median(ours.power / theirs.power) / theirs.power - 1
    error = float(np.abs(fitted).mean() * 100)
    yield Measurement(f"{what}: power, mean absolute error, toggle rate fitted", error, "%")
    for figure in ("area", "delay"):
        one, other = getattr(ours, figure), getattr(theirs, figure)
        yield _correlation(f"{what}: {figure}, Pearson", one, other)
        yield _correlation(f"{what}: {figure}, Spearman", _ranks(one), _ranks(other))
    sample = list(range(0, len(published), max(1, len(published) // ORDER_SAMPLE)))
    fresh = _in_fresh_process([published[i].path for i in reversed(sample)], cells)
    differing = sum(costs[i] != cost for i, cost in zip(reversed(sample), fresh, strict=True))
    yield Measurement(
        f"{len(sample)} of them in another process and order: costs that differ", differing, "", 0
    )


def _again(path: Path, library: CellLibrary) -> Cost:
    name = path.stem.removesuffix("_pdk45")
    circuit = _imported(path, replace_top=name, library=library)
    mapped = synthesise(circuit.multiplier().netlist, library)
    return mapped_cost(mapped, library, model="published-comparable")


def _in_fresh_process(paths: Sequence[Path], cells: Path) -> list[Cost]:
    folder = str(paths[0].parent)
    command = [sys.executable, "-m", "benchmarks.published", "--circuits", folder]
    command += ["--cells", str(cells), "--fresh", *map(str, paths)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [Cost.from_json(each) for each in json.loads(text)]


# Error metrics.


def compare_errors(published: Sequence[Published]) -> Iterator[Measurement]:
    """Every printed metric of every C function, against that of its table."""
    files = distinct(published)
    values = [_metrics(_imported(head.path), head.is_lite) for head in files]
    for metric in ("MAE", "WCE", "MRE", "EP"):
        printed = [
            (h, v[metric]) for h, v in zip(files, values, strict=True) if metric in h.figures
        ]
        units = [(head, last_digits(v, head.figures[metric]), v) for head, v in printed]
        what = f"{metric} of {len(printed)} C functions: printed figures"
        wrong = [f"{h.name} {v:.6g} for {h.figures[metric]}" for h, off, v in units if off > 1]
        named = f" ({'; '.join(wrong)})" if wrong else ""
        yield Measurement(f"{what} off by more than one last digit{named}", len(wrong), "", 0)
        cut = sum(0.5 < off <= 1 for _, off, _ in units)
        yield Measurement(f"{what} not rounded to the nearest last digit", cut, "")


def _imported(
    path: Path, replace_top: str | None = None, library: CellLibrary | None = None
) -> Imported:
    """By the names A and B: in these files the order of C functions varies, the names are right."""
    source = Source(str(path), top=replace_top, name=replace_top, cells=library)
    try:
        return import_multiplier(source)
    except InputError:
        return import_multiplier(replace(source, operands=("A", "B")))


def _metrics(circuit: Imported, lite: bool) -> dict[str, float]:
    """Mean absolute, worst-case, mean relative (%) error and error probability (%).

    EvoApproxLib-lite leaves pairs with a product of zero out of its mean relative error;
    evoapprox8b takes their error as relative to one.
    """
    values = np.arange(256)
    if circuit.signed:
        values = (values + 128) % 256 - 128
    exact = np.outer(values, values)
    error = np.abs(circuit.table - exact)
    relative = error / np.maximum(1, np.abs(exact))
    return {
        "MAE": float(error.mean()),
        "WCE": float(error.max()),
        "MRE": float((relative[exact != 0] if lite else relative).mean() * 100),
        "EP": float((error != 0).mean() * 100),
    }


def last_digits(value: float, printed: str) -> float:
    """How many units of its last digit ``printed`` is off; at most 0.5 where it is rounded."""
    mantissa, _, exponent = printed.partition("e")
    decimals = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - decimals)
    return abs(value - float(printed)) / unit - 1e-6


# Statistics.


def _ours(costs: Sequence[Cost]) -> Figures:
    return Figures(
        np.array([cost.power_mw for cost in costs]),
        np.array([cost.area_um2 for cost in costs]),
        np.array([cost.delay_ps * 1e-3 for cost in costs]),
    )


def _theirs(published: Sequence[Published], node: str, prefix: str, to_mw: float) -> Figures:
    power, area, delay = (
        np.array([head.number(f"{prefix}{figure}_{node}") for head in published])
        for figure in ("power", "area", "delay")
    )
    return Figures(power * to_mw, area, delay)


def _where(figures: Figures, chosen: npt.NDArray[np.bool_]) -> Figures:
    return Figures(figures.power[chosen], figures.area[chosen], figures.delay[chosen])


def _power(
    what: str, ours: Figures, theirs: Figures, targets: tuple[float, float, float | None]
) -> Iterator[Measurement]:
    pearson, spearman, error = targets
    yield _correlation(f"{what}: power, Pearson", ours.power, theirs.power, pearson)
    ranks = _ranks(ours.power), _ranks(theirs.power)
    yield _correlation(f"{what}: power, Spearman", *ranks, spearman)
    relative = ours.power / theirs.power
    mean = float(np.abs(relative - 1).mean() * 100)
    yield Measurement(f"{what}: power, mean absolute error", mean, "%", error)
    median = float(np.median(relative))
    yield Measurement(f"{what}: power, median of ours over theirs", median, "")


def _correlation(what: str, one: Array, other: Array, target: float | None = None) -> Measurement:
    return Measurement(what, float(np.corrcoef(one, other)[0, 1]), "", target, "higher")


def _ranks(values: Array) -> Array:
    """Ranks, equal values sharing the mean of theirs."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, values, "left")
    high = np.searchsorted(ordered, values, "right")
    return (low + high - 1) / 2.0


if __name__ == "__main__":
    main()
