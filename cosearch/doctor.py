"""What this machine has of what the toolchain uses, and what to do about what is missing."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cosearch.config import available_cores

GIB = 2**30
LITTLE_DISK_GIB = 2.0

REQUIRED = (
    "amaranth",
    "jinja2",
    "networkx",
    "numpy",
    "onnx",
    "onnxruntime",
    "pyosys",
    "python-flint",
    "rich",
    "scikit-learn",
    "torch",
    "typer",
)

# Distribution and what it is for.
OPTIONAL = (("optuna", "random and nsga2 of cosearch sweep"),)

# Command, the option that prints its version, and what it is for.
SIMULATORS = (
    ("iverilog", "-V", "checks exported Verilog by an independent simulator"),
    ("verilator", "--version", "simulates exported Verilog fast"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the examination; ``advice`` is empty where nothing need be done."""

    subject: str
    state: str
    advice: str = ""
    needed: bool = False

    @property
    def fatal(self) -> bool:
        """Whether the toolchain cannot work without what is missing here."""
        return self.needed and bool(self.advice)


def examination(folder: Path) -> list[Finding]:
    """Findings on this machine; ``folder`` is where runs would be written."""
    return [
        Finding("cosearch", _version("cosearch") or "not installed"),
        Finding("Python", f"{platform.python_version()} on {platform.platform()}"),
        Finding("cores", str(available_cores())),
        _memory(),
        _disk(folder),
        *(_distribution(name) for name in REQUIRED),
        *(_optional(*distribution) for distribution in OPTIONAL),
        _cuda(),
        *(_simulator(*simulator) for simulator in SIMULATORS),
        _cell_library(),
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _distribution(name: str) -> Finding:
    version = _version(name)
    if version is None:
        advice = f"pip install -c constraints.txt {name}"
        return Finding(name, "missing", advice, needed=True)
    return Finding(name, version, needed=True)


def _optional(name: str, purpose: str) -> Finding:
    version = _version(name)
    if version is None:
        advice = f"optional, {purpose}: pip install -c constraints.txt {name}"
        return Finding(name, "missing", advice)
    return Finding(name, version)


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError):
        return Finding("memory", "unknown")
    advice = "" if total >= 2 else "the main job needs 2 GiB"
    return Finding("memory", f"{total:.1f} GiB", advice)


def _disk(folder: Path) -> Finding:
    existing = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    free = shutil.disk_usage(existing).free / GIB
    advice = "" if free >= LITTLE_DISK_GIB else f"free at least {LITTLE_DISK_GIB:.0f} GiB"
    if not os.access(existing, os.W_OK):
        advice = "choose a folder that can be written, with --out"
    return Finding("disk", f"{free:.1f} GiB free in {existing}", advice)


def _cuda() -> Finding:
    if _version("torch") is None:
        return Finding("CUDA", "unknown without torch")
    import torch

    if not torch.cuda.is_available():
        advice = "" if torch.version.cuda is None else "no usable GPU was found; the CPU is used"
        return Finding("CUDA", "none (the CPU is used)" if not advice else "none", advice)
    return Finding("CUDA", f"{torch.version.cuda}, {torch.cuda.get_device_name(0)}")


def _simulator(command: str, option: str, purpose: str) -> Finding:
    path = shutil.which(command)
    if path is None:
        advice = f"optional, {purpose}: apt-get install -y {command}"
        return Finding(command, "not found", advice)
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(command, f"{path} does not run ({error})", f"install {command} anew")
    number = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return Finding(command, f"{number[0] if number else 'unknown version'} ({path})")


def _cell_library() -> Finding:
    try:
        from hw import default_library

        library = default_library()
    except Exception as error:  # an examination reports what is broken and goes on
        return Finding("cell library", f"does not load ({error})", "install anew", needed=True)
    return Finding("cell library", f"{library.name}, {len(library.cells)} cells (embedded)")
