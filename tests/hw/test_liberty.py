"""The Liberty reader on the embedded library, small texts, and a real library if installed."""

import gzip
import re
from pathlib import Path

import pytest

from hw import (
    InputError,
    default_library,
    find_library,
    multiplier_cost,
    read_liberty,
    synthesise,
)
from hw.cells.cosearch45 import liberty_text
from hw.liberty import (
    DEFAULT_LIBRARY,
    INSTALLED,
    Table,
    boolean_table,
    library_from_text,
    parse_liberty,
)
from hw.multipliers import build_multiplier

OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")

SMALL = """
/* a comment { */
library(small) {
  time_unit : "1ns"; voltage_unit : "1V"; leakage_power_unit : "1uW";
  capacitive_load_unit (0.1, pf);
  nom_voltage : 2.0
  lu_table_template(t) {
    variable_1 : total_output_net_capacitance; variable_2 : input_net_transition;
    index_1 ("0, 1"); index_2 ("0, 1, 2");
  }
  cell (INV) {
    area : 1.5;
    leakage_power () { when : "A"; value : 3; }
    leakage_power () { when : "!A"; value : 1; }
    pin (A) { direction : input; rise_capacitance : 0.01; fall_capacitance : 0.03; }
    pin (Y) { direction : output; function : "A'";
      timing () { related_pin : "A"; timing_sense : negative_unate;
        cell_rise (t) { values ("1, 2, 3", \\
                                "11, 12, 13"); }
        cell_fall (scalar) { values ("5"); }
      }
      internal_power () { related_pin : "A"; when : "A";
        rise_power (scalar) { values ("2"); } fall_power (scalar) { values ("-1"); } }
    }
  }
  cell (UNUSED) { area : 1; dont_use : true;
    pin (A) { direction : input; } pin (Y) { direction : output; function : "A"; } }
  cell (LATCH) { latch (Q, QN) { enable : "A"; }
    pin (A) { direction : input; } pin (Y) { direction : output; function : "Q"; } }
}
"""


def test_units_states_and_tables() -> None:
    library = library_from_text(SMALL, "small.lib")
    assert list(library.cells) == ["INV"]
    assert library.voltage_v == 2.0
    cell = library.cells["INV"]
    assert cell.kind.tables == (0b01,)
    assert cell.leakage_nw == pytest.approx((1000.0, 3000.0))
    assert cell.capacitances_ff == pytest.approx((2.0,))
    (arc,) = cell.timing
    assert arc.sense == -1
    assert arc.delay_rise.at(0, 0) == pytest.approx(1000.0)
    assert arc.delay_rise.at(1000, 50) == pytest.approx(7000.0)
    assert arc.delay_fall.at(123, 45) == pytest.approx(5000.0)
    (power,) = cell.power
    assert power.rise.at(0, 0) == pytest.approx(200.0)  # 0.1 pF·V² = 100 fJ
    assert power.fall.at(0, 0) == pytest.approx(-100.0)
    assert power.when == 0b10


def test_table_between_and_beyond_its_points() -> None:
    table = Table((10.0, 20.0), (0.0, 4.0, 8.0), ((0.0, 4.0, 8.0), (10.0, 14.0, 18.0)))
    for slew, load in [(10, 0), (15, 2), (20, 8), (40, 16), (0, -4)]:
        assert table.at(slew, load) == pytest.approx(slew - 10 + load)


@pytest.mark.parametrize(
    ("expression", "table"),
    [
        ("A", 0b10101010),
        ("!A", 0b01010101),
        ("A'", 0b01010101),
        ("A B", 0b10001000),
        ("A*B + C", 0b11111000),
        ("!(A & B) | C", 0b11110111),
        ("A ^ B ^ C", 0b10010110),
        ("A ^ B C", 0b01100000),
        ("(A+B)' C", 0b00010000),
        ("1", 0b11111111),
        ("A & 0", 0),
    ],
)
def test_boolean_expressions(expression: str, table: int) -> None:
    assert boolean_table(expression, ("A", "B", "C")) == table


