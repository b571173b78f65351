"""Yosys in a process of its own, fresh each time, in an empty folder of its own.

Yosys numbers generated names on through a process and orders its work by them, so its results
depend on what the process did before; a fresh one gives the same result every time.
Only text goes in and out, under plain file names.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import InputError

_PROGRAM = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for command in sys.stdin.read().splitlines():
    libyosys.run_pass(command, design)
"""


def run_yosys(
    commands: Sequence[str], files: Mapping[str, str | bytes], output: str, *, what: str
) -> str:
    """The text of file ``output`` after the commands, given the input files by name.

    ``what`` names the design in the ``InputError`` that a Yosys error becomes.
    """
    with tempfile.TemporaryDirectory(prefix="cosearch-yosys-") as folder:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (Path(folder) / name).write_bytes(data)
        process = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input="\n".join(commands),
            cwd=folder,
            env={**os.environ, "TMPDIR": folder},  # ABC shares what it keeps in the usual one
            capture_output=True,
            text=True,
            check=False,
        )
        result = Path(folder) / output
        if process.returncode or not result.exists():
            raise InputError(f"{what} must be accepted by Yosys, not {_error_line(process)}")
        return result.read_text()


def _error_line(process: "subprocess.CompletedProcess[str]") -> str:
    """The line in which Yosys says what is wrong."""
    lines = (process.stdout + "\n" + process.stderr).splitlines()
    errors = [line for line in lines if "ERROR" in line or "Error:" in line]
    return (errors or [line for line in lines if line.strip()] or ["stopped without a word"])[
        -1
    ].strip()
