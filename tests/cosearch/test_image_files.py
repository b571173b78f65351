"""CIFAR-10 and image folders from small files made here: every form, hostile and damaged ones."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cosearch.config import Data
from cosearch.data import DataSet, load_data_set
from hw.errors import InputError

NAMES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]


def _arrays(name: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(NAMES.index(name))
    return random.integers(0, 256, (20, 3072), np.uint8), np.arange(20) % 10


def _binary(name: str) -> bytes:
    pixels, labels = _arrays(name)
    return np.column_stack([labels.astype(np.uint8), pixels]).tobytes()


def _python(name: str) -> bytes:
    pixels, labels = _arrays(name)
    return pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol=2)


def _folder(root: Path, form: str) -> Path:
    folder = root / f"cifar-10-batches-{form}"
    folder.mkdir()
    for name in NAMES:
        if form == "bin":
            (folder / f"{name}.bin").write_bytes(_binary(name))
        else:
            (folder / name).write_bytes(_python(name))
    return folder


def _archive(root: Path, form: str) -> Path:
    folder = _folder(root, form)
    path = root / {"py": "cifar-10-python.tar.gz", "bin": "cifar-10-binary.tar.gz"}[form]
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


def _cifar10(path: Path, most: int = 0) -> DataSet:
    return load_data_set("cifar10", 0, Data(name="cifar10", path=str(path), most_images=most))


@pytest.mark.parametrize("form", ["py", "bin"])
@pytest.mark.parametrize("archived", [False, True])
def test_every_published_form_gives_the_same_images(
    form: str, archived: bool, tmp_path: Path
) -> None:
    data = _cifar10((_archive if archived else _folder)(tmp_path, form))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 50, "validation": 50, "test": 20,
    }  # fmt: skip
    pixels, labels = _arrays("test_batch")
    assert np.array_equal(data.splits["test"].images.numpy(), pixels.reshape(-1, 3, 32, 32))
    assert data.splits["test"].labels.tolist() == labels.tolist()
    halves = torch.cat([data.splits[name].images for name in ("train", "validation")])
    found = sorted(image.numpy().tobytes() for image in halves)
    assert found == sorted(row.tobytes() for name in NAMES[:5] for row in _arrays(name)[0])
    assert torch.bincount(data.splits["train"].labels).tolist() == [5] * 10


def test_a_folder_of_the_folder_and_a_cap_are_taken(tmp_path: Path) -> None:
    _folder(tmp_path, "bin")
    assert [len(split) for split in _cifar10(tmp_path, most=7).splits.values()] == [7, 7, 7]


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    folder, target = _folder(tmp_path, "py"), tmp_path / "touched"
    (folder / "data_batch_2").write_bytes(pickle.dumps(_Hostile(target)))
    with pytest.raises(InputError, match="data_batch_2 must be a Python file of CIFAR-10"):
        _cifar10(folder)
    assert not target.exists()


@pytest.mark.parametrize("form", ["py", "bin"])
def test_truncated_files_are_one_line(form: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, form)
    file = next(folder.glob("data_batch_3*"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="data_batch_3") as error:
        _cifar10(folder)
    assert "\n" not in str(error.value)


def test_a_truncated_archive_is_one_line(tmp_path: Path) -> None:
    path = _archive(tmp_path, "bin")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="must be a whole archive of CIFAR-10"):
        _cifar10(path)


def test_missing_files_say_where_they_are_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cs\.toronto\.edu/~kriz/cifar\.html and set data\.path"):
        _cifar10(tmp_path / "nowhere")


@pytest.mark.parametrize("zipped", [False, True])
def test_an_image_folder_is_divided_by_its_shares(zipped: bool, tmp_path: Path) -> None:
    root = tmp_path / "images"
    for label, name in enumerate(("cat", "dog")):
        (root / "train" / name).mkdir(parents=True)
        for number in range(10):
            colour = (number, 100 * label, 7)
            Image.new("RGB", (8, 8), colour).save(root / "train" / name / f"{number}.png")
    path = root
    if zipped:
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in root.glob("train/*/*"):
                archive.write(file, file.relative_to(root))
    data = load_data_set("image_folder", 0, Data(name="image_folder", path=str(path)))
    assert [len(split) for split in data.splits.values()] == [8, 8, 4]
    for split in data.splits.values():
        assert torch.equal(split.images[:, 1, 0, 0], (100 * split.labels).to(torch.uint8))


def test_images_of_other_sizes_and_broken_ones_are_one_line(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / f"{number}.png")
    settings = Data(name="image_folder", path=str(tmp_path))
    other = tmp_path / "train" / "dog" / "3.png"
    Image.new("RGB", (9, 9)).save(other)
    with pytest.raises(InputError, match="3.png must be 8×8 pixels as the first image, not 9×9"):
        load_data_set("image_folder", 0, settings)
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    other.write_bytes(stream.getvalue()[:40])
    with pytest.raises(InputError, match="3.png must be a whole PNG or JPEG image"):
        load_data_set("image_folder", 0, settings)
