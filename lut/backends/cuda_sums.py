"""Sums of what programs of a kernel have written, on a CUDA device: always in the same order."""

import torch
from torch import Tensor

from .cuda_operands import on_device, power_of_two

__all__ = ["summed"]

TILE = 8192
"""Values that a program has in hand at a time."""
NARROWEST, WIDEST = 8, 32


def summed(parts: Tensor) -> Tensor:
    """parts.sum(0), float32; parts (programs, …) contiguous float32, where the kernels run."""
    from .sum_kernel import add_parts

    rows, width = parts.shape[0], parts[0].numel()
    result = torch.empty(parts.shape[1:], device=parts.device)
    wide = max(NARROWEST, min(WIDEST, power_of_two(width)))
    many = min(power_of_two(rows), TILE // wide)
    with on_device(parts):
        add_parts[(-(-width // wide),)](parts, result, rows, width, many, wide, num_warps=4)
    return result
