"""The main job itself, small: every stage for real, killed and resumed, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cosearch.energy_lines import LINES
from export import onnxruntime_logits, verify

from .processes import PATIENCE_S, heed_interrupts

REPOSITORY = Path(__file__).parents[2]
SMALL = (
    "threads=1",
    "space.channels=4",
    'space.operations=["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]',
    'multipliers.candidates=["mul8s_array", "mul8s_truncated_k7", "mul8s_broken_array_h2_v7"]',
    "multipliers.built_also=[]",
    "search.epochs=3",
    "search.alpha_learning_rate=0.1",
    "train.epochs=3",
    "search.checkpoint_minutes=0.0005",  # inside epochs, too
    "train.checkpoint_minutes=0.0005",
)
OVERRIDES = [argument for setting in SMALL for argument in ("-o", setting)]


def start(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cosearch", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def ended(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def killed_once_there(folder: Path, file: str, *arguments: str) -> None:
    """Start the command and kill it without warning as soon as `file` exists."""
    process = start(*arguments, cwd=folder.parent)
    deadline = time.monotonic() + PATIENCE_S
    while not (folder / file).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from beginning to end."""
    folder = tmp_path_factory.mktemp("straight")
    code, out, err = ended("run", "--out", "run", *OVERRIDES, cwd=folder)
    assert code == 0, err
    assert "bit-identical in onnxruntime" in out and "energy saved" in out
    return folder / "run"


def test_everything_is_there(straight: Path) -> None:
    for name in (
        "config.toml",
        "run.json",
        "genotype.json",
        "evaluation.json",
        "report.html",
        "bundle/model.onnx",
        "bundle/manifest.json",
        "bundle/golden/input.npy",
        "bundle/golden/logits.npy",
    ):
        assert (straight / name).stat().st_size > 0, name
    assert len(list((straight / "bundle" / "rtl" / "src").glob("*.v"))) >= 1
    rows = (straight / "search" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2, 3]


