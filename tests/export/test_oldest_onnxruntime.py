"""The model in the oldest supported onnxruntime and in this one, every level, 1 and 2 threads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from torch import Tensor

from export import IntegerNetwork, integerise, write_onnx
from hw import build_multiplier
from lut import LUT

from .networks import pixels, trained_residual
from .test_own_networks import CASES

ROOT = Path(__file__).parents[2]
OLDEST = ROOT / ".venv-oldest" / "bin" / "python"


NETWORKS = ("residual", "resnet20_affine", "transformer_mixed")


@pytest.fixture(scope="module", params=NETWORKS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Model, golden input and golden logits of a small network with several multipliers."""
    folder = tmp_path_factory.mktemp("model")
    network, images = _residual() if request.param == "residual" else _own(request.param)
    write_onnx(network, folder / "model.onnx")
    np.save(folder / "input.npy", images.numpy())
    np.save(folder / "logits.npy", network(images).numpy())
    return [str(folder / name) for name in ("model.onnx", "input.npy", "logits.npy")]


def _residual() -> tuple[IntegerNetwork, Tensor]:
    luts = [LUT.of(build_multiplier(name)) for name in ("mul8s_array", "mul8s_truncated_k7")]
    return integerise(trained_residual(luts), (2, 8, 8), 1 / 16), pixels(20)


def _own(name: str) -> tuple[IntegerNetwork, Tensor]:
    case = CASES[name]
    return integerise(case.emulated(), case.shape, 1 / 255), case.pixels()


def run(python: str | Path, files: list[str]) -> tuple[str, int]:
    """Version and number of sessions that gave the golden logits."""
    script = str(Path(__file__).with_name("run_in_onnxruntime.py"))
    process = subprocess.run([python, script, *files], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    version, count = process.stdout.split()
    return version, int(count)


def test_installed_onnxruntime_gives_the_golden_logits(files: list[str]) -> None:
    version, count = run(sys.executable, files)
    assert version == onnxruntime.__version__ and count >= 8


@pytest.mark.skipif(not OLDEST.exists(), reason="no .venv-oldest (make oldest)")
def test_oldest_supported_onnxruntime_gives_the_golden_logits(files: list[str]) -> None:
    version, count = run(OLDEST, files)
    dependency = f'"onnxruntime>={version.removesuffix(".0")}"'
    assert dependency in (ROOT / "pyproject.toml").read_text() and count >= 8
