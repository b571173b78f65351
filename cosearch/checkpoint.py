"""A checkpoint: a dictionary of tensors and plain values in one file, checked when it is read.

The file is ``torch.save``'s ZIP archive, written whole. Reading verifies the CRC of every member
and unpickles tensors and plain values only, so a truncated, altered or hostile file is refused with
one line and runs nothing.
"""

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hw.errors import InputError
from hw.files import write_bytes


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, and lists and dictionaries of them) atomically."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state in ``path``, on the CPU; ``InputError`` where it is missing or not as written."""
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"checkpoint must be a file, but there is none at {path}") from None
    _check_archive(path, data)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes provoke, they are what is wrong
        raise InputError(
            f"{path} must be a checkpoint of tensors and plain values, not {_reason(error)}"
        ) from None
    if not isinstance(state, dict):
        raise InputError(f"{path} must be a checkpoint, not a saved {type(state).__name__}")
    return state


def _check_archive(path: str | os.PathLike[str], data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
    except Exception as error:
        raise InputError(
            f"{path} must be a checkpoint, not a truncated or corrupt file ({_reason(error)})"
        ) from None
    if damaged is not None:
        raise InputError(f"{path} must be a checkpoint, not a corrupt file (damaged: {damaged})")


def _reason(error: Exception) -> str:
    """The first sentence of an error, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0].strip() if lines else type(error).__name__
