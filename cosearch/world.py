"""The world: the processes that do one job together, as ``torchrun`` starts them.

This module does not import torch. What the processes say to each other is in ``distributed.py``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from hw.errors import InputError

__all__ = ["ALONE", "CommonError", "World", "world_of"]

Item = TypeVar("Item")


class CommonError(InputError):
    """An error of all processes, which process 0 says; the others end without a word."""


@dataclass(frozen=True)
class World:
    """Which of how many processes this is; `local_…`: of those on this machine.

    The first, of rank 0, is the only one that writes files and shows anything.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def __post_init__(self) -> None:
        for rank, size in ((self.rank, self.size), (self.local_rank, self.local_size)):
            if not 0 <= rank < size:
                raise InputError(f"the rank of a process must be 0 … {size - 1}, not {rank}")

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def check_batch_size(self, key: str, images: int) -> None:
        """InputError unless a batch divides into equal shares of two images and more."""
        if not self.is_alone and (images % self.size or images < 2 * self.size):
            raise CommonError(
                f"{key} must be a multiple of the number of processes ({self.size}) and at least "
                f"two images for each, not {images}"
            )

    def span(self, count: int) -> slice:
        """This process's part of `count` images: equal parts one after the other, a rest is left
        out.
        """
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)


ALONE = World()


def world_of(environment: Mapping[str, str] = os.environ) -> World:
    """The world that the variables of ``torchrun`` describe; one process where there are none."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        rank, size, local_rank, local_size = (
            int(environment.get(name, environment[name.removeprefix("LOCAL_")])) for name in names
        )
    except ValueError:
        shown = ", ".join(f"{name}={environment.get(name)}" for name in names)
        raise InputError(f"variables of torchrun must be whole numbers, not {shown}") from None
    return World(rank, size, local_rank, local_size)
