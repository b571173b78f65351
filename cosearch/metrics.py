"""Metrics of a loop: one JSON object a line, one line an epoch.

Recording an epoch again drops what followed it, so a resumed loop leaves the same file.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw.errors import InputError
from hw.files import write_text


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of ``path`` in order; none where there is no file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be JSON lines, not corrupt data ({error})") from None
    return [_row(path, number, line) for number, line in enumerate(text.splitlines(), 1)]


def record_metrics(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Add ``row`` in place of every row of its network with its epoch or a later one.

    So an epoch that is repeated after an interruption stands once in the file. Written atomically.
    """
    kept = [old for old in read_metrics(path) if not _superseded(old, row)]
    lines = [json.dumps(entry, allow_nan=False) for entry in [*kept, dict(row)]]
    write_text(path, "\n".join(lines) + "\n")


def _superseded(old: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return old.get("network") == row.get("network") and bool(old["epoch"] >= row["epoch"])


def _row(path: str | os.PathLike[str], number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {number} must be JSON, not corrupt data ({error})"
        ) from None
    if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
        raise InputError(
            f"{path}, line {number} must be an object with an epoch, not {line[:60]!r}"
        )
    return row
