"""The bundle: complete, verified, and refused when one bit of any file is another."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import Bundle, integerise, verify, write_bundle
from export.rtl import ModuleNames
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
    assert files == {
        "model.onnx",
        "manifest.json",
        "golden/input.npy",
        "golden/logits.npy",
        *(f"luts/{name}.npy" for name in NAMES[:2]),
        *(
            f"rtl/src/{module}.v"
            for name in NAMES[:2]
            for module in ModuleNames(name).all(signed=True)
        ),
        *(f"rtl/tb/cosearch_{name}{end}" for name in NAMES[:2] for end in BENCH),
        "rtl/tb/cocotb_multipliers.py",
        "rtl/tb/multipliers.json",
    }
    assert verify(folder) == {
        "files": 21,
        "multipliers": 2,
        "operand_pairs": 131_072,
        "images": 20,
    }


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
    exact = (changed / "rtl" / "src" / "cosearch_mul8s_array.v").read_text()
    other = exact.replace("mul8s_array", "mul8s_truncated_k7")
    (changed / "rtl" / "src" / "cosearch_mul8s_truncated_k7.v").write_text(other)
    with pytest.raises(InputError, match="truncated_k7.v must multiply as luts/mul8s_trunc"):
        verify(changed)


def test_paths_that_leave_the_bundle_are_refused(folder: Path, tmp_path: Path) -> None:
    changed = _with_manifest(folder, tmp_path / "outside", files={"../x": "0"})
    with pytest.raises(InputError, match="files of a bundle must lie inside it"):
        verify(changed)


def test_existing_folder_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    with pytest.raises(InputError, match="must be a new folder"):
        write_bundle(bundle, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
