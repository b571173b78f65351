"""The command line's ways to cell libraries and to multipliers from elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cosearch.cli import app
from hw import build_multiplier, truth_table
from hw.liberty import DEFAULT_LIBRARY
from lut import MultiplierLibrary

SOURCE = "uint16_t mul8u_q(uint8_t B, uint8_t A) { return (A & 15) * B; }"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSEARCH_CACHE", str(tmp_path / "cache"))


def cosearch(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> str:
    result = cosearch(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


def test_cells_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "own.lib").write_text(DEFAULT_LIBRARY.read_text().replace("(cosearch45)", "(own)"))
    names = ["-o", "multipliers.candidates=mul8s_array", "-o", "multipliers.built_also="]
    result = cosearch("lut", "--cells", "own.lib", "--out", "r", *names)
    assert result.exit_code == 0, result.output
    library = MultiplierLibrary.load(tmp_path / "r" / "luts")
    assert library.cell_library == library["mul8s_array"].cost.library == "own"
    assert refused("lut", "--cells", "none.lib", "--out", "s") == (
        f"hardware.cells must be a Liberty file, but there is none at '{tmp_path}/none.lib'"
    )


def test_import_asks_for_the_operand_order_then_writes_a_candidate(tmp_path: Path) -> None:
    (tmp_path / "q.c").write_text(SOURCE)
    assert refused("lut", "import", "q.c").startswith("operand order of function mul8u_q must be")
    assert refused("lut", "import", "q.c", "--operands", "A") == (
        "--operands must be two names like A,B, not 'A'"
    )
    result = cosearch("lut", "import", "q.c", "--operands", "A,B")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("mul8u_q of q.c: mul8u_imported_")
    name = result.stdout.split(": ")[1].split(",")[0]
    found = build_multiplier(name, tmp_path / "circuits")
    assert truth_table(found.netlist, signed=False)[31, 3] == 45


def test_cost_prints_the_three_energies(tmp_path: Path) -> None:
    np.save(tmp_path / "stream.npy", np.random.default_rng(0).integers(-8, 8, (500, 2)))
    result = cosearch("lut", "cost", "mul4s_array", "--stream", "stream.npy", "--clock", "100")
    assert result.exit_code == 0, result.output
    published, zero, real = result.stdout.splitlines()
    assert "fJ published-comparable (one input bit flipped" in published
    assert "fJ workload zero-delay (recorded stream of 500 operand pairs, zero delay)" in zero
    assert "fJ workload real-delay (recorded stream of 500 operand pairs, delays of" in real
    assert all(" mW at 100 MHz" in line for line in (published, zero, real))
    assert refused("lut", "cost", "mul4s_array", "--stream", "none.npy") == (
        "none.npy must be a .npy file, but there is no such file"
    )
    assert refused("lut", "cost", "mul4s_arry").startswith("family of multiplier")
