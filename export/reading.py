"""Files of a bundle from strangers: read whole or refused, never unpickled, never larger than said.

A size is looked at before anything is read, an array's header before its values are, and a model's
graph for cycles before anything walks along it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.lib import format as npy
from numpy.typing import NDArray

from hw.errors import InputError

__all__ = ["inside", "read_array", "read_bytes", "read_manifest", "read_model"]

MIB = 1 << 20
LARGEST = {".json": 64 * MIB, ".onnx": 1024 * MIB, ".npy": 1024 * MIB}
LARGEST_OTHER = 64 * MIB


def inside(folder: Path, name: object) -> Path:
    """A file of the bundle. Raises InputError for a name that leads out of it, or nowhere."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"names of a bundle's files must be relative paths, not {name!r}")
    path = folder / name
    try:
        resolved, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} must be a file, not a circle of links ({error})") from None
    if not resolved.is_relative_to(root):
        raise InputError(f"files of a bundle must lie inside it, not at {name!r}")
    return path


def read_bytes(path: Path) -> bytes:
    """The file's content. Raises InputError where it is no regular file, or is too large."""
    if not path.is_file():
        raise InputError(f"{path} must be a file, there is none")
    limit = LARGEST.get(path.suffix, LARGEST_OTHER)
    if path.stat().st_size > limit:
        raise InputError(
            f"{path} must be at most {limit // MIB} MiB, not {path.stat().st_size / MIB:.0f} MiB"
        )
    return path.read_bytes()


def read_manifest(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises InputError for anything else, or one nested too deeply."""
    data = read_bytes(path)
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a JSON file, not corrupt data ({error})") from None
    if not isinstance(manifest, dict):
        raise InputError(f"{path} must hold a JSON object, not {type(manifest).__name__}")
    return manifest


def read_array(path: Path) -> NDArray[Any]:
    """The array in a ``.npy`` file. Raises InputError unless the header and the file's size agree,
    and for arrays of Python objects.
    """
    data = read_bytes(path)
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            if version not in readers:
                raise ValueError(f"version {version}")
            shape, _, kind = readers[version](file)
            expected = file.tell() + kind.itemsize * int(np.prod(shape, dtype=object))
            if kind.hasobject or expected != len(data):
                raise ValueError(f"{kind} values of shape {shape} in {len(data)} bytes")
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, TypeError, SyntaxError) as error:
        raise InputError(f"{path} must be a .npy file ({error})") from None
    return array


def read_model(path: Path) -> onnx.ModelProto:
    """The checked ONNX model. Raises InputError where it is none, keeps data in other files, or has
    a node or a function that needs its own result.
    """
    data = read_bytes(path)
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path} must be an ONNX model ({error})") from None
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _tensors(model)):
        raise InputError(f"{path} must hold its tensors itself, not in other files")
    _refuse_recursion(path, model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} must be a valid ONNX model ({reason})") from None
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initialisers, and tensors that are attributes of nodes."""
    yield from model.graph.initializer
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)


def _refuse_recursion(path: Path, model: onnx.ModelProto) -> None:
    """Functions that call themselves, directly or not; the checker sees cycles of nodes."""
    calls = {
        (f.domain, f.name): {(node.domain, node.op_type) for node in f.node}
        for f in model.functions
    }
    while calls:
        ends = {name for name, called in calls.items() if not called & calls.keys()}
        if not ends:
            raise InputError(
                f"{path} must have no functions that call themselves, has {_names(calls)}"
            )
        calls = {name: called for name, called in calls.items() if name not in ends}


def _names(calls: Mapping[tuple[str, str], object]) -> str:
    return ", ".join(sorted(f"{domain}.{name}" for domain, name in calls))
