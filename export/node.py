"""What all operations of an integer network share, and the fixed-point format of its states."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

__all__ = ["FRACTION_BITS", "STATE_BITS", "STATE_RANGE", "Node"]

FRACTION_BITS = 9
STATE_BITS = 16
STATE_RANGE = (-(1 << (STATE_BITS - 1)), (1 << (STATE_BITS - 1)) - 1)


@dataclass(frozen=True, eq=False)
class Node(ABC):
    """One integer operation; `inputs` are names of nodes before it or of the network's input."""

    name: str
    inputs: tuple[str, ...]

    @abstractmethod
    def evaluate(self, *operands: Tensor) -> Tensor:
        """The result from int tensors, (N, C, H, W) where nothing else is said, exact."""