def test_accuracy_is_that_of_the_exported_model(straight: Path) -> None:
    images, labels = _test_split(straight)
    assert np.array_equal(np.load(straight / "bundle" / "golden" / "input.npy"), images)
    logits = onnxruntime_logits(straight / "bundle" / "model.onnx", images)
    evaluation = json.loads((straight / "evaluation.json").read_text())
    accuracy = float((logits.argmax(1) == labels).mean())
    assert evaluation["networks"]["approximate"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert accuracy > 0.5


def _test_split(run: Path) -> tuple[np.ndarray, np.ndarray]:
    from cosearch.data import load_data_set

    test = load_data_set("digits", json.loads((run / "run.json").read_text())["seed"]).splits[
        "test"
    ]
    return test.images.numpy(), test.labels.numpy()


def test_energy_adds_up(straight: Path) -> None:
    evaluation = json.loads((straight / "evaluation.json").read_text())
    library = json.loads((straight / "luts" / "library.json").read_text())
    energy_fj = {m["name"]: m["cost"]["energy_fj"] for m in library["multipliers"]}
    total = exact = 0.0
    for layer in evaluation["layers"]:
        assert layer["energy_nj"] == pytest.approx(
            layer["macs"] * energy_fj[layer["multiplier"]] * 1e-6
        )
        total += layer["macs"] * energy_fj[layer["multiplier"]]
        exact += layer["macs"] * energy_fj["mul8s_array"]
    assert evaluation["energy_saved"] == pytest.approx(1 - total / exact)
    for role, fj in (("approximate", total), ("exact", exact)):
        network = evaluation["networks"][role]
        lines = network["energy_lines_nj"]
        assert set(lines) == set(LINES)
        assert lines["multiplications"] == pytest.approx(fj * 1e-6)
        assert network["latency_ms"] == pytest.approx(
            network["clocks"] * network["period_ps"] * 1e-9
        )
    for name in LINES:
        layers = [layer["energy_lines_nj"][name] for layer in evaluation["layers"]]
        found = evaluation["networks"]["approximate"]["energy_lines_nj"][name]
        assert found == pytest.approx(sum(layers))
        assert evaluation["networks"]["fp32"]["energy_lines_nj"][name] > found


def test_bundle_verifies(straight: Path) -> None:
    assert verify(straight / "bundle").images == 539


def test_bundle_is_handed_over_and_checked_again(straight: Path, tmp_path: Path) -> None:
    code, out, err = ended("export", str(straight), "--out", "copy", cwd=tmp_path)
    assert code == 0, err
    assert out.startswith("copy: verified: 539 images bit-identical in onnxruntime")
    code, out, _ = ended("export", "--verify", "copy", cwd=tmp_path)
    assert code == 0 and out.startswith("copy: verified: ")
    code, _, err = ended("export", str(straight), "--out", "copy", cwd=tmp_path)
    assert code == 2 and "copy must be a new folder, not one that is there" in err
    model = tmp_path / "copy" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    code, _, err = ended("export", "--verify", "copy", cwd=tmp_path)
    assert code == 2 and "model.onnx must have SHA-256" in err and err.count("\n") == 1
    code, _, err = ended("export", "--verify", "--force", "copy", cwd=tmp_path)
    assert code == 2 and "leave --force out" in err
    code, _, err = ended("export", "--verify", "nowhere", cwd=tmp_path)
    assert code == 2 and "manifest.json must be a file, there is none" in err


def test_killed_twice_and_resumed_it_ends_with_the_same_bytes(
    straight: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    killed_once_there(folder, "search/checkpoint.pt", "run", "--out", "run", *OVERRIDES)
    killed_once_there(folder, "train/exact-checkpoint.pt", "run", "--resume", "run")
    code, _, err = ended("run", "--resume", "run", cwd=tmp_path)
    assert code == 0, err
    for name in ("genotype.json", "bundle/model.onnx", "bundle/manifest.json", "evaluation.json"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name


def test_interrupted_by_the_user_it_says_how_to_go_on(tmp_path: Path) -> None:
    process = start("run", "--out", "run", *OVERRIDES, cwd=tmp_path)
    while not (tmp_path / "run" / "luts" / "library.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "go on with: cosearch run --resume run" in err and "Traceback" not in err


@pytest.fixture
def half(straight: Path, tmp_path: Path) -> Path:
    """A copy of the run as it was before its search was finished."""
    import shutil

    shutil.copytree(straight, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["stages"] = {"lut": record["stages"]["lut"]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("search/checkpoint.pt", "checkpoint.pt must be a checkpoint, not a"),
        ("luts/mul8s_truncated_k7.npz", "mul8s_truncated_k7.npz must be an intact .npz"),
        ("luts/library.json", "library.json must be a JSON file"),
    ],
)
def test_truncated_file_is_one_line_and_left_alone(half: Path, file: str, message: str) -> None:
    data = (half / file).read_bytes()[:-100]
    (half / file).write_bytes(data)
    before = {path: path.stat().st_mtime_ns for path in half.rglob("*") if path.is_file()}
    code, _, err = ended("run", "--resume", "run", cwd=half.parent)
    assert code == 2 and message in err
    assert "checkpoint" not in file or "anew with: cosearch search --force run" in err
    assert err.startswith("error: ") and err.count("\n") == 1
    before.pop(half / ".lock", None)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())


def test_checkpoint_of_another_configuration_is_refused(half: Path) -> None:
    text = (half / "config.toml").read_text()
    (half / "config.toml").write_text(text.replace("energy_weight = 0.1", "energy_weight = 0.4"))
    code, _, err = ended("search", "run", cwd=half.parent)
    assert code == 2 and "must be a checkpoint of this configuration, not of another" in err


def test_genotype_with_another_table_is_refused(straight: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    text = (folder / "genotype.json").read_text()
    digest = json.loads(text)["normal"]["preprocess"][0]["sha256"]
    (folder / "genotype.json").write_text(text.replace(digest, "0" * 64))
    code, _, err = ended("evaluate", "run", "--force", cwd=tmp_path)
    assert code == 2 and f"must have the table of digest {'0' * 64}" in err
