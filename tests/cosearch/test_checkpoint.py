"""Checkpoints: what is saved is loaded; damaged and hostile files are refused."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from cosearch.checkpoint import load_checkpoint, save_checkpoint
from hw.errors import InputError


def state() -> dict[str, object]:
    generator = torch.Generator().manual_seed(3)
    return {
        "epoch": 4,
        "loss": 0.25,
        "weights": {"a": torch.rand(40, 5, generator=generator), "b": torch.arange(7)},
        "rng": generator.get_state(),
        "names": ["x", "y"],
        "nothing": None,
    }


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and all(same(one[key], other[key]) for key in one)
    return one == other


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "checkpoint.pt"
    save_checkpoint(path, state())
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_what_is_saved_is_loaded(saved: Path) -> None:
    assert same(state(), load_checkpoint(saved))


def test_saving_replaces_the_file_and_leaves_nothing_beside(saved: Path) -> None:
    save_checkpoint(saved, {"epoch": 5})
    assert load_checkpoint(saved) == {"epoch": 5}
    assert list(saved.parent.iterdir()) == [saved]


def test_a_state_that_cannot_be_saved_leaves_the_old_one(saved: Path) -> None:
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save_checkpoint(saved, {"function": lambda: None})
    assert same(state(), load_checkpoint(saved))


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "must be a file, but there is none" in refused(tmp_path / "none.pt")
    assert "must be a file, but there is none" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    assert "must be a checkpoint, not a truncated or corrupt file" in refused(saved)


def test_a_flipped_bit_in_a_tensor_is_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    weights = state()["weights"]["a"].numpy().tobytes()  # type: ignore[index]
    data[data.index(weights) + 100] ^= 16
    saved.write_bytes(data)
    assert "must be a checkpoint, not a corrupt file (damaged: " in refused(saved)


def test_a_flipped_bit_anywhere_is_refused_or_harmless(saved: Path) -> None:
    """Padding carries nothing; everything else is covered by a checksum or by structure."""
    data = saved.read_bytes()
    refusals = 0
    for place in range(0, len(data), 37):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        saved.write_bytes(damaged)
        try:
            loaded = load_checkpoint(saved)
        except InputError:
            refusals += 1
        else:
            assert same(state(), loaded), place
    assert refusals > 20


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04", os.urandom(4096)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    refused(path)


def test_another_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(path)


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_bomb_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, target = tmp_path / "checkpoint.pt", tmp_path / "made"
    torch.save({"epoch": 1, "bomb": Bomb(target)}, path)
    assert "must be a checkpoint of tensors and plain values" in refused(path)
    assert not target.exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    path, target = tmp_path / "checkpoint.pt", tmp_path / "made"
    path.write_bytes(pickle.dumps(Bomb(target)))
    refused(path)
    assert not target.exists()


def test_a_saved_tensor_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    path.write_bytes(buffer.getvalue())
    assert "must be a checkpoint, not a saved Tensor" in refused(path)
