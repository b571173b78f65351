"""Error metrics of a product table against the exact products, over all operand pairs.

Definitions are those of EvoApproxLib (Mrázek et al., DATE 2017): every operand pair counts equally
and the relative error is taken against max(1, |exact product|).
"""

from dataclasses import asdict, dataclass

import numpy as np

from .table import LUT, operand_values

__all__ = ["ErrorMetrics", "error_metrics"]


@dataclass(frozen=True)
class ErrorMetrics:
    """All zero for an exact multiplier.

    mae: mean absolute error, in units of the product (also: MED; divided by the largest product:
    NMED). wce: worst-case absolute error. mre: mean relative error, a ratio. ep: share of operand
    pairs with any error, a ratio. mse: mean squared error. bias: mean signed error.
    """

    mae: float
    wce: int
    mre: float
    ep: float
    mse: float
    bias: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def error_metrics(lut: LUT) -> ErrorMetrics:
    """Metrics of `lut` over all 2**(a_width + b_width) operand pairs."""
    errors = lut.errors
    absolute = np.abs(errors)
    exact = np.outer(
        operand_values(lut.a_width, lut.a_signed), operand_values(lut.b_width, lut.b_signed)
    )
    return ErrorMetrics(
        mae=float(absolute.mean()),
        wce=int(absolute.max()),
        mre=float((absolute / np.maximum(1, np.abs(exact))).mean()),
        ep=float((absolute > 0).mean()),
        mse=float((errors.astype(np.float64) ** 2).mean()),
        bias=float(errors.mean()),
    )
