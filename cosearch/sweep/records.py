"""Every genotype that a member of a sweep judged, one JSON object a line, in order of time.

The first line of a search counts the images and seconds of search and judgement together, the
others those of their judgement alone.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosearch.genotype import Genotype
from cosearch.sweep.assessment import Assessment
from hw.errors import InputError
from hw.files import write_text

__all__ = ["Evaluation", "read_evaluations", "write_evaluations"]


@dataclass(frozen=True)
class Evaluation:
    """A genotype and what it is worth; images and seconds are what it took to find and judge it."""

    genotype: Genotype
    assessment: Assessment

    def to_json(self) -> dict[str, Any]:
        return {**self.assessment.to_json(), "genotype": self.genotype.to_json()}


def write_evaluations(path: Path, evaluations: Iterable[Evaluation]) -> None:
    """Replace the file, atomically."""
    lines = [json.dumps(one.to_json(), allow_nan=False) for one in evaluations]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_evaluations(path: Path) -> list[Evaluation]:
    """None where there is no file; InputError for a line that is not as it was written."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be JSON lines, not corrupt data ({error})") from None
    return [_evaluation(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _evaluation(line: str, source: str) -> Evaluation:
    try:
        data = json.loads(line)
        assessment = Assessment.from_json(data)
        return Evaluation(Genotype.from_json(data["genotype"], source), assessment)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{source} must be a judged genotype, not data with a fault at {error}"
        ) from None
