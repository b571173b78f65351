"""Factors that are a multiple of the operand, or of the operand without some of its low bits.

The exact multiplier's is one; so is that of a multiplier that leaves out low bits of the
activation. Such a factor is computed by an AND and a conversion, several times as fast as it is
looked up.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .padding import float_images
from .table import LUT, operand_values

__all__ = ["DirectFactor", "direct_factor"]

BITS = 8
WHOLE = (1 << BITS) - 1


@dataclass(frozen=True, eq=False)
class DirectFactor:
    """``value(pattern & mask) · v[weight]`` is the table, and every such product exact in fp32.

    v: float32 (columns,); `multiple`: of the weight's value, if v is one.
    """

    mask: int
    signed: bool
    v: Tensor
    multiple: "Multiple | None"

    def planes(self, patterns: Tensor) -> Tensor:
        """float32 values of uint8 bit patterns (N, C, H, W), channels last in memory."""
        kept = patterns if self.mask == WHOLE else patterns & self.mask
        return float_images(kept.view(_integers(self.signed)))

    def kernels(self, patterns: Tensor) -> Tensor:
        """float32 ``v[patterns]`` of uint8 bit patterns of weights, of the same shape."""
        if self.multiple is not None:
            return self.multiple.of(patterns)
        index = patterns.flatten().to(torch.int32)
        return self.v.to(patterns.device).index_select(0, index).view(patterns.shape)


@dataclass(frozen=True)
class Multiple:
    """``ratio · value(pattern)``."""

    ratio: float
    signed: bool

    def of(self, patterns: Tensor) -> Tensor:
        values = patterns.view(_integers(self.signed)).to(torch.float32)
        return values if self.ratio == 1 else values * self.ratio


@lru_cache(maxsize=256)
def direct_factor(lut: LUT) -> DirectFactor | None:
    """That of a table of rank 1 and 8-bit activations, or None where the factor is another."""
    if lut.rank != 1 or lut.a_width != BITS:
        return None
    u, v = lut.factors.u[:, 0], lut.factors.v[:, 0]
    for signed in (False, True):
        for low in range(BITS):
            mask = WHOLE & ~((1 << low) - 1)
            ratio = _ratio(u, operand_values(BITS, signed)[np.arange(1 << BITS) & mask])
            if ratio is None:
                continue
            weights = (ratio * v).astype(np.float32)
            if np.array_equal(weights.astype(np.float64), ratio * v):
                multiple = _multiple(ratio * v, lut.b_width)
                return DirectFactor(mask, signed, torch.from_numpy(weights), multiple)
    return None


def _multiple(v: NDArray[np.floating], width: int) -> Multiple | None:
    """Of 8-bit weights, `v` being exact in fp32."""
    for signed in (False, True) if width == BITS else ():
        ratio = _ratio(v, operand_values(BITS, signed))
        if ratio is not None:
            return Multiple(ratio, signed)
    return None


def _integers(signed: bool) -> torch.dtype:
    return torch.int8 if signed else torch.uint8


def _ratio(u: NDArray[np.number], values: NDArray[np.int64]) -> float | None:
    """The number by which `values` times it is `u`, where that is a multiple of 1 / 256."""
    at = int(np.abs(values).argmax())
    ratio = float(u[at] / values[at])
    exact = (ratio * (1 << BITS)).is_integer() and np.array_equal(ratio * values, u)
    return ratio if exact else None
