"""Processes that tests start: heard by signals and bound by permissions."""

import os
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 300
"""A process that a test started and that has not ended after so long is given up."""
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def heed_interrupts() -> None:
    """For ``preexec_fn``: jobs that a shell put into the background ignore SIGINT, these do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_python(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """`python arguments` in `cwd`; root runs it without capabilities (setpriv: util-linux)."""
    prefix = WITHOUT_CAPABILITIES if os.geteuid() == 0 else []
    return subprocess.run(
        [*prefix, sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
