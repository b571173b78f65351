"""Batches of a split whose images stay on one device as bytes.

The order of an epoch, and what augmentation draws for it, come from a generator on the CPU and are
moved to the device once an epoch. A batch is then chosen, augmented and scaled there, and nothing
waits. The epoch is decided by the generator's state at its beginning, so it can be taken up at any
step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cosearch.data import DataSet, Split
from cosearch.data.augmentation import Augmentation, Draws, augmented
from cosearch.strategies import Batch
from cosearch.world import ALONE, World

__all__ = ["Batches", "Pairs"]

CPU = torch.device("cpu")
PLAIN = Augmentation()


class Batches:
    """A split in random order, epoch after epoch; images float in [0, 1], channels_last on CUDA.

    An incomplete last batch is left out, unless it is the only one. `size` is that of all
    processes; of each batch this process has its share.
    """

    def __init__(
        self,
        split: Split,
        pixel_scale: float,
        size: int,
        device: torch.device = CPU,
        augmentation: Augmentation = PLAIN,
        world: World = ALONE,
    ) -> None:
        self.images, self.labels = split.images.to(device), split.labels.to(device)
        self.pixel_scale, self.size, self.device = pixel_scale, size, device
        self.augmentation, self.world = augmentation, world
        self.layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format

    def __len__(self) -> int:
        """Batches of an epoch."""
        return max(1, len(self.labels) // self.size)

    def epoch(self, generator: torch.Generator, start: int = 0) -> Iterator[Batch]:
        """The batches from number `start` on; all is drawn from `generator` at once."""
        order = self._drawn(generator)
        return (self._batch(order, step) for step in range(start, len(self)))

    def first(self, count: int) -> Batch:
        """The first so many images of the split, as they are."""
        return Batch(self._scaled(self.images[:count]), self.labels[:count])

    def _drawn(self, generator: torch.Generator) -> "_Order":
        """This process's part of the epoch."""
        total, each = len(self.labels), min(self.size, len(self.labels))
        indices = torch.randperm(total, generator=generator)[: len(self) * each]
        height, width = self.images.shape[-2:]
        draws = self.augmentation.draws(len(indices), (height, width), generator)
        own = torch.arange(len(indices)).view(len(self), each)[:, self.world.span(each)]
        parts = own.reshape(-1)
        mine = draws[parts].to(self.device)
        return _Order(indices[parts].to(self.device), mine, own.shape[1])

    def _batch(self, order: "_Order", step: int) -> Batch:
        part = order.part(step)
        indices = order.indices[part]
        images = augmented(
            self.images.index_select(0, indices), order.draws[part], self.augmentation
        )
        return Batch(self._scaled(images), self.labels.index_select(0, indices))

    def _scaled(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, memory_format=self.layout) * self.pixel_scale


@dataclass(frozen=True, eq=False)
class _Order:
    """indices int64 and draws, of the images of an epoch, `each` of a batch."""

    indices: Tensor
    draws: Draws
    each: int

    def part(self, step: int) -> slice:
        return slice(step * self.each, (step + 1) * self.each)


@dataclass(frozen=True, eq=False)
class Pairs:
    """A batch of the training half and one of the validation half for each step of a search; an
    epoch ends with the smaller half.
    """

    train: Batches
    validation: Batches

    @classmethod
    def of(
        cls,
        data: DataSet,
        size: int,
        device: torch.device = CPU,
        augmentation: Augmentation = PLAIN,
        world: World = ALONE,
    ) -> "Pairs":
        """Of the splits of a data set, batches of `size` of each."""
        halves = [data.splits[name] for name in ("train", "validation")]
        train, validation = (
            Batches(half, data.pixel_scale, size, device, augmentation, world) for half in halves
        )
        return cls(train, validation)

    def __len__(self) -> int:
        """Steps of an epoch."""
        return min(len(self.train), len(self.validation))

    def epoch(self, generator: torch.Generator, start: int = 0) -> Iterator[tuple[Batch, Batch]]:
        """The pairs from number `start` on; all is drawn from `generator` at once."""
        train = self.train.epoch(generator, start)
        return zip(train, self.validation.epoch(generator, start), strict=False)
