"""The bundle: complete, verified, and refused when one bit of any file is another."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import Bundle, Verified, copy_bundle, integerise, verify, write_bundle
from export.rtl import icarus_present
from export.verification import without_tensors
from hw.errors import InputError
from lut import MultiplierLibrary

from .networks import pixels, trained_residual

NAMES = ["mul8s_array", "mul8s_truncated_k7", "mul8u_array"]
BENCH = ("_variants.v", "_tb.v", ".hex")


@pytest.fixture(scope="module")
def library() -> MultiplierLibrary:
    return MultiplierLibrary.build(NAMES)


@pytest.fixture(scope="module")
def bundle(library: MultiplierLibrary) -> Bundle:
    network = integerise(trained_residual(library.luts(NAMES[:2])), (2, 8, 8), 1 / 16)
    return Bundle("test", network, tuple(library), pixels(20), {"seed": 0})


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "bundle"
    write_bundle(bundle, folder)
    return folder


def test_holds_what_a_team_takes_over(folder: Path) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    outside = {name for name in files if not name.startswith("rtl/")}
    assert outside == {
        "model.onnx",
        "model.qonnx.onnx",
        "manifest.json",
        "golden/input.npy",
        "golden/logits.npy",
        *(f"luts/{name}.npy" for name in NAMES[:2]),
    }
    forms = ("", "_behavioural", "_pipelined", "_unsigned")
    assert files >= {
        *(f"rtl/src/cosearch_{name}{form}.v" for name in NAMES[:2] for form in forms),
        *(f"rtl/tb/cosearch_{name}_tb.v" for name in NAMES[:2]),
        "rtl/array/cosearch_systolic_array.v",
        "rtl/hls/cosearch_product.h",
        "rtl/Makefile",
        "rtl/README.md",
        "rtl/cosearch.core",
    }
    found = verify(folder)
    assert found == Verified(len(files) - 1, 6, 2, 131_072, found.readers, 20)
    assert found.readers == ("Yosys", "Icarus")[: 1 + icarus_present()]


def test_manifest_accounts_for_every_layer(folder: Path, bundle: Bundle) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [layer["layer"] for layer in manifest["layers"]] == [
        node.layer for node in bundle.network.convolutions
    ]
    costs = {entry.name: entry.cost.energy_fj for entry in bundle.entries}
    for layer in manifest["layers"]:
        assert layer["energy_aj"] == round(layer["macs"] * costs[layer["multiplier"]] * 1000)
        assert layer["body"]["exactness_bound"] < 1 << 24
        assert layer["output_requantisations"]


def test_same_network_gives_the_same_files(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    write_bundle(bundle, tmp_path / "again")
    for path in folder.rglob("*"):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(folder)
            assert path.read_bytes() == again.read_bytes(), path.name


def test_one_changed_bit_is_found_and_named(folder: Path, tmp_path: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    for number, path in enumerate(files):
        changed = tmp_path / str(number)
        shutil.copytree(folder, changed)
        target = changed / path.relative_to(folder)
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        target.write_bytes(bytes(data))
        with pytest.raises(InputError, match=f"{path.name} must have SHA-256"):
            verify(changed)


def test_changed_byte_of_the_manifest_is_found_or_harmless(folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    data = (folder / "manifest.json").read_bytes()
    meant = json.loads(data)
    for position in range(0, len(data), len(data) // 40):
        other = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        (changed / "manifest.json").write_bytes(other)
        if _meaning(other) != meant:
            with pytest.raises(InputError):
                verify(changed)


def _meaning(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None


def test_annotation_that_differs_from_the_manifest_is_found(folder: Path, tmp_path: Path) -> None:
    changed = _with_manifest(folder, tmp_path / "annotation", files={})
    model = onnx.load(changed / "model.onnx")
    node = next(n for n in model.graph.node if n.op_type == "ApproxConvInteger")
    next(a for a in node.attribute if a.name == "energy_aj").i += 1
    onnx.save(model, changed / "model.onnx")
    with pytest.raises(InputError, match="energy_aj of layer 'stem' must be"):
        verify(changed)


def _with_manifest(folder: Path, target: Path, **changes: object) -> Path:
    """A copy of the bundle whose digests are true of its files as they are now."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    manifest = json.loads((target / "manifest.json").read_text()) | changes
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def test_wrong_contents_with_right_digests_are_found(folder: Path, tmp_path: Path) -> None:
    changed = _with_manifest(folder, tmp_path / "logits", files={})
    logits = np.load(changed / "golden" / "logits.npy")
    logits[3, 0] = np.nextafter(logits[3, 0], np.float32(9e9))
    np.save(changed / "golden" / "logits.npy", logits)
    with pytest.raises(InputError, match="bit for bit; 1 of 20 images differ"):
        verify(changed)
    changed = _with_manifest(folder, tmp_path / "verilog", files={})
    sources = changed / "rtl" / "src"
    exact = (sources / "cosearch_mul8s_array.v").read_text()
    other = exact.replace("mul8s_array", "mul8s_truncated_k7")
    (sources / "cosearch_mul8s_truncated_k7.v").write_text(other)
    with pytest.raises(
        InputError, match=r"truncated_k7.v must multiply as luts/mul8s_trunc.*read by Yosys"
    ):
        verify(changed)


