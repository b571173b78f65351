"""A small space with real multipliers' tables, for tests of search and networks."""

import torch

from cosearch.config import OPERATIONS
from cosearch.space import SearchSpace
from cosearch.supernet import Supernet
from lut import Candidates

from ..lut.tables import truncated

SPACE = SearchSpace(4, 3, 2, OPERATIONS, image_channels=1, classes=10)
SHAPE = (1, 8, 8)
LUTS = [truncated(0), truncated(5), truncated(7, rows=2)]


def supernet(seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    return Supernet(SPACE, Candidates(LUTS), Candidates(LUTS[:1]))


def images(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
