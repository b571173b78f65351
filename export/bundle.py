"""The bundle: one folder with everything a hardware or software team takes over, and its
verification.

``model.onnx``, its QONNX twin ``model.qonnx.onnx`` (`export.qonnx`), ``manifest.json``,
``luts/<multiplier>.npy``, ``rtl/…`` (`export.hardware`),
``golden/input.npy`` (uint8 images) and ``golden/logits.npy`` (float32, the model's output for
them).
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hw.errors import InputError
from hw.files import write_bytes, write_json, write_text
from lut import LibraryEntry

from .hardware import hardware_files
from .integer import (
    FRACTION_BITS,
    STATE_BITS,
    Convolution,
    IntegerNetwork,
    Layer,
    Linear,
    MatrixProduct,
    Requantise,
)
from .onnx_bodies import product_body
from .onnx_model import ModelMetadata, write_onnx
from .qonnx import nodes_without_form, write_qonnx
from .rtl import ModuleNames, source_path
from .verification import FORMAT, MANIFEST, PROPERTY, Verified, verify, without_tensors

__all__ = ["Bundle", "copy_bundle", "write_bundle"]

OPERAND_ORDER = (
    "LUT[a, b] by bit pattern: row a = first operand = activation, "
    "column b = second operand = weight"
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle is written from.

    entries: the multipliers the network may use, those it does use are written. images: uint8 (N,
    C, H, W), the golden input. notes: what else the manifest says (seed, versions of a run, …),
    JSON values.
    """

    name: str
    network: IntegerNetwork
    entries: Sequence[LibraryEntry]
    images: Tensor
    notes: Mapping[str, Any]

    @property
    def used(self) -> tuple[LibraryEntry, ...]:
        """The entries of the multipliers that layers use, in order of first use."""
        by_digest = {entry.digest: entry for entry in self.entries}
        return tuple(by_digest[lut.digest] for lut in self.network.luts)

    def energy_aj(self, node: Layer) -> int:
        """Multiplication energy of one inference of a layer, rounded to attojoules."""
        entry = next(entry for entry in self.used if entry.digest == node.lut.digest)
        return round(node.macs * entry.cost.energy_fj * 1000)


def write_bundle(bundle: Bundle, folder: Path) -> Verified:
    """Write and verify the bundle beside `folder`, then rename it: it is there whole or not at all.

    Returns what :func:`verify` checked. Raises InputError when `folder` exists, or when the
    verification fails.
    """
    with _placed(folder) as beside:
        _write(bundle, beside)
        return verify(beside)


def copy_bundle(source: Path, folder: Path) -> Verified:
    """Copy the bundle `source` to the new `folder` and verify the copy before it has that name."""
    with _placed(folder) as beside:
        shutil.copytree(source, beside, dirs_exist_ok=True)
        return verify(beside)


