"""Drop path (Larsson et al., FractalNet, ICLR 2017): results of operations are left out at random.

As in the training of DARTS networks: of each image each operation but skips, and what is kept grows
by as much. Draws come from torch's own generator of the device.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["DropPath"]


class DropPath:
    """Called with an operation's result (N, C, H, W). The probability changes in place."""

    def __init__(self, device: torch.device) -> None:
        self.probability = torch.zeros((), device=device)

    def set(self, probability: float) -> None:
        self.probability.fill_(probability)

    def __call__(self, result: Tensor) -> Tensor:
        draws = torch.rand((len(result), 1, 1, 1), device=result.device)
        kept = (draws >= self.probability) / (1 - self.probability)
        return result * kept.to(result.dtype)


# What becomes of an operation's result.
Drop = Callable[[Tensor], Tensor]
