"""Python in a process that permissions bind, also where the tests are run by root."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def run_python(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """`python arguments` in `cwd`; root runs it without capabilities (setpriv: util-linux)."""
    prefix = WITHOUT_CAPABILITIES if os.geteuid() == 0 else []
    return subprocess.run(
        [*prefix, sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
