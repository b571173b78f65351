"""The Verilog of every default candidate in Icarus: all 65,536 operand pairs give the table."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cosearch.config import Config
from hw import build_multiplier, verilog
from lut import LUT

BENCH = """
module bench;
  reg [7:0] a, b;
  wire [15:0] p;
  integer i;
  {module} circuit(.a(a), .b(b), .p(p));
  initial for (i = 0; i < 65536; i = i + 1) begin
    {{a, b}} = i;
    #1 $display("%0d", p);
  end
endmodule
"""
SETTINGS = Config().multipliers


@pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus is missing: apt-get install iverilog"
)
@pytest.mark.parametrize("name", [*SETTINGS.candidates, *SETTINGS.built_also])
def test_icarus_gives_the_table(name: str, tmp_path: Path) -> None:
    multiplier = build_multiplier(name)
    (tmp_path / "circuit.v").write_text(verilog(multiplier.netlist, module=name))
    (tmp_path / "bench.v").write_text(BENCH.format(module=name))
    run = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True}
    compile_command = ["iverilog", "-g2001", "-Wall", "-o", "bench", "bench.v", "circuit.v"]
    warnings = subprocess.run(compile_command, **run).stderr  # type: ignore[call-overload]
    assert not [line for line in warnings.splitlines() if "timescale" not in line]
    output = subprocess.run(["vvp", "-n", "bench"], **run).stdout  # type: ignore[call-overload]
    patterns = np.array(output.split(), dtype=np.int64).reshape(256, 256)
    assert np.array_equal(patterns, LUT.of(multiplier).table & 0xFFFF)