def test_model_that_computes_with_another_table_is_found(folder: Path, tmp_path: Path) -> None:
    changed = _with_manifest(folder, tmp_path / "table", files={})
    model = onnx.load(changed / "model.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == "mul8s_truncated_k7.u")
    factor = numpy_helper.to_array(tensor).copy()
    factor[200, 1] += 1
    tensor.CopyFrom(numpy_helper.from_array(factor, tensor.name))
    onnx.save(model, changed / "model.onnx")
    with pytest.raises(InputError, match="must compute with the table of mul8s_truncated_k7"):
        verify(changed)


def test_bound_that_is_not_the_models_is_found(folder: Path, tmp_path: Path) -> None:
    changed = _with_manifest(folder, tmp_path / "bound", files={})
    manifest = json.loads((changed / "manifest.json").read_text())
    manifest["layers"][1]["body"]["exactness_bound"] -= 1
    (changed / "manifest.json").write_text(json.dumps(manifest))
    model = onnx.load(changed / "model.onnx")
    copy = next(p for p in model.metadata_props if p.key == "cosearch.manifest")
    description = {k: v for k, v in manifest.items() if k != "files"}
    copy.value = json.dumps(without_tensors(description), sort_keys=True)
    onnx.save(model, changed / "model.onnx")
    with pytest.raises(InputError, match="must have sums of at most"):
        verify(changed)


def test_rescaling_that_is_not_the_models_is_found(folder: Path, tmp_path: Path) -> None:
    changed = _with_manifest(folder, tmp_path / "rescaling", files={})
    text = (changed / "manifest.json").read_text()
    for key, change in (("offset", [1]), ("shift", 3), ("high", 5)):
        manifest = json.loads(text)
        manifest["layers"][2]["input_requantisation"][key] = change
        (changed / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match="levels must be the same in"):
            verify(changed)


def test_copy_is_verified_before_it_is_there(folder: Path, tmp_path: Path) -> None:
    assert copy_bundle(folder, tmp_path / "copy") == verify(folder)
    (tmp_path / "copy" / "luts" / "mul8s_array.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"mul8s_array.npy must have SHA-256"):
        copy_bundle(tmp_path / "copy", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_paths_that_leave_the_bundle_are_refused(folder: Path, tmp_path: Path) -> None:
    changed = _with_manifest(folder, tmp_path / "outside", files={"../x": "0"})
    with pytest.raises(InputError, match="files of a bundle must lie inside it"):
        verify(changed)


def test_existing_folder_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    with pytest.raises(InputError, match="must be a new folder"):
        write_bundle(bundle, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
