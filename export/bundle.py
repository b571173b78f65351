"""The bundle: one folder with everything a hardware or software team takes over, and its
verification.

``model.onnx``, ``manifest.json``, ``luts/<multiplier>.npy``, ``rtl/…`` (`export.rtl`),
``golden/input.npy`` (uint8 images) and ``golden/logits.npy`` (float32, the model's output for
them).
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from torch import Tensor

from hw.errors import InputError
from hw.files import read_json, write_bytes, write_json, write_text
from lut import LUT, LibraryEntry

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
from .onnx_functions import PRODUCTS
from .onnx_model import ModelMetadata, write_onnx
from .rtl import ModuleNames, multipliers_rtl, source_path, verilog_table

__all__ = ["Bundle", "verify", "write_bundle"]

FORMAT = 1
MANIFEST = "manifest.json"
PROPERTY = "cosearch.manifest"
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


def write_bundle(bundle: Bundle, folder: Path) -> dict[str, int]:
    """Write and verify the bundle beside `folder`, then rename it: it is there whole or not at all.

    Returns what :func:`verify` counted.

    Raises InputError when `folder` exists, or when the verification fails.
    """
    if folder.exists():
        raise InputError(f"{folder} must be a new folder, not one that is there")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        _write(bundle, beside)
        counts = verify(beside)
        beside.chmod(folder.parent.stat().st_mode & 0o777)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return counts


def verify(folder: Path) -> dict[str, int]:
    """Check a bundle; returns how many of each thing were checked.

    Digests of all files; the manifest and the layers' annotations against the model; tables against
    their digests; every Verilog file, read by Yosys and simulated over all operand pairs, against
    its table; onnxruntime's logits for the golden input against the golden logits, bit for bit.
    Raises InputError that says where a bundle is not what it says.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{folder / MANIFEST} must be the manifest of a bundle of format {FORMAT}")
    try:
        _check_digests(folder, manifest["files"])
        _check_annotations(folder, manifest)
        for item in manifest["multipliers"]:
            _check_multiplier(folder, item)
        images = _check_logits(folder)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{folder / MANIFEST} must be a complete manifest, not lack {error}"
        ) from None
    return {
        "files": len(manifest["files"]),
        "multipliers": len(manifest["multipliers"]),
        "operand_pairs": 65_536 * len(manifest["multipliers"]),
        "images": images,
    }


def _write(bundle: Bundle, folder: Path) -> None:
    description = _description(bundle)
    energies = {node.layer: bundle.energy_aj(node) for node in bundle.network.layers}
    properties = {PROPERTY: json.dumps(description, sort_keys=True)}
    metadata = ModelMetadata(bundle.name, energies, properties)
    write_onnx(bundle.network, folder / "model.onnx", metadata)
    for entry in bundle.used:
        entry.lut.save(folder / "luts" / f"{entry.name}.npy")
    for path, text in multipliers_rtl(bundle.used).items():
        write_text(folder / "rtl" / path, text)
    _save_array(folder / "golden" / "input.npy", bundle.images.numpy())
    _save_array(folder / "golden" / "logits.npy", bundle.network(bundle.images).numpy())
    files = {
        str(path.relative_to(folder)): _sha256(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / MANIFEST, {**description, "files": files})


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


def _check_digests(folder: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        path = _inside(folder, name)
        if not path.is_file():
            raise InputError(f"{path} must exist, the manifest names it")
        found = _sha256(path.read_bytes())
        if found != expected:
            raise InputError(f"{path} must have SHA-256 {expected}, not {found}")


def _check_annotations(folder: Path, manifest: dict[str, Any]) -> None:
    """The manifest is what the model's own copy says, and so are the attributes of its layers."""
    model = _load_model(folder / "model.onnx")
    description = {key: value for key, value in manifest.items() if key != "files"}
    copies = [p.value for p in model.metadata_props if p.key == PROPERTY]
    if not copies or json.loads(copies[0]) != description:
        raise InputError(
            f"{folder / MANIFEST} must say the same as {PROPERTY} in model.onnx, it does not"
        )
    nodes = [node for node in model.graph.node if node.op_type.startswith(PRODUCTS)]
    for node, layer in zip(nodes, manifest["layers"], strict=True):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for key in ("layer", "multiplier", "lut_sha256", "macs", "energy_aj"):
            value = attributes[key].decode() if isinstance(layer[key], str) else attributes[key]
            if value != layer[key]:
                raise InputError(
                    f"{key} of layer {layer['layer']!r} must be {layer[key]!r} in model.onnx as in "
                    f"{MANIFEST}, not {value!r}"
                )


def _load_model(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except (OSError, DecodeError) as error:
        raise InputError(f"{path} must be an ONNX model ({error})") from None


def _check_multiplier(folder: Path, item: Mapping[str, Any]) -> None:
    lut = LUT.load(
        _inside(folder, item["lut"]),
        a_signed=bool(item["a_signed"]),
        b_signed=bool(item["b_signed"]),
        name=str(item["name"]),
    )
    if lut.digest != item["lut_sha256"]:
        raise InputError(f"{folder / item['lut']} must be the table of digest {item['lut_sha256']}")
    path = _inside(folder, item["verilog"])
    table = verilog_table(path, lut)
    if not np.array_equal(table, lut.table):
        a, b = np.argwhere(table != lut.table)[0]
        raise InputError(
            f"{path} must multiply as {item['lut']} says: {lut.table[a, b]} for the bit patterns "
            f"{a} and {b}, not {table[a, b]}"
        )


def _check_logits(folder: Path) -> int:
    images, expected = (
        _load_array(folder / "golden" / name) for name in ("input.npy", "logits.npy")
    )
    logits = onnxruntime_logits(folder / "model.onnx", images)
    if logits.dtype != expected.dtype or not np.array_equal(logits, expected):
        different = int((logits != expected).any(axis=1).sum())
        raise InputError(
            f"{folder / 'model.onnx'} must give the golden logits bit for bit; "
            f"{different} of {len(images)} images differ"
        )
    return len(images)


def onnxruntime_logits(
    model: Path, images: NDArray[np.uint8], *, threads: int = 1, optimised: bool = True
) -> NDArray[np.float32]:
    """The model's output for `images` in stock onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: images})[0]
    return logits


def _inside(folder: Path, name: str) -> Path:
    """A file of the bundle; a name that leads out of the bundle is refused."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"files of a bundle must lie inside it, not at {name!r}")
    return path


def _save_array(path: Path, array: NDArray[Any]) -> None:
    buffer = BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())


def _load_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} must be a .npy file ({error})") from None
    return array


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
