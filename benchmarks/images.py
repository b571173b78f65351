"""Photographs for benchmarks, out of a zip of ``…/<class>/<name>.jpg`` that the user has.

CIFAR-10 is often passed on like this. Pillow decodes the files; only this module needs it.
"""

import importlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from cosearch.data import Split
from hw.errors import InputError

__all__ = ["PIXEL_SCALE", "read_splits"]

PIXEL_SCALE = 1 / 255
SEED = 0


def read_splits(path: Path, training: int, test: int) -> tuple[Split, Split]:
    """So many training and, of the others, test images: always the same ones of a file.

    Drawn over all classes alike; a label is the place of its folder's name in alphabetical order.
    """
    pillow = _pillow()
    with _opened(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        drawn = drawn_names(names, training + test)
        classes = sorted({_class_of(name) for name in names})
        pixels = torch.stack([_pixels(pillow, archive.read(name)) for name in drawn])
    labels = torch.tensor([classes.index(_class_of(name)) for name in drawn])
    return (
        Split(pixels[:training], labels[:training]),
        Split(pixels[training:], labels[training:]),
    )


def drawn_names(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names, none twice, in an order that depends on the names alone."""
    if count > len(names):
        raise InputError(f"images asked for must be at most {len(names)}, not {count}")
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(SEED))
    return [names[index] for index in order[:count].tolist()]


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ModuleNotFoundError:
        raise InputError("install Pillow, which decodes the images: pip install pillow") from None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} must be a zip of images ({error})") from None


def _class_of(name: str) -> str:
    return PurePosixPath(name).parent.name


def _pixels(pillow: Any, file: bytes) -> torch.Tensor:
    """uint8 (3, height, width)."""
    image = np.array(pillow.open(io.BytesIO(file)).convert("RGB"))
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()
