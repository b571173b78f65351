"""Sensitivities: how much the loss grows where one layer alone has another multiplier.

The sum over layers is the forecast of an assignment's loss; what layers do to each other is not in
it (the same forecast as in HAWQ-V3, Yao et al., ICML 2021, for bit widths).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosearch.progress import Progress
from hw.files import read_json, write_json

from .problem import Measured, Problem

__all__ = ["read_sensitivities", "sensitivity_scores"]

FILE = "sensitivities.json"
FORMAT = 1
Row = dict[str, dict[str, float]]


def sensitivity_scores(problem: Problem, folder: Path, progress: Progress) -> NDArray[np.float64]:
    """Minus the growth of the loss; (L, M). What `folder` has of this problem already stays.

    Writes ``sensitivities.json`` after every layer.
    """
    path = folder / FILE
    stored = _stored(path, problem)
    rows: dict[str, Row] = stored.get("layers", {})
    base = Measured(**stored["base"]) if stored else problem.measured(problem.found)
    for number, layer in enumerate(progress.track(problem.layers, "layers")):
        if layer not in rows:
            rows[layer] = _row(problem, number, base)
            write_json(path, _content(problem, base, rows))
    names = [lut.name for lut in problem.luts]
    return np.array([[-rows[la][name]["loss"] for name in names] for la in problem.layers])


def _row(problem: Problem, layer: int, base: Measured) -> Row:
    """Growth of the loss and of the share of right images, by multiplier; the others as found."""
    row: Row = {}
    for index, lut in enumerate(problem.luts):
        measured = base
        if index != problem.found[layer]:
            chosen = problem.found.copy()
            chosen[layer] = index
            measured = problem.measured(chosen)
        row[lut.name] = {
            "loss": measured.loss - base.loss,
            "accuracy": measured.accuracy - base.accuracy,
        }
    return row


def read_sensitivities(path: Path) -> dict[str, Any] | None:
    """What ``sensitivity_scores`` wrote, None where it wrote nothing."""
    if not path.exists():
        return None
    content = read_json(path)
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


def _stored(path: Path, problem: Problem) -> dict[str, Any]:
    """The content of `path` where it is of this problem."""
    content = read_sensitivities(path)
    return content if content is not None and content.get("key") == problem.key else {}


def _content(problem: Problem, base: Measured, rows: dict[str, Row]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "key": problem.key,
        "base": dict(vars(base)),
        "found": {
            layer: problem.luts[index].name
            for layer, index in zip(problem.layers, problem.found, strict=True)
        },
        "multipliers": [{"name": lut.name, "sha256": lut.digest} for lut in problem.luts],
        "layers": rows,
    }
