"""Augmentation in batches against the same image by image, bit for bit."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cosearch.data.augmentation import Augmentation, Draws, augmented

EVERYTHING = Augmentation(crop_padding=4, flip=True, cutout=5)


def one_by_one(images: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """The same, by padding, slicing and assignment."""
    height, width = images.shape[-2:]
    found = []
    for number, image in enumerate(images):
        padded = functional.pad(image, (augmentation.crop_padding,) * 4)
        row, column = draws.offsets[number].tolist()
        window = padded[:, row : row + height, column : column + width].clone()
        if draws.mirrored[number]:
            window = window.flip(-1)
        if augmentation.cutout:
            top, left = (place - augmentation.cutout // 2 for place in draws.centres[number])
            bottom, right = top + augmentation.cutout, left + augmentation.cutout
            window[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 0
        found.append(window)
    return torch.stack(found)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "augmentation",
    [
        EVERYTHING,
        Augmentation(crop_padding=2),
        Augmentation(crop_padding=11),
        Augmentation(flip=True),
        Augmentation(cutout=1),
        Augmentation(cutout=40),
    ],
)
def test_a_batch_is_augmented_as_its_images_are(
    augmentation: Augmentation, kind: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (64, 3, 9, 7), generator=generator).to(kind)
    draws = augmentation.draws(64, (9, 7), generator)
    result = augmented(images, draws, augmentation)
    assert result.dtype == kind
    assert torch.equal(result, one_by_one(images, draws, augmentation))


def test_nothing_switched_on_draws_nothing_and_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    draws = Augmentation().draws(5, (8, 8), generator)
    assert torch.equal(generator.get_state(), before)
    images = torch.rand(5, 1, 8, 8)
    assert augmented(images, draws, Augmentation()) is images


def test_every_place_is_drawn_equally_often() -> None:
    draws = EVERYTHING.draws(20_000, (6, 10), torch.Generator().manual_seed(0))
    for values, count in [
        (draws.offsets[:, 0], 9),
        (draws.offsets[:, 1], 9),
        (draws.mirrored.long(), 2),
        (draws.centres[:, 0], 6),
        (draws.centres[:, 1], 10),
    ]:
        shares = torch.bincount(values, minlength=count) / len(values)
        assert len(shares) == count
        assert torch.allclose(shares, torch.full((count,), 1 / count), atol=0.02)
