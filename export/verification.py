"""Whether a bundle is what it says: digests, annotations, tables, exactness, Verilog and logits."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from hw.errors import InputError
from lut import LUT

from .onnx_bodies import FP32_EXACT, largest_sum
from .onnx_functions import PRODUCTS
from .reading import inside, read_array, read_bytes, read_manifest, read_model
from .rtl import icarus_present, simulated_table, verilog_table

__all__ = [
    "FORMAT",
    "MANIFEST",
    "PROPERTY",
    "Verified",
    "onnxruntime_logits",
    "verify",
    "without_tensors",
]

FORMAT = 2
MANIFEST = "manifest.json"
PROPERTY = "cosearch.manifest"
ANNOTATED = ("layer", "multiplier", "lut_sha256", "macs", "energy_aj")


@dataclass(frozen=True)
class Verified:
    """How many of each thing were checked; `readers`: the programs that read every Verilog file."""

    files: int
    layers: int
    multipliers: int
    operand_pairs: int
    readers: tuple[str, ...]
    images: int

    def __str__(self) -> str:
        return (
            f"{self.images} images bit-identical in onnxruntime, {self.layers} layers exact, "
            f"{self.multipliers} multipliers read by {' and '.join(self.readers)} over "
            f"{self.operand_pairs} operand pairs, {self.files} digests"
        )


def verify(folder: Path) -> Verified:
    """Check a bundle; returns what was checked.

    Digests of all files; the model by onnx's checker; the manifest and the layers' annotations
    against it; the factors in it against the tables and their digests, and that no sum leaves what
    fp32 holds exactly; every multiplier's Verilog over all operand pairs, read by Yosys and, where
    it is installed, simulated by Icarus; onnxruntime's logits for the golden input, bit for bit.
    Raises InputError that says where a bundle is not what it says.
    """
    manifest = read_manifest(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(f"{folder / MANIFEST} must be the manifest of a bundle of format {FORMAT}")
    try:
        _check_digests(folder, manifest["files"])
        model = read_model(folder / "model.onnx")
        _check_annotations(folder, model, manifest)
        _check_rescalings(folder, model, manifest["layers"])
        luts = {item["lut_sha256"]: _table(folder, item) for item in manifest["multipliers"]}
        _check_exactness(folder, model, manifest["layers"], luts)
        for item in manifest["multipliers"]:
            _check_verilog(folder, item, luts[item["lut_sha256"]])
        images = _check_logits(folder)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / MANIFEST} must be a complete manifest, not lack {error}"
        ) from None
    return Verified(
        len(manifest["files"]),
        len(manifest["layers"]),
        len(luts),
        sum(lut.table.size for lut in luts.values()),
        ("Yosys", *(("Icarus",) if icarus_present() else ())),
        images,
    )


def _check_digests(folder: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        path = inside(folder, name)
        if not path.is_file():
            raise InputError(f"{path} must exist, the manifest names it")
        found = hashlib.sha256(read_bytes(path)).hexdigest()
        if found != expected:
            raise InputError(f"{path} must have SHA-256 {expected}, not {found}")


def _check_annotations(folder: Path, model: onnx.ModelProto, manifest: dict[str, Any]) -> None:
    """The manifest is what the model's own copy says, and so are the attributes of its layers and
    the tensors of their rescalings.
    """
    description = {key: value for key, value in manifest.items() if key != "files"}
    copies = [p.value for p in model.metadata_props if p.key == PROPERTY]
    if not copies or json.loads(copies[0]) != without_tensors(description):
        raise InputError(
            f"{folder / MANIFEST} must say the same as {PROPERTY} in model.onnx, it does not"
        )
    nodes = _layers(model)
    if len(nodes) != len(manifest["layers"]):
        raise InputError(
            f"{folder / 'model.onnx'} must have the manifest's {len(manifest['layers'])} layers, "
            f"not {len(nodes)}"
        )
    for node, layer in zip(nodes, manifest["layers"], strict=True):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for key in ANNOTATED:
            value = attributes.get(key)
            value = value.decode() if isinstance(value, bytes) else value
            if value != layer[key]:
                raise InputError(
                    f"{key} of layer {layer['layer']!r} must be {layer[key]!r} in model.onnx as in "
                    f"{MANIFEST}, not {value!r}"
                )


def without_tensors(description: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as the model repeats it: without rescalings, whose tensors it has itself."""
    layers = [
        {key: value for key, value in layer.items() if "requantisation" not in key}
        for layer in description["layers"]
    ]
    return {**description, "layers": layers}


