"""Importers: every kind against the table it should give, and every refusal by its message."""

from pathlib import Path

import numpy as np
import pytest

from hw import (
    InputError,
    build_multiplier,
    default_library,
    synthesise,
    truth_table,
    verilog,
)
from hw.importers import IMPORTERS, Imported, Source, distinct, import_multiplier

SIGNED = (np.arange(256) + 128) % 256 - 128


def import_text(folder: Path, file: str, text: str, **known: object) -> Imported:
    path = folder / file
    path.write_text(text)
    return import_multiplier(Source(str(path), **known))  # type: ignore[arg-type]


# C functions.

C_STYLE = """
/* the product of the high bits, and a few of the others */
#include <stdint.h>
uint16_t mul8u_demo(const uint8_t a, const uint8_t b) {
  uint64_t n1, n2, O = 0;   int unused = 0;
  n1 = ((a >> 7) & 1) & ((b >> 0x7) & 1);   // both high
  n2 = (~(n1 | (a & 1))) & 1;
  n2 = n2 ^ 0xFFFFFFFFFFFFFFFFU;
  O |= (n1 & 1) << 14;
  O |= (n2 & 1) << 2;
  O = O + ((uint16_t) b << 3) - (a & 3) * (b & 3);
  return O;
}
"""


def test_c_function(tmp_path: Path) -> None:
    found = import_text(tmp_path, "demo.c", C_STYLE)
    a, b = np.arange(256)[:, None], np.arange(256)[None, :]
    n1 = (a >> 7) & (b >> 7)
    n2 = 1 - (1 - (n1 | (a & 1)))
    expected = (n1 << 14) + (n2 << 2) + (b << 3) - (a & 3) * (b & 3)
    assert (found.name, found.signed) == ("mul8u_demo", False)
    assert np.array_equal(found.table, expected & 0xFFFF)
    multiplier = found.multiplier()
    mapped = synthesise(multiplier.netlist, default_library())
    assert np.array_equal(truth_table(mapped, signed=False), found.table)


def test_signed_c_function(tmp_path: Path) -> None:
    text = "int16_t mul8s_c(int8_t A, int8_t B) { int32_t P; P = A * B; return P - (A >> 6); }"
    found = import_text(tmp_path, "c.c", text)
    assert found.signed
    assert np.array_equal(found.table, np.outer(SIGNED, SIGNED) - (SIGNED >> 6)[:, None])


def test_operand_order_is_asked_for(tmp_path: Path) -> None:
    text = "uint16_t mul8u_x(uint8_t B, uint8_t A) { return A << 1; }"
    with pytest.raises(InputError, match="operand order of function mul8u_x must be given"):
        import_text(tmp_path, "x.c", text)
    first = import_text(tmp_path, "x.c", text, operands=("A", "B"))
    second = import_text(tmp_path, "x.c", text, operands=("B", "A"))
    assert np.array_equal(first.table, second.table.T)
    assert first.table[3, 5] == 6
    with pytest.raises(InputError, match="must be B and A in some order, not A,C"):
        import_text(tmp_path, "x.c", text, operands=("A", "C"))


def test_widths_from_the_name_and_narrow_products(tmp_path: Path) -> None:
    text = "uint64_t mul4x3u_y(uint64_t a, uint64_t b) { return a * b; }"
    found = import_text(tmp_path, "y.c", text)
    assert found.widths == (4, 3)
    assert np.array_equal(found.table, np.outer(np.arange(16), np.arange(8)))
    narrow = "int8_t mul8s_z(int8_t a, int8_t b) { return a + b; }"
    wrapped = (SIGNED[:, None] + SIGNED + 128) % 256 - 128
    assert np.array_equal(import_text(tmp_path, "z.c", narrow).table, wrapped)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (a) return b; return a;", r"line 1 of .*bad.c must have"),
        ("return a << b;", "must have a shift by a constant"),
        ("return a << 64;", "a shift by 0 to 63, not 64"),
        ("return a + c;", "a variable that has a value, not 'c'"),
        ("c = a; return c;", "a declared variable, not 'c'"),
        ("int c = a;", "must return its product"),
        ("return a ? b : 0;", r"must be plain integer C, not '\?'"),
        ("return f(a);", "a variable that has a value, not 'f'"),
        ("return a", "a whole function, not the end of the file"),
        ("{ } return a;", "one function without blocks"),
        ("float c; return a;", "a declared variable, not 'float'"),
    ],
)
def test_other_c_is_refused(tmp_path: Path, body: str, message: str) -> None:
    text = f"uint16_t mul8u_bad(uint8_t a, uint8_t b) {{ {body} }}"
    with pytest.raises(InputError, match=message):
        import_text(tmp_path, "bad.c", text)


