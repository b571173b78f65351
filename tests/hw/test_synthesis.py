"""Synthesis keeps the function, uses the adder cells, and gives the same result every time."""

import subprocess
import sys

import numpy as np
import pytest

from hw import (
    CATALOGUE,
    InputError,
    build_multiplier,
    default_library,
    netlist_from_component,
    synthesise,
    truth_table,
)
from hw.liberty import library_from_text
from hw.multipliers.adders import FullAdder, HalfAdder, HalfAdderPlusOne
from hw.synthesis import adder_cell, is_symmetric

from .test_liberty import SMALL


@pytest.mark.parametrize("name", CATALOGUE[::6])
def test_function_is_kept(name: str) -> None:
    multiplier = build_multiplier(name)
    mapped = synthesise(multiplier.netlist, default_library())
    assert set(mapped.gate_counts()) <= set(default_library().cells)
    assert np.array_equal(
        truth_table(mapped, multiplier.signed), truth_table(multiplier.netlist, multiplier.signed)
    )


def test_exact_array_is_all_adders() -> None:
    mapped = synthesise(build_multiplier("mul8u_array").netlist, default_library())
    assert mapped.gate_counts() == {"AND2X1": 64, "FAX1": 48, "HAX1": 8}


@pytest.mark.parametrize(
    ("component", "cell"), [(FullAdder, "FAX1"), (HalfAdder, "HAX1"), (HalfAdderPlusOne, None)]
)
def test_adders(component: type, cell: str | None) -> None:
    netlist = netlist_from_component(component(), "adder")
    counts = synthesise(netlist, default_library()).gate_counts()
    assert cell is None or counts == {cell: 1}


def test_wide_circuits_are_compared_too() -> None:
    mapped = synthesise(build_multiplier("mul12u_truncated_k10").netlist, default_library())
    assert mapped.gate_counts()["FAX1"] > 50


_SCRIPT = """
import sys
from hw import build_multiplier, default_library, multiplier_cost, synthesise
for name in sys.argv[1:]:
    multiplier = build_multiplier(name)
    mapped = synthesise(multiplier.netlist, default_library())
    print(name, mapped.gates, multiplier_cost(multiplier))
"""


def test_same_result_in_any_process_and_order() -> None:
    names = ["mul8s_array", "mul8s_broken_array_h2_v7"]
    runs = []
    for order, seed in ((names, "1"), (names[::-1], "2")):
        text = subprocess.run(
            [sys.executable, "-c", _SCRIPT, *order],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        runs.append(sorted(text.splitlines()))
    assert runs[0] == runs[1]


def test_adder_cells_and_symmetry() -> None:
    library = default_library()
    full, half = adder_cell(library, 3), adder_cell(library, 2)
    assert full is not None
    assert half is not None
    assert (full.cell.name, half.cell.name) == ("FAX1", "HAX1")
    assert is_symmetric(full.cell.kind)
    assert not is_symmetric(library.cells["MUX2X1"].kind)


def test_incomplete_library_is_refused() -> None:
    with pytest.raises(InputError, match="cell library small must have an inverter and a NAND"):
        synthesise(build_multiplier("mul2u_array").netlist, library_from_text(SMALL, "x"))
