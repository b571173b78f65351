"""What strangers may hand in as a bundle's files: oversized, cyclic, pickled, outside."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export import reading
from export.reading import inside, read_array, read_bytes, read_manifest, read_model
from hw.errors import InputError


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\0b", 3, None])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(InputError, match="of a bundle"):
        inside(tmp_path, name)


def test_links_that_lead_outside_or_round_are_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (tmp_path / "secret").write_text("x")
    (bundle / "link").symlink_to(tmp_path / "secret")
    (bundle / "round").symlink_to(bundle / "round")
    for name in ("link", "round"):
        with pytest.raises(InputError):
            read_bytes(inside(bundle, name))


def test_oversized_files_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGEST", {".json": 2 << 20})
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(3 << 20)
    with pytest.raises(InputError, match=r"manifest.json must be at most 2 MiB, not 3 MiB"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "must be a JSON file"),
        ("[1]", "must hold a JSON object, not list"),
        ("{", "must be a JSON file"),
        ("\xff", "must be a JSON file"),
    ],
)
def test_manifests_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "m.json")


def test_arrays_read_as_they_were_written(tmp_path: Path) -> None:
    for array in (
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.float32(2),
        np.zeros((0, 3), "u1"),
    ):
        np.save(tmp_path / "a.npy", array)
        assert np.array_equal(read_array(tmp_path / "a.npy"), array)


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a.npy must be a .npy file"):
        read_array(tmp_path / "a.npy")


def test_array_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((1, 8), np.int64))
    data = path.read_bytes()
    for claimed in (b"(9, 8)", b"(-1,8)", b"(1,8,)"):
        path.write_bytes(data.replace(b"(1, 8)", claimed))
        if claimed == b"(1,8,)":
            assert read_array(path).shape == (1, 8)
            continue
        with pytest.raises(InputError, match=r"must be a .npy file"):
            read_array(path)
    huge = data.replace(b"(1, 8), }" + 12 * b" ", b"(1000000000000, 8), }", 1)
    assert huge != data
    path.write_bytes(huge)
    with pytest.raises(InputError, match=r"must be a .npy file"):
        read_array(path)


def model(**changes: object) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    graph = helper.make_graph(changes.get("nodes", nodes), "g", value[:1], value[1:])
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("d", 1)]
    functions = changes.get("functions", [])
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)


def call(name: str, target: str) -> onnx.FunctionProto:
    node = helper.make_node(target, ["a"], ["b"], domain="d")
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("d", 1)]
    return helper.make_function("d", name, ["a"], ["b"], [node], imports)


def test_valid_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model().SerializeToString())
    assert read_model(tmp_path / "m.onnx") == model()


def test_cyclic_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    circle = [helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    path.write_bytes(model(nodes=circle).SerializeToString())
    with pytest.raises(InputError, match="must be a valid ONNX model"):
        read_model(path)
    path.write_bytes(model(functions=[call("F", "G"), call("G", "F")]).SerializeToString())
    with pytest.raises(InputError, match=r"no functions that call themselves, has d\.F, d\.G"):
        read_model(path)


def test_models_that_are_none_or_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x99garbage")
    with pytest.raises(InputError, match="must be"):
        read_model(path)
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    as_initialiser = model()
    as_initialiser.graph.initializer.append(tensor)
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    for elsewhere in (as_initialiser, model(nodes=[constant])):
        path.write_bytes(elsewhere.SerializeToString())
        with pytest.raises(InputError, match="must hold its tensors itself"):
            read_model(path)


def test_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"a": [1]}))
    assert read_manifest(tmp_path / "m.json") == {"a": [1]}