# Verilog and Amaranth.


def test_verilog_with_ports_by_name_and_library_cells(tmp_path: Path) -> None:
    library = default_library()
    exact = build_multiplier("mul8s_broken_array_h2_v7")
    mapped = synthesise(exact.netlist, library)
    text = verilog(mapped, module="mul8s_mapped")
    path = tmp_path / "mapped.v"
    path.write_text(text)
    table = truth_table(exact.netlist, signed=True)
    found = import_multiplier(Source(str(path), cells=library))
    assert np.array_equal(found.table, table)
    swapped = import_multiplier(Source(str(path), cells=library, operands=("b", "a")))
    assert np.array_equal(swapped.table, table.T)
    with pytest.raises(InputError, match="module mul8s_mapped of .* must be accepted by Yosys"):
        import_multiplier(Source(str(path)))


def test_verilog_asks_for_what_it_cannot_know(tmp_path: Path) -> None:
    text = "module m(input [1:0] x, input [1:0] y, output [3:0] o, output q);"
    text += " assign o = x * y; assign q = x[0]; endmodule\n"
    with pytest.raises(InputError, match="must have one output, or the product be named"):
        import_text(tmp_path, "m.v", text)
    with pytest.raises(InputError, match="operands of m must be said to be signed or unsigned"):
        import_text(tmp_path, "m.v", text, product="o")
    found = import_text(tmp_path, "m.v", text, product="o", signed=False, name="mul2u_m")
    assert np.array_equal(found.table, np.outer(np.arange(4), np.arange(4)))
    both = text + text.replace("module m(", "module n(")
    with pytest.raises(InputError, match=r"top module of .*n.v must be given: it has m, n"):
        import_text(tmp_path, "n.v", both)
    found = import_text(tmp_path, "n.v", both, top="n", product="o", signed=False)
    assert found.name == "n"


COMPONENT = """
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out
from amaranth import signed

class Sum(Component):
    x: In(signed(4))
    y: In(signed(4))
    z: Out(signed(5))
    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.z.eq(self.x + self.y)
        return m
"""


def test_amaranth_component(tmp_path: Path) -> None:
    path = tmp_path / "design.py"
    path.write_text(COMPONENT)
    found = import_multiplier(Source(f"{path}:Sum"))
    values = (np.arange(16) + 8) % 16 - 8
    assert found.signed
    assert np.array_equal(found.table, values[:, None] + values)
    with pytest.raises(InputError, match="class of .* must be one of .*did you mean 'Sum'"):
        import_multiplier(Source(f"{path}:Som"))
    with pytest.raises(InputError, match="module nowhere.at_all must be importable"):
        import_multiplier(Source("nowhere.at_all:Sum"))


# Tables.


@pytest.fixture
def table() -> np.ndarray:
    return truth_table(build_multiplier("mul4s_broken_array_h1_v2").netlist, signed=True)


def test_npy_and_csv_matrix(tmp_path: Path, table: np.ndarray) -> None:
    np.save(tmp_path / "mul4s_t.npy", table)
    np.savetxt(tmp_path / "mul4s_t.csv", table, "%d", ",")
    for suffix in ("npy", "csv"):
        path = str(tmp_path / f"mul4s_t.{suffix}")
        with pytest.raises(InputError, match="operand order of .* its table is not symmetric"):
            import_multiplier(Source(path))
        found = import_multiplier(Source(path, operands=("row", "column")))
        assert np.array_equal(found.table, table)
        other = import_multiplier(Source(path, operands=("column", "row")))
        assert np.array_equal(other.table, table.T)
    with pytest.raises(InputError, match="must have gates to be built, not only a table"):
        found.multiplier()


