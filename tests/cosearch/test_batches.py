"""Batches of a split against a loop over its images, and epochs that are taken up in the middle."""

import pytest
import torch
from torch import Tensor

from cosearch.batches import Batches, Pairs
from cosearch.data import DataSet, Split
from cosearch.data.augmentation import Augmentation, augmented
from cosearch.strategies import Batch
from cosearch.world import World

SCALE = 1 / 16
CROPS = Augmentation(crop_padding=2, flip=True, cutout=3)


def split(images: int, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (images, 3, 6, 6), generator=generator, dtype=torch.uint8)
    return Split(pixels, torch.arange(images))


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def plain(images: Split, size: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """What an epoch without augmentation is."""
    order = torch.randperm(len(images), generator=generator)
    count = max(1, len(images) // size)
    parts = order[: count * size].split(size)
    return [(images.images[part].float() * SCALE, images.labels[part]) for part in parts]


@pytest.mark.parametrize("size", [4, 7, 50])
def test_an_epoch_is_the_split_once_in_the_order_of_the_generator(size: int) -> None:
    images, one, other = split(23), torch.Generator(), torch.Generator()
    loader = Batches(images, SCALE, size)
    for _ in range(2):
        found, expected = list(loader.epoch(one)), plain(images, size, other)
        assert len(found) == len(expected) == len(loader)
        for batch, (pixels, labels) in zip(found, expected, strict=True):
            assert same(batch, Batch(pixels, labels))
    assert torch.equal(one.get_state(), other.get_state())


def test_an_augmented_epoch_is_that_of_its_draws() -> None:
    images, one, other = split(23), torch.Generator(), torch.Generator()
    found = list(Batches(images, SCALE, 5, augmentation=CROPS).epoch(one))
    order = torch.randperm(23, generator=other)[:20]
    draws = CROPS.draws(20, (6, 6), other)
    for step, batch in enumerate(found):
        part = slice(5 * step, 5 * step + 5)
        pixels = augmented(images.images[order[part]], draws[part], CROPS)
        assert same(batch, Batch(pixels.float() * SCALE, order[part]))
    assert torch.equal(one.get_state(), other.get_state())


def pairs(augmentation: Augmentation = CROPS, world: World | None = None) -> Pairs:
    splits = {"train": split(23), "validation": split(17, seed=1), "test": split(1)}
    data = DataSet("example", 23, 3, 6, SCALE, splits)
    return Pairs.of(data, 4, augmentation=augmentation, world=world or World())


@pytest.mark.parametrize("start", [1, 3, 4])
def test_an_epoch_goes_on_at_any_step(start: int) -> None:
    straight, later = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    expected = list(pairs().epoch(straight))
    assert len(expected) == len(pairs()) == 4
    found = list(pairs().epoch(later, start))
    assert len(found) == 4 - start
    for one, other in zip(found, expected[start:], strict=True):
        assert same(one[0], other[0]) and same(one[1], other[1])
    assert torch.equal(straight.get_state(), later.get_state())


def test_both_halves_are_augmented_by_draws_of_their_own() -> None:
    train, validation = next(pairs().epoch(torch.Generator()))
    plain_train, plain_validation = next(pairs(Augmentation()).epoch(torch.Generator()))
    assert torch.equal(train.labels, plain_train.labels)
    assert not torch.equal(train.images, plain_train.images)
    assert not torch.equal(validation.images, plain_validation.images)


def test_processes_share_the_batches_of_one() -> None:
    alone = list(pairs().epoch(torch.Generator()))
    parts = [list(pairs(world=World(rank, 2)).epoch(torch.Generator())) for rank in (0, 1)]
    for whole, *shares in zip(alone, *parts, strict=True):
        for half in (0, 1):
            images = torch.cat([share[half].images for share in shares])
            labels = torch.cat([share[half].labels for share in shares])
            assert same(whole[half], Batch(images, labels))


def test_the_first_images_are_as_they_are() -> None:
    images = split(9)
    first = Batches(images, SCALE, 4, augmentation=CROPS).first(3)
    assert same(first, Batch(images.images[:3].float() * SCALE, images.labels[:3]))
