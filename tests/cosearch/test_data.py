"""The digits: real pixels as they are, stratified splits that depend on the seed alone."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from cosearch.config import Config, overridden
from cosearch.data import DATA_SETS, DataSet, check_data_set, load_data_set
from cosearch.pipeline import run_stages
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from hw.errors import InputError


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data_set("digits", 0)


def test_shapes_and_types(digits: DataSet) -> None:
    assert (digits.classes, digits.channels, digits.size) == (10, 1, 8)
    assert {name: len(split) for name, split in digits.splits.items()} == {
        "train": 629,
        "validation": 629,
        "test": 539,
    }
    for split in digits.splits.values():
        assert split.images.shape == (len(split), 1, 8, 8)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)


def test_every_image_is_in_one_split_with_its_own_label(digits: DataSet) -> None:
    source = load_digits()
    expected = sorted(
        (tuple(image), int(label)) for image, label in zip(source.data, source.target, strict=True)
    )
    found = sorted(
        (tuple(float(v) for v in image.flatten()), int(label))
        for split in digits.splits.values()
        for image, label in zip(split.images, split.labels, strict=True)
    )
    assert found == expected


def test_real_values_lie_between_zero_and_one(digits: DataSet) -> None:
    real = digits.splits["train"].images * digits.pixel_scale
    assert (float(real.min()), float(real.max())) == (0.0, 1.0)


def test_splits_are_stratified(digits: DataSet) -> None:
    total = torch.bincount(torch.from_numpy(load_digits().target))
    for name, share in (("train", 0.35), ("validation", 0.35), ("test", 0.30)):
        counts = torch.bincount(digits.splits[name].labels)
        assert float((counts - total * share).abs().max()) <= 1.0


def test_equal_seeds_give_equal_splits_and_others_others(digits: DataSet) -> None:
    again, other = load_data_set("digits", 0), load_data_set("digits", 1)
    for name, split in digits.splits.items():
        assert torch.equal(split.images, again.splits[name].images)
        assert torch.equal(split.labels, again.splits[name].labels)
    assert not torch.equal(digits.splits["test"].labels, other.splits["test"].labels)


def test_an_unknown_data_set_is_one_line() -> None:
    with pytest.raises(InputError) as error:
        load_data_set("digit", 0)
    message = (
        "data set must be one of cifar10, digits, image_folder, not 'digit'; did you mean 'digits'?"
    )
    assert str(error.value) == message


def test_the_configuration_knows_the_same_data_sets() -> None:
    from dataclasses import fields

    from cosearch.config import Data

    assert fields(Data)[0].metadata["choices"] == tuple(DATA_SETS)


@pytest.mark.parametrize("name", ["cifar10", "image_folder"])
def test_images_that_are_not_there_are_missed_before_anything_is_built(
    name: str, tmp_path: Path
) -> None:
    config = overridden(Config(), [f"data.name={name}", f"data.path={tmp_path / 'none'}"])
    with pytest.raises(InputError, match=r"data\.path must be"):
        check_data_set(config.data)
    run = RunFolder.create(tmp_path / "run", config)
    with pytest.raises(InputError, match=r"data\.path must be"):
        run_stages(run, Progress(quiet=True))
    assert not run.finished("lut")
    check_data_set(Config().data)