def test_csv_columns(tmp_path: Path, table: np.ndarray) -> None:
    lines = [
        f"{table[a, b]},{b - 16 * (b > 7)},{a - 16 * (a > 7)}" for a in range(16) for b in range(16)
    ]
    known = {"product": "p", "operands": ("a", "b")}
    text = "\n".join(["p,b,a", *lines, lines[7]])
    found = import_text(tmp_path, "mul4s_t.csv", text, **known)
    assert np.array_equal(found.table, table)
    with pytest.raises(InputError, match="must not contradict itself: a=0, b=0 is 0 and 5"):
        import_text(tmp_path, "mul4s_t.csv", text + "\n5,0,0", **known)
    with pytest.raises(InputError, match="must have every operand pair, not lack 3 of 256"):
        import_text(tmp_path, "mul4s_t.csv", "\n".join(["p,b,a", *lines[3:]]), **known)


def test_lut_header(tmp_path: Path, table: np.ndarray) -> None:
    rows = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in table.tolist())
    text = f"#include <stdint.h>\n\nconst int16_t lut [16][16] = {{{rows}}};\n"
    known = {"operands": ("row", "column")}
    found = import_text(tmp_path, "mul4s_h.h", text, **known)
    assert np.array_equal(found.table, table)
    with pytest.raises(InputError, match=r"must have 16·17 numbers, not 256"):
        import_text(tmp_path, "mul4s_h.h", text.replace("][16]", "][17]"), **known)
    with pytest.raises(InputError, match=r"must have one array like .*, not 0"):
        import_text(tmp_path, "mul4s_h.h", "int x;")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4), int), r"two powers of two up to 4096, not \(3, 4\)"),
        (np.zeros(16, int), "must have two dimensions, not 1"),
        (np.zeros((4, 4)), "must be of integers, not float64"),
        (np.full((4, 4), 16), r"products of mul2u_t .* must be 0 to 15, not 16"),
        (np.full((4, 4), -1), r"products of mul2u_t .* must be 0 to 15, not -1"),
        (np.full((4, 4), 1 << 40), "must fit 32 bits"),
    ],
)
def test_bad_tables(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "mul2u_t.npy", array)
    with pytest.raises(InputError, match=message):
        import_multiplier(Source(str(tmp_path / "mul2u_t.npy"), operands=("row", "column")))


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "mul2u_t.npy").write_bytes(b"\x93NUMPY broken")
    with pytest.raises(InputError, match=r"must be a .npy file with a table, not"):
        import_multiplier(Source(str(tmp_path / "mul2u_t.npy")))
    with pytest.raises(InputError, match="must be a C file, but there is no such file"):
        import_multiplier(Source(str(tmp_path / "none.c")))
    with pytest.raises(InputError, match=r"must be a file in \.c, .* or module:Class"):
        import_multiplier(Source("thing"))
    with pytest.raises(InputError, match="kind of importer must be one of amaranth, c, lut_header"):
        import_multiplier(Source("thing"), "vhdl")
    with pytest.raises(InputError, match=r"row 2 of .*mul2u_t.csv must be 2 integers"):
        import_text(tmp_path, "mul2u_t.csv", "1,2\n3,x\n")


# Names.


def test_one_name_is_one_circuit(tmp_path: Path) -> None:
    one = import_text(tmp_path, "a.c", "uint16_t mul8u_q(uint8_t a, uint8_t b) { return a & b; }")
    two = import_text(tmp_path, "b.c", "uint16_t mul8u_q(uint8_t a, uint8_t b) { return a | b; }")
    same = import_text(tmp_path, "c.c", "uint16_t mul8u_q(uint8_t a, uint8_t b) { return b & a; }")
    assert distinct([one, same]) == {"mul8u_q": one}
    with pytest.raises(InputError, match=r"'mul8u_q' must be one circuit, not two: .*a.c"):
        distinct([one, two])


def test_names_of_built_in_families_are_taken(tmp_path: Path) -> None:
    text = "uint16_t mul8u_array(uint8_t a, uint8_t b) { return a & b; }"
    with pytest.raises(InputError, match="must not be that of a built-in family"):
        import_text(tmp_path, "a.c", text)
    assert import_text(tmp_path, "a.c", text, name="mul8u_mine").name == "mul8u_mine"


def test_registry_is_of_one_file_each() -> None:
    modules = [importer.__module__ for importer in IMPORTERS.values()]
    assert len(set(modules)) == len(IMPORTERS) == 5
