"""Images in ``train/<class>/*.png|jpg`` of a folder or ZIP archive, divided by seed and shares.

Pillow reads them: the optional extra ``images``. Classes are numbered in the order of their names.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from hw.errors import InputError

from .data_set import DataSet, Split
from .stratified import capped, stratified

if TYPE_CHECKING:
    from cosearch.config import Data

ENDINGS = (".png", ".jpg", ".jpeg")
LARGEST_SIDE = 1024


def image_folder(seed: int, settings: "Data") -> DataSet:
    """RGB images, all of one square size; equal seeds give equal splits."""
    names, read = source(settings.path)
    classes = sorted({name.parent.name for name in names})
    if len(classes) < 2:
        raise InputError(
            f"{settings.path} must hold train/<class>/*.png or *.jpg of two classes or more, "
            f"not of {len(classes)}"
        )
    labels = np.array([classes.index(name.parent.name) for name in names], np.int64)
    chosen = capped(stratified(labels, settings.shares, seed), settings.most_images)
    size = _decoded(read(names[0]), names[0]).shape[1]
    splits = {name: _split(names, labels, part, read, size) for name, part in chosen.items()}
    return DataSet("image_folder", len(classes), 3, size, 1 / 255, splits)


Read = Callable[[PurePosixPath], bytes]


def source(path: str) -> tuple[list[PurePosixPath], Read]:
    """Names of all images in order, and what reads one."""
    root = Path(path)
    if path and root.is_dir():
        found = [PurePosixPath(p.relative_to(root).as_posix()) for p in root.glob("train/*/*")]
        return _images(found), lambda name: (root / name).read_bytes()
    if not path or not root.is_file():
        raise InputError(
            "data.path must be a folder or ZIP archive with train/<class>/*.png or *.jpg, "
            f"not {path!r}"
        )
    try:
        archive = zipfile.ZipFile(root)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} must be a whole ZIP archive, not {error}") from None
    return _images([PurePosixPath(n) for n in archive.namelist()]), lambda n: archive.read(str(n))


def _images(names: list[PurePosixPath]) -> list[PurePosixPath]:
    return sorted(
        name
        for name in names
        if len(name.parts) == 3 and name.parts[0] == "train" and name.suffix.lower() in ENDINGS
    )


def _split(
    names: list[PurePosixPath], labels: np.ndarray, part: np.ndarray, read: Read, size: int
) -> Split:
    import torch

    pixels = np.empty((len(part), 3, size, size), np.uint8)
    for row, index in enumerate(part):
        image = _decoded(read(names[index]), names[index])
        if image.shape != (3, size, size):
            raise InputError(
                f"{names[index]} must be {size}×{size} pixels as the first image, "
                f"not {image.shape[2]}×{image.shape[1]}"
            )
        pixels[row] = image
    return Split(torch.from_numpy(pixels), torch.from_numpy(labels[part]))


def _decoded(data: bytes, name: PurePosixPath) -> np.ndarray:
    """uint8 (3, H, W)."""
    try:
        from PIL import Image
    except ImportError:
        raise InputError(
            'data.name = "image_folder" must have Pillow; install it: pip install cosearch[images]'
        ) from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > LARGEST_SIDE:
                raise ValueError(f"more than {LARGEST_SIDE} pixels wide or high")
            return np.asarray(image.convert("RGB"), np.uint8).transpose(2, 0, 1)
    except Exception as error:  # whatever the bytes provoke, they are what is wrong
        raise InputError(f"{name} must be a whole PNG or JPEG image ({error})") from None
