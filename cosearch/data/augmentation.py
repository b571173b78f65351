"""Augmentation of images in batches, wherever they are: crops of padded images, flips, cutout.

Random crops and flips as in DARTS (Liu, Simonyan, Yang, ICLR 2019), cutout as DeVries and Taylor
(arXiv 1708.04552, 2017). What is random is drawn first, for all images of an epoch and on the CPU;
applying it takes a gather and a mask for a whole batch and waits for nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Augmentation", "Draws", "augmented"]


@dataclass(frozen=True)
class Augmentation:
    """crop_padding: zero pixels on each side, of which a window of the image's size is cut; flip:
    an image is mirrored by chance of one half; cutout: side of a square that becomes zero, pixels.

    A square's centre is in the image, its sides may be outside.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0

    @property
    def changes_nothing(self) -> bool:
        return self == Augmentation()

    def draws(self, images: int, size: tuple[int, int], generator: torch.Generator) -> "Draws":
        """For so many images of height and width `size`; only for what is switched on."""
        offsets = torch.full((images, 2), self.crop_padding)
        if self.crop_padding:
            offsets = torch.randint(2 * self.crop_padding + 1, (images, 2), generator=generator)
        mirrored = torch.zeros(images, dtype=torch.bool)
        if self.flip:
            mirrored = torch.randint(2, (images,), generator=generator) == 1
        centres = torch.zeros(images, 2, dtype=torch.int64)
        if self.cutout:
            places = [torch.randint(side, (images,), generator=generator) for side in size]
            centres = torch.stack(places, 1)
        return Draws(offsets, mirrored, centres)


@dataclass(frozen=True, eq=False)
class Draws:
    """Of each image. offsets int64 (N, 2): row and column of the padded image at which the window
    begins; mirrored bool (N,); centres int64 (N, 2): row and column of the square's centre.
    """

    offsets: Tensor
    mirrored: Tensor
    centres: Tensor

    def to(self, device: torch.device) -> "Draws":
        tensors = (self.offsets, self.mirrored, self.centres)
        return Draws(*(tensor.to(device) for tensor in tensors))

    def __getitem__(self, images: slice | Tensor) -> "Draws":
        return Draws(self.offsets[images], self.mirrored[images], self.centres[images])


def augmented(images: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """Images (N, C, H, W) of any type, cropped, then mirrored, then cut out; draws on their device.

    The same tensor where nothing is switched on.
    """
    if augmentation.changes_nothing:
        return images
    height, width = images.shape[-2:]
    down, across = (torch.arange(side, device=images.device) for side in (height, width))
    mirrored = draws.mirrored[:, None]
    rows = down + draws.offsets[:, :1] - augmentation.crop_padding
    columns = torch.where(mirrored, across.flip(0), across)
    columns = columns + draws.offsets[:, 1:] - augmentation.crop_padding
    kept = _within(rows, height)[:, :, None] & _within(columns, width)[:, None]
    if augmentation.cutout:
        hidden = [
            _covered(positions, centre, augmentation.cutout)
            for positions, centre in zip((down, across), draws.centres.T, strict=True)
        ]
        kept = kept & ~(hidden[0][:, :, None] & hidden[1][:, None])
    found = _gathered(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    return found.masked_fill(~kept[:, None], 0)


def _within(positions: Tensor, side: int) -> Tensor:
    return (positions >= 0) & (positions < side)


def _covered(positions: Tensor, centres: Tensor, length: int) -> Tensor:
    """bool (N, side): from `length` // 2 before the centre on, `length` pixels."""
    first = centres[:, None] - length // 2
    return (positions >= first) & (positions < first + length)


def _gathered(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Of each image the pixels at rows (N, H) and columns (N, W)."""
    numbers = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images.permute(0, 2, 3, 1)[numbers, rows[:, :, None], columns[:, None]]
    return pixels.permute(0, 3, 1, 2)
