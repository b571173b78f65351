"""The Verilog of multipliers: right in every form, readable, and free of warnings."""

import re
from pathlib import Path

import numpy as np
import pytest

from export.rtl import (
    MAX_STAGES,
    ModuleNames,
    lint_warnings,
    multiplier_files,
    multiplier_verilog,
    multipliers_rtl,
    prove_equivalent,
    simulated_table,
    source_path,
    verilog_table,
)
from export.rtl.slices import slices
from export.rtl.structural import structural_verilog
from hw import Gate, Netlist, Port, build_multiplier, read_verilog, truth_table
from hw.errors import InputError
from lut import LUT, LibraryEntry

from .multipliers import (
    ODD_SHAPES,
    entry,
    files,
    icarus,
    one_of_each_family,
    saved_entry,
    verilator,
)


@pytest.mark.parametrize("name", one_of_each_family())
def test_structural_module_is_the_table_and_the_formula_is_proved_equal_to_it(
    name: str, tmp_path: Path
) -> None:
    names = ModuleNames(name)
    path = tmp_path / f"{names.structural}.v"
    path.write_text(files(name)[source_path(names.structural)])
    assert np.array_equal(verilog_table(path, entry(name).lut), entry(name).lut.table)
    prove_equivalent(names.structural, names.behavioural, files(name))
    assert "case" not in files(name)[source_path(names.behavioural)].split("module")[1]


@pytest.mark.parametrize("name", ODD_SHAPES)
def test_formulas_hold_for_all_shapes(name: str) -> None:
    names = ModuleNames(name)
    prove_equivalent(names.structural, names.behavioural, files(name))


@icarus
@pytest.mark.parametrize("name", ["mul8s_truncated_variable_k9", "mul8u_drum_k3"])
def test_formulas_in_icarus(name: str) -> None:
    names, lut = ModuleNames(name), entry(name).lut
    table = simulated_table(
        files(name), names.behavioural, a_width=8, b_width=8, signed=lut.a_signed
    )
    assert np.array_equal(table, lut.table)


@icarus
@verilator
@pytest.mark.parametrize("name", [*one_of_each_family(), *ODD_SHAPES[:8]])
def test_no_tool_warns(name: str) -> None:
    found = multipliers_rtl([entry(name)])
    sources = {path: text for path, text in found.items() if path.endswith(".v")}
    bench = f"{ModuleNames(name).structural}_tb"
    assert lint_warnings(sources, bench) == []


@icarus
@verilator
def test_no_tool_warns_of_any_number_of_stages_or_of_a_module_alone() -> None:
    names = ModuleNames("mul8u_truncated_operands_k2")
    found = files(names.multiplier)
    for stages in (0, 1, 5, MAX_STAGES):
        assert lint_warnings(found, names.pipelined, parameters={"STAGES": stages}) == []
    for module in (names.structural, names.behavioural):
        path = source_path(module)
        assert lint_warnings({path: found[path]}, module) == []
    refused = lint_warnings(found, names.pipelined, parameters={"STAGES": MAX_STAGES + 1})
    assert any("STAGES_must_be_0_to_12" in line for line in refused)


@icarus
@verilator
def test_warnings_are_seen() -> None:
    narrow = "module narrow(a, p);\n  input [3:0] a;\n  output p;\n  assign p = a;\nendmodule\n"
    assert any("WIDTHTRUNC" in line for line in lint_warnings({"narrow.v": narrow}, "narrow"))


@pytest.mark.parametrize("name", ["mul8u_drum_k4", "mul8u_compressor_momeni_k8", "mul5x3u_array"])
def test_signed_module_of_an_unsigned_multiplier(name: str, tmp_path: Path) -> None:
    lut = entry(name).lut
    table = _read(files(name), ModuleNames(name).converted(signed=False), True, tmp_path)
    assert np.array_equal(table, lut.sign_magnitude().table)


@pytest.mark.parametrize("name", ["mul8s_booth_approximate_c6", "mul5x3s_array", "mul2s_array"])
def test_unsigned_module_of_a_signed_multiplier(name: str, tmp_path: Path) -> None:
    lut = entry(name).lut
    table = _read(files(name), ModuleNames(name).converted(signed=True), True, tmp_path)
    half = 1 << (lut.a_width - 1), 1 << (lut.b_width - 1)
    assert np.array_equal(table, lut.table[: half[0], : half[1]])


def test_signed_module_has_the_bits_that_large_products_need() -> None:
    from export.rtl.converters import converted_verilog, converted_width

    assert converted_width(LUT.exact()) == 16
    table = LUT.exact().table.copy()
    table[100, 100] = 40_000
    lut = LUT(table, name="far_off")
    assert converted_width(lut) == 17
    assert "output [16:0] p;" in converted_verilog(lut, "inner", "outer", "")


def _read(texts: dict[str, str], module: str, signed: bool, folder: Path) -> np.ndarray:
    path = folder / "all.v"
    path.write_text("".join(texts.values()))
    return truth_table(read_verilog(path, module), signed)


