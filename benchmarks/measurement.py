"""What a benchmark prints: first the machine, then one measurement a line, each as a JSON object.

A measurement is ``{"metric", "value", "unit", "target", "ok"}``; target and ok are null where a
figure stands for comparison and has no target of its own.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Literal

DISTRIBUTIONS = ("torch", "numpy", "amaranth", "pyosys", "onnxruntime")


@dataclass(frozen=True)
class Measurement:
    """One figure; it is ok when ``value`` is at most or at least ``target``, as ``better`` says."""

    metric: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; none without a target."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def to_json(self) -> dict[str, Any]:
        row = asdict(self) | {"ok": self.ok}
        del row["better"]
        return row


def print_machine() -> None:
    """Print the line that every benchmark begins with."""
    print(json.dumps({"machine": machine()}), flush=True)


def print_measurement(measurement: Measurement) -> None:
    """Print one measurement."""
    print(json.dumps(measurement.to_json(), allow_nan=False), flush=True)


def machine() -> dict[str, Any]:
    """Processor, usable cores, memory, system, Python, and versions of what is measured."""
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in DISTRIBUTIONS},
    }


def seconds(work: Callable[[], object], repetitions: int = 5) -> float:
    """The median of several times that ``work`` takes, after one run that is not counted."""
    work()
    return median(_timed(work) for _ in range(repetitions))


def ratio(
    work: Callable[[], object], reference: Callable[[], object], repetitions: int = 9
) -> float:
    """The median of time(work) / time(reference) over runs in turn, after one of each."""
    work()
    reference()
    return median(_timed(work) / _timed(reference) for _ in range(repetitions))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
