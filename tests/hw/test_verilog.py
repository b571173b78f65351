"""What is written as Verilog is read back, by another program, as the same function."""

from pathlib import Path

import numpy as np
import pytest

from hw import (
    CATALOGUE,
    Gate,
    InputError,
    Netlist,
    Port,
    build_multiplier,
    default_library,
    read_verilog,
    synthesise,
    truth_table,
    verilog,
    write_text,
)


@pytest.mark.parametrize("name", [*CATALOGUE[::5], "mul4x3s_array"])
def test_read_back_over_all_pairs(tmp_path: Path, name: str) -> None:
    multiplier = build_multiplier(name)
    write_text(tmp_path / "m.v", verilog(multiplier.netlist, header=name))
    back = read_verilog(tmp_path / "m.v", top=name)
    assert [(port.name, port.width) for port in (*back.inputs, *back.outputs)] == [
        ("a", multiplier.a_width),
        ("b", multiplier.b_width),
        ("p", multiplier.a_width + multiplier.b_width),
    ]
    assert back.gate_counts() == multiplier.netlist.gate_counts()
    assert np.array_equal(
        truth_table(back, multiplier.signed), truth_table(multiplier.netlist, multiplier.signed)
    )


def test_text_is_readable_and_deterministic() -> None:
    netlist = build_multiplier("mul3s_array").netlist
    text = verilog(netlist, module="m", header="first\nsecond")
    assert text == verilog(netlist, module="m", header="first\nsecond")
    assert text.startswith("// first\n// second\nmodule m(a, b, p);\n  input [2:0] a;\n")
    assert "  assign product_1_1 = a[1] & b[1];\n" in text
    assert "full_adder_3_0_carry" in text


def test_awkward_names_become_plain_ones(tmp_path: Path) -> None:
    gates = (Gate("not", (2,), (4,)), Gate("nand", (3, 4), (5,)), Gate("mux", (5, 4, 2), (6,)))
    names = {4: "wire", 5: "a.b$1", 6: "a b 1"}
    ports = (Port("a", (2,)), Port("b", (3,)))
    netlist = Netlist("8 bits!", ports, (Port("p", (6, 1, 0, 5)),), gates, names)
    write_text(tmp_path / "m.v", verilog(netlist))
    back = read_verilog(tmp_path / "m.v", top="_8_bits")
    assert np.array_equal(truth_table(back, False), truth_table(netlist, False))


def test_mapped_netlist_has_instances() -> None:
    mapped = synthesise(build_multiplier("mul3u_array").netlist, default_library())
    assert "FAX1 cell_" in verilog(mapped)


def test_behavioural_verilog_becomes_gates(tmp_path: Path) -> None:
    write_text(
        tmp_path / "m.v",
        "module m(input signed [3:0] x, input signed [3:0] y, output signed [7:0] z);\n"
        "  assign z = (x == 0) ? 8'sd0 : x * y + (y >>> 1) - (y >>> 1);\nendmodule\n",
    )
    netlist = read_verilog(tmp_path / "m.v", top="m")
    assert np.array_equal(
        truth_table(netlist, signed=True),
        truth_table(build_multiplier("mul4s_array").netlist, signed=True),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("module m(input a output p); endmodule", "must be accepted by Yosys, not .*syntax error"),
        ("module n(input a, output p); assign p = a; endmodule", "Module `m' not found"),
        (
            "module m(input c, input d, output reg q); always @(posedge c) q <= d; endmodule",
            "m must be combinational logic of known cells, not contain a",
        ),
        (
            "module m(input a, output p); wire q; assign q = ~(a & p); assign p = q | a; endmodule",
            "m must be free of cycles",
        ),
        (
            "module m(input a, output p); other o(.a(a), .p(p)); endmodule",
            "must be accepted by Yosys, not",
        ),
    ],
)
def test_bad_verilog_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    write_text(tmp_path / "m.v", text)
    with pytest.raises(InputError, match=message) as error:
        read_verilog(tmp_path / "m.v", top="m")
    assert "\n" not in str(error.value)


def test_missing_file_and_bad_top(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="but there is no such file"):
        read_verilog(tmp_path / "none.v", top="m")
    with pytest.raises(InputError, match="top module must be a Verilog name, not 'm; shell'"):
        read_verilog(tmp_path / "none.v", top="m; shell")
