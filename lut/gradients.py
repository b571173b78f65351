"""Gradients of an approximate product with respect to its operands: how training sees a table.

A table f(a, b) has no derivative. Each entry of `GRADIENTS` is a pair of tables that stand for it:
``d f / d a ≈ slope_x(a, b)`` and ``d f / d b ≈ slope_w(a, b)``, each a product of factors so that
backward passes are ordinary convolutions, too:

``straight_through``: slope_x = b, slope_w = a, the exact product's (Bengio et al. 2013; what
emulators of the TFApprox kind do). ``difference``: central differences of the table, smoothed over
a window of operands (after Meng et al., DATE 2025); as costly as the table's rank. ``fitted``: for
each b the slope of the least-squares line through f(·, b), for each a that through f(a, ·), over
uniform operands in the quantiser's range: the best linear model of the table, of one plane like
``straight_through``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .factors import Factors
from .table import LUT, operand_values

__all__ = ["GRADIENTS", "ProductGradient"]

Array = NDArray[np.float64]
WINDOW = 4
"""Operands on either side that a smoothed difference reaches to."""


@dataclass(frozen=True, eq=False)
class ProductGradient:
    """``slope_x(a, b) = x_u[a] @ x_v[b]`` and ``slope_w(a, b) = w_u[a] @ w_v[b]``, by bit pattern.

    x_u, w_u: (rows, S); x_v, w_v: (columns, S).
    """

    x_u: Array
    x_v: Array
    w_u: Array
    w_v: Array


def _straight_through(lut: LUT, factors: Factors) -> ProductGradient:
    a = operand_values(lut.a_width, lut.a_signed).astype(np.float64)[:, None]
    b = operand_values(lut.b_width, lut.b_signed).astype(np.float64)[:, None]
    return ProductGradient(np.ones_like(a), b, a, np.ones_like(b))


def _fitted(lut: LUT, factors: Factors) -> ProductGradient:
    a = operand_values(lut.a_width, lut.a_signed).astype(np.float64)
    b = operand_values(lut.b_width, lut.b_signed).astype(np.float64)
    over_a = _line_weights(a) @ lut.table
    over_b = lut.table @ _line_weights(b)
    ones = np.ones((len(a), 1)), np.ones((len(b), 1))
    return ProductGradient(ones[0], over_a[:, None], over_b[:, None], ones[1])


def _difference(lut: LUT, factors: Factors) -> ProductGradient:
    slopes_u = _differences(factors.u, operand_values(lut.a_width, lut.a_signed))
    slopes_v = _differences(factors.v, operand_values(lut.b_width, lut.b_signed))
    u, v = factors.u.astype(np.float64), factors.v.astype(np.float64)
    return ProductGradient(slopes_u, v, u, slopes_v)


def _line_weights(values: Array) -> Array:
    """w with w @ y the slope of the least-squares line through (values, y)."""
    centred = values - values.mean()
    weights: Array = centred / (centred**2).sum()
    return weights


def _differences(factor: NDArray[np.int64], values: NDArray[np.int64]) -> Array:
    """Slopes of each column over a window of neighbouring operands, by bit pattern.

    The slope of the least-squares line through the 2·WINDOW + 1 values around each operand, fewer
    at the ends of the range: a smoothed central difference.
    """
    order = np.argsort(values)
    ordered = factor[order].astype(np.float64)
    slopes = np.empty_like(ordered)
    for place in range(len(order)):
        low, high = max(0, place - WINDOW), min(len(order), place + WINDOW + 1)
        slopes[place] = _line_weights(np.arange(low, high, dtype=np.float64)) @ ordered[low:high]
    result = np.empty_like(slopes)
    result[order] = slopes
    return result


GRADIENTS: dict[str, Callable[[LUT, Factors], ProductGradient]] = {
    "straight_through": _straight_through,
    "difference": _difference,
    "fitted": _fitted,
}
