"""The study of gradients: what it is asked for, which images it takes, and that it trains."""

import io
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.gradients import (
    MULTIPLIERS,
    Study,
    compare_on_images,
    emulated,
    initial_network,
    parsed,
    train,
)
from benchmarks.images import drawn_names, read_splits
from cosearch.config import GRADIENTS
from cosearch.data import Split
from hw import build_multiplier
from hw.errors import InputError
from lut import LUT, ApproxConv2d

EXACT = LUT.exact(a_signed=True, b_signed=True)


def random_images(count: int, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10)


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [layer.weight for layer in network.modules() if isinstance(layer, ApproxConv2d)]


def archive(path: Path, names: list[str], content: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, content)
    return path


def test_defaults_are_those_of_what_is_asked_for() -> None:
    run, images = parsed(["folder"]), parsed(["--images", "some.zip", "--seeds", "5"])
    assert (run.run, run.epochs, run.seeds) == (Path("folder"), 20, 3)
    assert (images.images, images.epochs, images.seeds) == (Path("some.zip"), 4, 5)
    assert tuple(images.multipliers) == MULTIPLIERS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either the folder of a run or --images"),
        (["folder", "--images", "some.zip"], "give either the folder of a run or --images"),
        (["folder", "--seeds", "0"], "epochs, seeds and numbers of images must be at least 1"),
        (["folder", "--epochs", "0"], "epochs, seeds and numbers of images must be at least 1"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_images_are_drawn_once_and_always_alike() -> None:
    names = [f"train/{index % 10}/{index:04}.jpg" for index in range(300)]
    drawn = drawn_names(names, 200)
    assert len(set(drawn)) == 200 and set(drawn) <= set(names)
    assert drawn_names(names, 200) == drawn
    assert drawn_names(names, 100) == drawn[:100]
    with pytest.raises(InputError, match=r"^images asked for must be at most 300, not 301$"):
        drawn_names(names, 301)


def test_training_and_test_images_are_disjoint(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for index in range(20):
            buffer = io.BytesIO()
            pillow.new("RGB", (32, 32), (12 * index, 0, 0)).save(buffer, "JPEG")
            file.writestr(f"train/{'cat' if index < 10 else 'dog'}/{index}.jpg", buffer.getvalue())
    training, test = read_splits(path, 12, 8)
    assert training.images.shape == (12, 3, 32, 32) and len(test) == 8
    reds = torch.cat([training.images, test.images])[:, 0, 0, 0].div(12.0).round().long()
    assert sorted(reds.tolist()) == list(range(20))
    assert torch.equal(torch.cat([training.labels, test.labels]), (reds >= 10).long())


def test_what_is_no_zip_is_said_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    path = tmp_path / "images.zip"
    with pytest.raises(InputError, match=rf"^{path} must be a zip of images \(.*\)$"):
        read_splits(path, 1, 0)
    path.write_text("no zip")
    with pytest.raises(InputError, match=rf"^{path} must be a zip of images \(.*\)$"):
        read_splits(path, 1, 0)


def test_missing_pillow_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    with pytest.raises(InputError, match="^install Pillow, which decodes the images"):
        read_splits(archive(tmp_path / "images.zip", ["a/0.jpg"]), 1, 0)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_step_of_training_changes_all_weights(gradient: str) -> None:
    lut = LUT.of(build_multiplier("mul8s_drum_k3"))
    network = emulated(initial_network(0), lut, gradient)
    before = [weight.clone() for weight in weights(network)]
    assert len(before) == 7
    train(network, random_images(8), 1, 0.05, seed=0)
    for weight, old in zip(weights(network), before, strict=True):
        assert weight.isfinite().all() and not torch.equal(weight, old)


def test_emulation_takes_the_gradient_and_keeps_the_weights() -> None:
    start = initial_network(3)
    network = emulated(start, EXACT, "fitted")
    layers = [layer for layer in network.modules() if isinstance(layer, ApproxConv2d)]
    assert {layer.candidates.gradient for layer in layers} == {"fitted"}
    convolutions = [layer for layer in start.modules() if isinstance(layer, nn.Conv2d)]
    for layer, convolution in zip(layers, convolutions, strict=True):
        assert torch.equal(layer.weight, convolution.weight)


def test_a_seed_gives_weights_and_order() -> None:
    results = []
    for _ in range(2):
        network = emulated(initial_network(1), EXACT, "straight_through")
        train(network, random_images(130), 1, 0.05, seed=1)
        results.append(torch.cat([weight.flatten() for weight in weights(network)]))
    assert torch.equal(*results)


def test_comparison_on_images(capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(random_images(64), random_images(20, seed=1), epochs=1, seeds=1)
    compare_on_images(study, [EXACT])
    printed = capsys.readouterr().out
    for regime in ("scratch", "retrained"):
        for gradient in GRADIENTS:
            assert f'"accuracy_{regime}_{EXACT.name}_{gradient}_mean"' in printed
        assert f'"difference_{regime}_{EXACT.name}_fitted_lowest"' in printed
        assert f'"difference_{regime}_{EXACT.name}_straight_through' not in printed
