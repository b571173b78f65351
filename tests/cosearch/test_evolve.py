"""``cosearch lut evolve`` beside ``cosearch lut``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cosearch.cli import app
from hw import build_multiplier, truth_table

SMALL = ("lut", "evolve", "--start", "mul4s_array", "--mae", "1", "--evaluations", "2000")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_circuit_is_evolved_and_found_by_name() -> None:
    result = CliRunner().invoke(app, SMALL)
    assert result.exit_code == 0, result.output
    assert "2000 evaluations" in result.output
    (path,) = Path("circuits").iterdir()
    assert path.name in result.output
    assert build_multiplier(path.stem, path.parent).signed
    notes = json.loads(path.read_text())["notes"]
    assert notes["task"]["start"] == "mul4s_array"
    assert 0 < notes["errors"]["mae"] <= 2.56


def test_what_is_stopped_goes_on() -> None:
    Path("few.txt").write_text("\n".join(["8"] * 4 + ["1"] * 12))
    weighted = (*SMALL, "--a-histogram", "few.txt")
    stopped = CliRunner().invoke(app, (*weighted, "--minutes", "0"))
    assert "0 of 2000 evaluations: --resume goes on" in stopped.output
    resumed = CliRunner().invoke(app, (*weighted, "--resume"))
    assert resumed.exit_code == 0, resumed.output
    circuits = [path for path in Path("circuits").iterdir() if "evolved" in path.name]
    tables = {truth_table(build_multiplier(path.stem, path.parent).netlist, True).tobytes()
              for path in circuits}  # fmt: skip
    assert len(tables) == 2
    assert not list(Path("circuits").glob("search-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mae", "-1"), "mae must be 0 to 100 percent, not -1.0"),
        (("--start", "mul4s_aray"), "did you mean 'array'"),
        (("--b-histogram", "none.txt"), "none.txt must be a histogram, but there is no such file"),
    ],
)
def test_refusals(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ("lut", "evolve", *arguments))
    assert result.exit_code == 2
    assert message in result.stderr


def test_help_of_both_ways() -> None:
    assert "evolve" in CliRunner().invoke(app, ("lut", "--help")).output
    assert "RUN" in CliRunner().invoke(app, ("lut", "build", "--help")).output