def _check_rescalings(folder: Path, model: onnx.ModelProto, layers: list[dict[str, Any]]) -> None:
    """Every rescaling that the manifest holds is the one that the model computes with."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.output[0]: node for node in model.graph.node}
    for layer in layers:
        for key, said in layer.items():
            if "requantisation" in key:
                for one in said if isinstance(said, list) else [said]:
                    _check_rescaling(folder, nodes[one["name"]], tensors, one)


def _check_rescaling(
    folder: Path,
    node: NodeProto,
    tensors: Mapping[str, onnx.TensorProto],
    said: Mapping[str, Any],
) -> None:
    values = (said["multiplier"], said["offset"], 2.0 ** -said["shift"], said["low"], said["high"])
    for name, value in zip(node.input[1:], values, strict=True):
        if not np.array_equal(numpy_helper.to_array(tensors[name]).reshape(-1), np.ravel(value)):
            raise InputError(
                f"{name} of {said['name']} must be the same in {folder / MANIFEST} as in "
                "model.onnx, it is not"
            )


def _layers(model: onnx.ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type.startswith(PRODUCTS)]


def _table(folder: Path, item: Mapping[str, Any]) -> LUT:
    path = inside(folder, item["lut"])
    signs = {"a_signed": bool(item["a_signed"]), "b_signed": bool(item["b_signed"])}
    lut = LUT(read_array(path), **signs, name=str(item["name"]))
    if lut.digest != item["lut_sha256"]:
        raise InputError(f"{path} must be the table of digest {item['lut_sha256']}")
    return lut


def _check_exactness(
    folder: Path,
    model: onnx.ModelProto,
    layers: list[dict[str, Any]],
    luts: Mapping[str, LUT],
) -> None:
    """The factors that a layer computes with make up its table, and its sums stay below 2**24."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node, layer in zip(_layers(model), layers, strict=True):
        where = f"layer {layer['layer']!r} of {folder / 'model.onnx'}"
        parts, v, base = _factors(node, tensors)
        table = sum(part * base**index for index, part in enumerate(parts)) @ v.T
        if not np.array_equal(table, luts[layer["lut_sha256"]].table):
            raise InputError(f"{where} must compute with the table of {layer['multiplier']}")
        bound = max(_sum_bound(node, layer, tensors, part, v) for part in parts)
        if bound >= FP32_EXACT or bound != layer["body"]["exactness_bound"]:
            raise InputError(
                f"{where} must have sums of at most {layer['body']['exactness_bound']}, as its "
                f"manifest says, and below 2**24, not {bound}"
            )


def _factors(
    node: NodeProto, tensors: Mapping[str, onnx.TensorProto]
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], int]:
    """The parts of u, v, and the base of the parts."""
    first = 3 if "Conv" in node.op_type else 2
    arrays = [numpy_helper.to_array(tensors[name]).astype(np.int64) for name in node.input[first:]]
    if "Split" not in node.op_type:
        return [arrays[0]], arrays[1], 1
    return arrays[:-2], arrays[-2], int(arrays[-1])


def _sum_bound(
    node: NodeProto,
    layer: Mapping[str, Any],
    tensors: Mapping[str, onnx.TensorProto],
    u: NDArray[np.int64],
    v: NDArray[np.int64],
) -> int:
    weights = tensors.get(node.input[1])
    if weights is None:
        return largest_sum(u, v, None, None, int(layer["terms"]))
    levels = numpy_helper.to_array(weights).astype(np.int64)
    if "Conv" not in node.op_type:
        return largest_sum(u, v, None, levels.T, len(levels))
    zero = int(numpy_helper.to_array(tensors[node.input[2]]))
    padded = next(any(a.ints) for a in node.attribute if a.name == "pads")
    outputs = levels.reshape(len(levels), -1)
    return largest_sum(u, v, zero if padded else None, outputs, outputs.shape[1])


def _check_verilog(folder: Path, item: Mapping[str, Any], lut: LUT) -> None:
    path = inside(folder, item["verilog"])
    text = read_bytes(path).decode()
    tables = {"Yosys": verilog_table(path, lut)}
    if icarus_present():
        tables["Icarus"] = simulated_table(
            {path.name: text},
            path.stem,
            a_width=lut.a_width,
            b_width=lut.b_width,
            signed=lut.a_signed or lut.b_signed,
        )
    for reader, table in tables.items():
        if not np.array_equal(table, lut.table):
            a, b = np.argwhere(table != lut.table)[0]
            raise InputError(
                f"{path} must multiply as {item['lut']} says: {lut.table[a, b]} for the bit "
                f"patterns {a} and {b}, not {table[a, b]} (read by {reader})"
            )


def _check_logits(folder: Path) -> int:
    images, expected = (
        read_array(folder / "golden" / name) for name in ("input.npy", "logits.npy")
    )
    logits = onnxruntime_logits(folder / "model.onnx", images)
    if logits.dtype != expected.dtype or not np.array_equal(logits, expected):
        same_shape = logits.shape == expected.shape
        different = int((logits != expected).any(axis=1).sum()) if same_shape else len(images)
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
