"""CIFAR-10 from its published files: 50,000 images for search and training, 10,000 for the test.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. Nothing is
downloaded. The Python files are pickles: they are read by an unpickler that makes nothing but
plain values and records of arrays, so a hostile one runs no code. Pixels stay in [0, 1], without
normalisation by mean and deviation: the batch norm after the stem does that, and the exported
model takes the bytes as they are.
"""

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.errors import InputError

from .data_set import DataSet, Split
from .stratified import capped, stratified

if TYPE_CHECKING:
    from cosearch.config import Data

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
NAMES = {f"{name}{ending}" for name in (*TRAINING, TEST) for ending in ("", ".bin")}
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
CLASSES = 10
LARGEST = 64 * 2**20  # bytes of a file; the published ones have 31 million
HALVES = {"train": 0.5, "validation": 0.5}


def cifar10(seed: int, settings: "Data") -> DataSet:
    """Stratified halves of the training images, and the test images in their order."""
    import torch

    files = _files(place(settings.path))
    parts = [_batch(files, name) for name in TRAINING]
    if len({len(labels) for _, labels in parts}) != 1:
        raise InputError("training files of CIFAR-10 must have equal numbers of images, not others")
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    chosen = capped(stratified(labels, HALVES, seed), settings.most_images)
    arrays = {name: (pixels[indices], labels[indices]) for name, indices in chosen.items()}
    pixels, labels = (array[: settings.most_images or None] for array in _batch(files, TEST))
    arrays["test"] = (pixels, labels)
    splits = {
        name: Split(torch.from_numpy(x.copy()), torch.from_numpy(y.copy()))
        for name, (x, y) in arrays.items()
    }
    return DataSet("cifar10", CLASSES, 3, 32, 1 / 255, splits)


def place(path: str) -> Path:
    """The folder or archive that ``data.path`` names, itself or in it; InputError where there is
    none.
    """
    given = Path(path)
    inside = [given / name for name in (*FOLDERS, *ARCHIVES)]
    there = [p for p in inside if p.exists()] if path and given.is_dir() else []
    if there or (path and given.exists()):
        return there[0] if there else given
    raise InputError(
        f"data.path must be CIFAR-10 in one of its published forms ({', '.join(ARCHIVES)}, or "
        f"unpacked), not {path!r}; get it at {PAGE} and set data.path to it"
    )


def _files(path: Path) -> dict[str, bytes]:
    """The batches by file name."""
    if path.is_dir():
        found = {p.name: p for p in path.iterdir() if p.name in NAMES and p.is_file()}
        return {name: file.read_bytes() for name, file in found.items() if _small(file)}
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and name in NAMES and member.size <= LARGEST:
                    files[name] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path} must be a whole archive of CIFAR-10, not {error}") from None
    return files


def _small(file: Path) -> bool:
    return file.stat().st_size <= LARGEST


def _batch(files: Mapping[str, bytes], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (N, 3, 32, 32) and labels int64 (N,) of one file."""
    if f"{name}.bin" in files:
        pixels, labels = _binary(files[f"{name}.bin"], f"{name}.bin")
    elif name in files:
        pixels, labels = _pickled(files[name], name)
    else:
        raise InputError(f"CIFAR-10 must have the file {name} or {name}.bin; get it at {PAGE}")
    if not len(labels) or labels.min() < 0 or labels.max() >= CLASSES:
        raise InputError(f"{name} must hold labels 0 to {CLASSES - 1}, not others")
    return pixels.reshape(-1, *SHAPE), labels


def _binary(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A byte of label and 3,072 of pixels for each image."""
    if not data or len(data) % (PIXELS + 1):
        raise InputError(
            f"{name} must hold whole images of {PIXELS + 1} bytes, not {len(data)} bytes"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, PIXELS + 1)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


def _pickled(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A dictionary with ``data``, uint8 (N, 3072), and ``labels``, a list."""
    try:
        table = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
        array, labels = _entry(table, "data"), _entry(table, "labels")
        pixels = array.pixels()
        numbers = np.array([int(label) for label in labels], np.int64)
        if len(pixels) != len(numbers):
            raise ValueError(f"{len(pixels)} images and {len(numbers)} labels")
    except Exception as error:  # whatever the bytes provoke, they are what is wrong
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} must be a Python file of CIFAR-10 ({reason})") from None
    return pixels, numbers


def _entry(table: Any, key: str) -> Any:
    if not isinstance(table, dict):
        raise TypeError(f"no dictionary but {type(table).__name__}")
    return table[key] if key in table else table[key.encode()]


class _Record:
    """Stands for an array or a type in a pickle; keeps what would have made it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> np.ndarray:
        """Version, shape, type, Fortran order, and bytes: as uint8 (N, 3072)."""
        _, shape, kind, fortran, data = self.state
        if kind.arguments[0] not in ("u1", b"u1") or len(shape) != 2 or shape[1] != PIXELS:
            raise ValueError(f"no bytes of {PIXELS} columns")
        order = "F" if fortran else "C"
        return np.frombuffer(data, np.uint8).reshape(shape, order=order)  # type: ignore[call-overload]


class _Encoded:
    """Bytes that Python 3 wrote into an old protocol as text."""

    def __new__(cls, text: str, encoding: str) -> Any:
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state of bytes")


KNOWN: Mapping[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Record,
    ("numpy._core.multiarray", "_reconstruct"): _Record,
    ("numpy", "ndarray"): _Record,
    ("numpy", "dtype"): _Record,
    ("_codecs", "encode"): _Encoded,
}


class _PlainUnpickler(pickle.Unpickler):
    """Knows no class of anybody's, only the stand-ins of ``KNOWN``."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return KNOWN[module, name]