@icarus
def test_circuit_of_no_family_is_written_row_by_row(tmp_path: Path) -> None:
    saved = saved_entry(tmp_path, "mul8u_truncated_k7")
    names, texts = ModuleNames(saved.name), dict(multiplier_files(saved))
    assert "case (a)" in texts[source_path(names.behavioural)]
    for module in (names.structural, names.behavioural):
        table = simulated_table(texts, module, a_width=8, b_width=8, signed=False)
        assert np.array_equal(table, saved.lut.table)
    assert "n18" in texts[source_path(names.structural)]


@icarus
@verilator
def test_circuit_of_no_family_makes_no_tool_warn(tmp_path: Path) -> None:
    saved = saved_entry(tmp_path, "mul5x4s_truncated_k2")
    found = multipliers_rtl([saved])
    sources = {path: text for path, text in found.items() if path.endswith(".v")}
    assert lint_warnings(sources, f"{ModuleNames(saved.name).structural}_tb") == []


def test_entry_of_another_table_is_refused() -> None:
    right = entry("mul5x3u_array")
    table = right.lut.table.copy()
    table[3, 3] += 1
    wrong = LibraryEntry(LUT(table, name=right.name), right.family, right.cost, right.metrics)
    with pytest.raises(InputError, match="the circuit of that name has another"):
        multiplier_verilog(wrong)


def test_every_file_names_digest_metrics_and_figures() -> None:
    for name in ("mul8s_truncated_k9", "mul8u_drum_k4"):
        for path, text in files(name).items():
            assert entry(name).digest in text, path
            assert "MAE" in text and "fJ a multiplication" in text and "um2" in text, path
            assert text.isascii(), path
            assert max(map(len, text.splitlines())) <= 110, path


def test_same_multiplier_gives_the_same_bytes() -> None:
    name = "mul8s_lower_or_k6"
    assert multiplier_files(entry(name)) == files(name)


def test_adders_and_partial_products_stand_together() -> None:
    text = files("mul8u_truncated_k9")[source_path("cosearch_mul8u_truncated_k9")]
    titles = re.findall(r"  // (.*)", text)
    assert titles == [
        "partial products",
        "half adders: half_adder_<column>_<number>",
        "full adders: full_adder_<column>_<number>",
        "bits of the operands that the product does not depend on",
    ]
    assert "  assign product_2_7 = a[2] & b[7];\n  assign product_3_6 = a[3] & b[6];" in text


def test_module_names() -> None:
    names = ModuleNames("mul8x4u_array")
    assert names.all(signed=False) == (
        "cosearch_mul8x4u_array",
        "cosearch_mul8x4u_array_behavioural",
        "cosearch_mul8x4u_array_pipelined",
        "cosearch_mul8x4u_array_signed",
    )
    assert names.converted(signed=True) == "cosearch_mul8x4u_array_unsigned"
    with pytest.raises(InputError, match="must have a name of letters, digits and underscores"):
        ModuleNames("a-b")


def test_nets_called_like_reserved_words_ports_or_each_other(tmp_path: Path) -> None:
    words = ["begin", "logic", "final", "clk", "a", "unused", "x[1]", "x_1", "9lives", "before_3"]
    gates = [Gate("xor", (2, 3), (4,))]
    gates += [Gate("not", (net,), (net + 1,)) for net in range(4, 3 + len(words))]
    netlist = Netlist(
        "odd",
        (Port("a", (2,)), Port("b", (3,))),
        (Port("p", (3 + len(words), 4)),),
        tuple(gates),
        {4 + number: word for number, word in enumerate(words)},
    )
    path = tmp_path / "odd.v"
    path.write_text(structural_verilog(netlist, "odd", ""))
    assert np.array_equal(
        truth_table(read_verilog(path, "odd"), False), truth_table(netlist, False)
    )


@pytest.mark.parametrize("name", ["mul8s_truncated_k6", "mul8u_mitchell", "mul8s_dadda"])
def test_slices_are_in_order_of_even_delay_and_pass_few_nets(name: str) -> None:
    netlist = build_multiplier(name).netlist
    cut = slices(netlist, 12)
    place = {net: 0 for port in netlist.inputs for net in port.nets} | {0: 0, 1: 0}
    depth: dict[int, int] = {}
    for gate, number in zip(netlist.gates, cut.of_gate, strict=True):
        assert all(place[net] <= number for net in gate.inputs)
        inside = [depth[net] for net in gate.inputs if net in depth and place[net] == number]
        depth[gate.outputs[0]] = 1 + max(inside, default=0)
        place[gate.outputs[0]] = number
    longest = [max((depth[net] for net in depth if place[net] == k), default=0) for k in range(12)]
    assert max(longest) <= 6, longest
    assert all(longest), longest
    assert max(map(len, cut.crossing)) <= 70