def test_unknown_variable_gives_no_table() -> None:
    assert boolean_table("A & IQ", ("A", "B")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.rstrip()[:-1], "must be one whole Liberty library"),
        ("nonsense", "must be Liberty text; line 1 is not"),
        (
            SMALL.replace("area : 1.5", "area : wide"),
            "area of cell INV must be a number, not 'wide'",
        ),
        (SMALL.replace('"1ns"', '"fast"'), "units of x.lib must be like '1ns', not 'fast'"),
        ("library(x) { }", "must have combinational cells with functions, not none"),
        ("", "must be one whole Liberty library"),
    ],
)
def test_bad_text_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        library_from_text(text, "x.lib")
    assert "\n" not in str(error.value)


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="but there is no such file"):
        read_liberty(tmp_path / "none.lib")
    (tmp_path / "x.lib.gz").write_bytes(gzip.compress(SMALL.encode())[:-20])
    with pytest.raises(InputError, match="not corrupt data"):
        read_liberty(tmp_path / "x.lib.gz")
    (tmp_path / "x.lib.gz").write_bytes(gzip.compress(SMALL.encode()))
    assert list(read_liberty(tmp_path / "x.lib.gz").cells) == ["INV"]


def test_embedded_library_is_what_its_figures_say() -> None:
    assert DEFAULT_LIBRARY.read_text() == liberty_text()
    library = default_library()
    assert (library.name, library.voltage_v) == ("cosearch45", 1.1)
    names = {cell.arguments[0] for cell in parse_liberty(library.text, "x").of("cell")}
    assert names - set(library.cells) == {"DFFPOSX1"}
    adder = library.cells["FAX1"]
    assert adder.area_um2 == 8.9167
    assert {
        (adder.kind.inputs[arc.input], arc.sense) for arc in adder.timing if arc.output == 0
    } == {
        ("A", 1),
        ("B", 1),
        ("C", 1),
    }


@pytest.mark.skipif(not OSU018.exists(), reason="Debian's qflow-tech-osu018 is not installed")
def test_a_real_library() -> None:
    library = read_liberty(OSU018)
    assert library.voltage_v == 1.8
    cost = multiplier_cost(build_multiplier("mul8u_array"), library)
    assert cost.library == "osu018_stdcells"
    assert 3_000 < cost.energy_fj < 30_000
    assert 2_000 < cost.delay_ps < 6_000


def halves(tmp_path: Path, voltage: str = "1.1") -> tuple[Path, Path]:
    """The embedded library, its adders in a file of their own."""
    text = DEFAULT_LIBRARY.read_text()
    head, *cells = re.split(r"(?m)^  (?=cell \()", text.rstrip().removesuffix("}"))
    adders = [cell for cell in cells if cell.startswith(("cell (FAX1)", "cell (HAX1)"))]
    others = [cell for cell in cells if cell not in adders]
    paths = tmp_path / "a.lib", tmp_path / "b.lib"
    paths[0].write_text(head + "  ".join(["", *others]) + "}\n")
    head = head.replace("voltage : 1.1;", f"voltage : {voltage};")
    paths[1].write_text(head + "  ".join(["", *adders]) + "}\n")
    return paths


def test_library_in_several_files(tmp_path: Path) -> None:
    """Mapped with the text written from its cells, the result is that of the one file."""
    paths = halves(tmp_path)
    joined = find_library(tmp_path)
    assert joined.cells == default_library().cells
    assert find_library(",".join(map(str, paths))).cells == joined.cells
    netlist = build_multiplier("mul8u_truncated_k6").netlist
    assert synthesise(netlist, joined).gates == synthesise(netlist, default_library()).gates
    again = library_from_text(joined.text, "again")
    assert again.cells["FAX1"].capacitances_ff == joined.cells["FAX1"].capacitances_ff
    assert again.cells["AOI22X1"].timing == joined.cells["AOI22X1"].timing
    paths[1].write_text(paths[1].read_text() + "/* other powers */\n")
    assert find_library(tmp_path).text != joined.text  # it is what results are remembered by


def test_several_files_that_do_not_fit(tmp_path: Path) -> None:
    one, other = halves(tmp_path, "1.8")
    with pytest.raises(InputError, match="must be of one voltage, not 1.1 V and 1.8 V"):
        read_liberty(one, other)
    with pytest.raises(InputError, match="must have each cell once, not AND2X1 again"):
        read_liberty(one, one)


def test_libraries_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_library() is default_library()
    assert find_library(str(DEFAULT_LIBRARY)).cells == default_library().cells
    monkeypatch.setitem(INSTALLED, "osu018", DEFAULT_LIBRARY)
    assert find_library("osu018").name == "cosearch45"
    monkeypatch.setitem(INSTALLED, "osu018", tmp_path / "none.lib")
    with pytest.raises(InputError, match="apt install qflow-tech-osu018"):
        find_library("osu018")
    with pytest.raises(InputError, match="must be one of osu018, osu035, osu050, not 'osu18'; did"):
        find_library("osu18")
    with pytest.raises(InputError, match=r"must be a folder with \.lib files"):
        find_library(tmp_path)
