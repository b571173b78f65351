"""Proofs of equivalence: they hold, and fail where one gate or one register is another."""

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from export.rtl import (
    MAX_STAGES,
    ModuleNames,
    pipeline_latency,
    prove_equivalent,
    source_path,
    verilog_table,
)
from hw.errors import InputError
from hw.yosys import run_yosys

from .multipliers import entry, files

SIGNED, UNSIGNED = "mul8s_truncated_k6", "mul8u_lower_or_k7"


@pytest.mark.parametrize("name", [SIGNED, UNSIGNED])
@pytest.mark.parametrize("stages", [0, 1, 2, 3, 5, MAX_STAGES])
def test_pipelines_are_proved_equal_to_the_gates(name: str, stages: int) -> None:
    names = ModuleNames(name)
    parameters = {"STAGES": stages}
    prove_equivalent(
        names.structural, names.pipelined, files(name), parameters=parameters, latency=stages
    )


def test_latency_is_two_unless_told_otherwise() -> None:
    names = ModuleNames(SIGNED)
    assert pipeline_latency(names.pipelined, files(SIGNED)) == 2
    with pytest.raises(InputError, match="pipelined must be 3 clocks, not 2"):
        prove_equivalent(names.structural, names.pipelined, files(SIGNED), latency=3)


@pytest.mark.parametrize("name", [SIGNED, UNSIGNED])
def test_one_other_gate_in_the_structure_is_found(name: str) -> None:
    names = ModuleNames(name)
    for old, new in ((" ^ ", " | "), (" | ", " ^ "), (" & ", " | ")):
        text = files(name)[source_path(names.structural)]
        place = [match.start() for match in re.finditer(re.escape(old), text)][-1]
        changed = text[:place] + new + text[place + len(old) :]
        texts = {**files(name), source_path(names.structural): changed}
        if _equal(name, changed):
            continue  # an OR of two carries that are never both one may be an XOR
        with pytest.raises(InputError, match="behavioural must compute what .* does, not another"):
            prove_equivalent(names.structural, names.behavioural, texts)


def _equal(name: str, text: str) -> bool:
    """Whether the changed structure has the same table, found by enumeration."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{ModuleNames(name).structural}.v"
        path.write_text(text)
        return np.array_equal(verilog_table(path, entry(name).lut), entry(name).lut.table)


def test_one_other_gate_in_a_pipeline_is_found() -> None:
    names = ModuleNames(SIGNED)
    text = files(SIGNED)[source_path(names.pipelined)]
    changed = text.replace("assign product_7_7 = a[7] & b[7]", "assign product_7_7 = a[7] | b[7]")
    changed = re.sub(r"(assign product_7_7 = \S+) & ", r"\1 | ", changed)
    assert changed != text
    with pytest.raises(InputError, match="must compute what"):
        prove_equivalent(
            names.structural,
            names.pipelined,
            {**files(SIGNED), source_path(names.pipelined): changed},
            latency=2,
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("register <= before_6", "register <= before_6 & {clk}", None),
        ("@(posedge clk) register <= before_6", "@(negedge clk) register <= before_6", "DFF_N"),
        ("assign after_6 = register", "assign after_6 = {register[18:1], before_6[0]}", "equally"),
        ("register <= before_6", "register <= after_6 ^ before_6", "cycle"),
    ],
)
def test_other_registers_are_found(old: str, new: str, message: str | None) -> None:
    names = ModuleNames(SIGNED)
    text = files(SIGNED)[source_path(names.pipelined)]
    width = re.search(r"wire \[(\d+):0\] before_6", text)
    assert width is not None
    new = new.replace("register[18:1]", f"register[{width[1]}:1]")
    new = new.replace("{clk}", f"{{{int(width[1]) + 1}{{clk}}}}")
    assert old in text
    with pytest.raises(InputError, match=message):
        prove_equivalent(
            names.structural,
            names.pipelined,
            {**files(SIGNED), source_path(names.pipelined): text.replace(old, new)},
            latency=2,
        )


def test_refused_stages_and_broken_files_say_so() -> None:
    names = ModuleNames(SIGNED)
    with pytest.raises(InputError, match="STAGES_must_be_0_to_12"):
        pipeline_latency(names.pipelined, files(SIGNED), {"STAGES": 13})
    with pytest.raises(InputError, match="must be accepted by Yosys"):
        prove_equivalent("no_such", names.structural, files(SIGNED))


def test_sat_over_all_clocks_agrees_with_the_proof_in_two_steps() -> None:
    """From any state at all, two clocks later, by Yosys's SAT solver and nothing of ours."""
    name = "mul4s_truncated_k3"
    names = ModuleNames(name)
    texts = {
        "gate.v": files(name)[source_path(names.pipelined)],
        "gold.v": files(name)[source_path(names.structural)],
        "top.v": f"""
module top(input clk, input [3:0] a, b, output differs);
  wire [7:0] now, then;
  reg [7:0] first, second;
  {names.structural} gold(.a(a), .b(b), .p(now));
  {names.pipelined} gate(.clk(clk), .a(a), .b(b), .p(then));
  always @(posedge clk) begin first <= now; second <= first; end
  assign differs = second != then;
endmodule
""",
    }
    commands = [f"read_verilog {file}" for file in texts]
    commands += ["hierarchy -check -top top", "proc", "flatten", "opt_clean"]
    commands.append("sat -verify -seq 2 -tempinduct -prove differs 0")
    commands.append("write_json done.json")
    proved = run_yosys(commands, texts, "done.json", what=name)
    assert "top" in json.loads(proved)["modules"]
    texts["gate.v"] = texts["gate.v"].replace("product_3_3 = a[3] & b[3]", "product_3_3 = a[3]")
    with pytest.raises(InputError, match="proof did fail"):
        run_yosys(commands, texts, "done.json", what=name)