@contextmanager
def _placed(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that gets its name at the end, or is removed."""
    if folder.exists():
        raise InputError(f"{folder} must be a new folder, not one that is there")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield beside
        beside.chmod(folder.parent.stat().st_mode & 0o777)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _write(bundle: Bundle, folder: Path) -> None:
    texts, no_array = hardware_files(bundle.name, bundle.network, bundle.used, bundle.images)
    for path, text in texts.items():
        write_text(folder / "rtl" / path, text)
    energies = {node.layer: bundle.energy_aj(node) for node in bundle.network.layers}
    metadata = ModelMetadata(bundle.name, energies)
    description = {
        **_description(bundle),
        "array": no_array or "rtl/array",
        "qonnx": _write_twin(bundle, folder, metadata),
    }
    properties = {PROPERTY: json.dumps(without_tensors(description), sort_keys=True)}
    write_onnx(bundle.network, folder / "model.onnx", replace(metadata, properties=properties))
    for entry in bundle.used:
        entry.lut.save(folder / "luts" / f"{entry.name}.npy")
    _save_array(folder / "golden" / "input.npy", bundle.images.numpy())
    _save_array(folder / "golden" / "logits.npy", bundle.network(bundle.images).numpy())
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / MANIFEST, {**description, "files": files})


def _write_twin(bundle: Bundle, folder: Path, metadata: ModelMetadata) -> str:
    """The name of the QONNX twin, or why there is none."""
    missing = sorted({type(node).__name__ for node in nodes_without_form(bundle.network)})
    if missing:
        return f"none: the dialect has no form for {', '.join(missing)}"
    write_qonnx(bundle.network, folder / "model.qonnx.onnx", metadata)
    return "model.qonnx.onnx"


def _description(bundle: Bundle) -> dict[str, Any]:
    network = bundle.network
    return {
        "format": FORMAT,
        "name": bundle.name,
        "operand_order": OPERAND_ORDER,
        "input": {"name": network.input_name, "type": "uint8", "shape": list(network.input_shape)},
        "states": {"bits": STATE_BITS, "fraction_bits": FRACTION_BITS, "signed": True},
        "layers": [_layer(bundle, node) for node in network.layers],
        "multipliers": [_multiplier(entry) for entry in bundle.used],
        "notes": dict(bundle.notes),
    }


def _layer(bundle: Bundle, node: Layer) -> dict[str, Any]:
    """Matrix products have no weight; their second operand has a requantisation of its own."""
    body = product_body(node)
    shapes = _convolution(node) if isinstance(node, Convolution) else _matrix(bundle, node)
    return {
        "layer": node.layer,
        "multiplier": node.lut.name,
        "lut_sha256": node.lut.digest,
        **shapes,
        "zero_point": node.zero_point,
        "macs": node.macs,
        "energy_aj": bundle.energy_aj(node),
        "body": {"op_type": body.op_type, "rank": body.v.shape[1], "exactness_bound": body.bound},
        "input_requantisation": _requantised_by(bundle, node.inputs[0]),
        "output_requantisations": [
            _requantisation(n)
            for n in bundle.network.nodes
            if isinstance(n, Requantise) and node.name in n.inputs
        ],
    }


def _convolution(node: Convolution) -> dict[str, Any]:
    geometry = node.geometry
    return {
        "weight_shape": list(node.weight.shape),
        "output_size": list(node.output_size),
        "strides": list(geometry.stride),
        "padding": list(geometry.padding),
        "dilations": list(geometry.dilation),
        "group": geometry.groups,
    }


def _matrix(bundle: Bundle, node: Linear | MatrixProduct) -> dict[str, Any]:
    if isinstance(node, Linear):
        return {"weight_shape": list(node.weight.shape), "positions": node.positions}
    return {
        "output_shape": list(node.output_shape),
        "terms": node.terms,
        "second_zero_point": node.second_zero_point,
        "second_input_requantisation": _requantised_by(bundle, node.inputs[1]),
    }


def _requantised_by(bundle: Bundle, name: str) -> dict[str, Any]:
    quantiser = next(node for node in bundle.network.nodes if node.name == name)
    assert isinstance(quantiser, Requantise)
    return _requantisation(quantiser)


def _requantisation(node: Requantise) -> dict[str, Any]:
    """clamp((x · multiplier + offset) >> shift, low, high), one multiplier and offset a channel or
    one.
    """
    return {
        "name": node.name,
        "multiplier": node.multiplier.tolist(),
        "offset": node.offset.tolist(),
        "shift": node.shift,
        "low": node.low,
        "high": node.high,
    }


def _multiplier(entry: LibraryEntry) -> dict[str, Any]:
    lut = entry.lut
    return {
        "name": entry.name,
        "family": entry.family,
        "lut_sha256": entry.digest,
        "lut": f"luts/{entry.name}.npy",
        "verilog": f"rtl/{source_path(ModuleNames(entry.name).structural)}",
        "a_bits": lut.a_width,
        "b_bits": lut.b_width,
        "a_signed": lut.a_signed,
        "b_signed": lut.b_signed,
        "rank": lut.rank,
        "metrics": entry.metrics.to_json(),
        "cost": entry.cost.to_json(),
    }


def _save_array(path: Path, array: NDArray[Any]) -> None:
    buffer = BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())
