"""Times of the RTL of multipliers: writing it, reading it back twice, proving it.

    python -m benchmarks.rtl [--proofs FAMILY ...]

Without options: the files of twelve multipliers written, every structural one read by Yosys and by
Icarus over all operand pairs and compared with its table. With ``--proofs``: for every catalogue
entry of these families (all where none is named) the structural module proved equal to the
behavioural one, and the pipelined one with two stages to the structural one.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from export.rtl import (
    ModuleNames,
    multiplier_files,
    multipliers_rtl,
    prove_equivalent,
    simulated_table,
    source_path,
    verilog_table,
)
from hw import CATALOGUE, build_multiplier
from hw.files import write_text
from lut import LibraryEntry, MultiplierLibrary

TWELVE = (
    "mul8s_array",
    "mul8s_truncated_k4",
    "mul8s_truncated_k6",
    "mul8s_broken_array_h1_v5",
    "mul8s_truncated_operands_k2",
    "mul8s_perforated_f0_r2",
    "mul8s_lower_or_k6",
    "mul8s_booth_approximate_c6",
    "mul8u_dadda",
    "mul8u_drum_k4",
    "mul8u_mitchell",
    "mul8u_compressor_momeni_k8",
)
"""Of different families, signed and unsigned."""


def bundle_times() -> None:
    """Seconds for twelve multipliers; their circuits and costs are there already."""
    entries = list(MultiplierLibrary.build(TWELVE))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        texts = multipliers_rtl(entries)
        for path, text in texts.items():
            write_text(Path(folder) / path, text)
        size = sum(map(len, texts.values())) / 1e6
        print(f"written: {len(texts)} files, {size:.1f} MB, {time.perf_counter() - start:.2f} s")
        for reader in (read_by_yosys, read_by_icarus):
            start = time.perf_counter()
            for entry in entries:
                reader(entry, Path(folder))
            print(f"{reader.__name__}: {time.perf_counter() - start:.2f} s")


def read_by_yosys(entry: LibraryEntry, folder: Path) -> None:
    path = folder / source_path(ModuleNames(entry.name).structural)
    assert np.array_equal(verilog_table(path, entry.lut), entry.lut.table), entry.name


def read_by_icarus(entry: LibraryEntry, folder: Path) -> None:
    module, lut = ModuleNames(entry.name).structural, entry.lut
    path = source_path(module)
    table = simulated_table(
        {path: (folder / path).read_text()},
        module,
        a_width=lut.a_width,
        b_width=lut.b_width,
        signed=lut.a_signed,
    )
    assert np.array_equal(table, lut.table), entry.name


def proof_times(families: list[str]) -> None:
    """Seconds a proof, by family: mean and longest."""
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name in CATALOGUE:
        family = build_multiplier(name).family
        if not families or family in families:
            (entry,) = MultiplierLibrary.build([name])
            seconds[family].append(proved(entry))
    for family, times in seconds.items():
        formula, pipeline = zip(*times, strict=True)
        print(
            f"| `{family}` | {len(times)} | {np.mean(formula):.2f} | {max(formula):.2f} "
            f"| {np.mean(pipeline):.2f} | {max(pipeline):.2f} |",
            flush=True,
        )


def proved(entry: LibraryEntry) -> tuple[float, float]:
    names, files = ModuleNames(entry.name), multiplier_files(entry)
    start = time.perf_counter()
    prove_equivalent(names.structural, names.behavioural, files)
    middle = time.perf_counter()
    prove_equivalent(names.structural, names.pipelined, files, parameters={"STAGES": 2}, latency=2)
    return middle - start, time.perf_counter() - middle


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proofs", nargs="*")
    options = parser.parse_args()
    bundle_times() if options.proofs is None else proof_times(options.proofs)
