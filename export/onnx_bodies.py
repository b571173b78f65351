"""How each layer's products are computed exactly in fp32: the factors of its table, in digits where
sums would not be exact, and the bound that proves it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.errors import InputError
from lut import LUT

from .integer import Convolution, Layer, Linear
from .onnx_functions import MOST_PARTS, approx_conv_name, approx_matmul_name

__all__ = ["FP32_EXACT", "ProductBody", "largest_sum", "product_body"]

FP32_EXACT = 1 << 24
FACTOR_RANK_LIMIT = 64


@dataclass(frozen=True, eq=False)
class ProductBody:
    """With u whole, or with u in `parts` digits: u = sum_i parts[i] · base**i.

    base is 1 for a single part. bound: no partial sum of any part's accumulators exceeds it, with
    the layer's own weights, if it has any, and any other operands.
    """

    op_type: str
    parts: tuple[NDArray[np.int64], ...]
    base: int
    v: NDArray[np.int64]
    bound: int


def product_body(layer: Layer) -> ProductBody:
    """The body with fewest parts that is exact, whatever the activations."""
    u, v = _factors(layer.lut)
    for count in range(1, MOST_PARTS + 1):
        for bits in range(1, 31) if count > 1 else [0]:
            parts = _digits(u, 1 << bits, count)
            bound = max(_bound(layer, part, v) for part in parts)
            if bound < FP32_EXACT:
                return ProductBody(_name(layer, count), parts, 1 << bits, v, bound)
    raise InputError(
        f"layer {layer.layer!r} must have sums below 2**24 in each of {MOST_PARTS} parts, "
        f"not a fan-in of {_fan_in(layer)}"
    )


def _name(layer: Layer, parts: int) -> str:
    if isinstance(layer, Convolution):
        return approx_conv_name(parts, grouped=layer.geometry.groups > 1)
    return approx_matmul_name(parts)


def _bound(layer: Layer, u: NDArray[np.int64], v: NDArray[np.int64]) -> int:
    padded = isinstance(layer, Convolution) and any(layer.geometry.padding)
    zero = layer.zero_point if padded else None
    return largest_sum(u, v, zero, _weights(layer), _fan_in(layer))


def largest_sum(
    u: NDArray[np.int64],
    v: NDArray[np.int64],
    zero_point: int | None,
    weights: NDArray[np.int64] | None,
    fan_in: int,
) -> int:
    """max over outputs of sum_k max_a sum_r |u_r(a)|·|v_r(w_k)|; the largest w_k where `weights`,
    levels (O, fan_in), are None.

    In a layer that pads, u stands for u less the row of the zero point, which is in the bias; it is
    None for one that does not.
    """
    row = np.zeros_like(u[:1]) if zero_point is None else u[zero_point & (len(u) - 1)][None]
    largest = ((np.abs(u - row) @ np.abs(v).T).max(axis=0) + (np.abs(row) @ np.abs(v).T))[0]
    if weights is None:
        return int(largest.max()) * fan_in
    return int(largest[weights & (len(v) - 1)].sum(axis=1).max())


def _weights(layer: Layer) -> NDArray[np.int64] | None:
    """Levels (O, fan-in); None where both operands are activations."""
    if isinstance(layer, Convolution):
        levels = layer.weight.flatten(1)
    elif isinstance(layer, Linear):
        levels = layer.weight.T
    else:
        return None
    return levels.numpy().astype(np.int64)


def _fan_in(layer: Layer) -> int:
    if isinstance(layer, Convolution):
        return layer.weight[0].numel()
    return len(layer.weight) if isinstance(layer, Linear) else layer.terms


def _digits(u: NDArray[np.int64], base: int, count: int) -> tuple[NDArray[np.int64], ...]:
    """`count` digits of u, the lowest first; the last one takes what is left, with the sign."""
    digits = []
    for _ in range(count - 1):
        digits.append(u % base)
        u = u // base
    return (*digits, u)


def _factors(lut: LUT) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A table of high rank is its own factor: u = identity, v = its transpose; one of zeros has one
    column of them.
    """
    if lut.rank > FACTOR_RANK_LIMIT:
        return np.eye(len(lut.table), dtype=np.int64), lut.table.T.astype(np.int64)
    if lut.rank == 0:
        rows, columns = lut.table.shape
        return np.zeros((rows, 1), np.int64), np.zeros((columns, 1), np.int64)
    return lut.factors.u, lut.factors.v
