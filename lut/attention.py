"""Products of two activations as modules: what attention computes outside of its layers.

``Matmul`` is torch's; ``ApproxMatmul`` quantises both operands, multiplies by table, accumulates
exactly and rescales. Write attention with the first, and :func:`lut.approximate` can put the second
in its place.
"""

import torch
from torch import Tensor, nn

from .candidates import Candidates
from .layers import PLAIN, result_type
from .quantisation import Quantisation, quantise

__all__ = ["ApproxMatmul", "Matmul"]


class Matmul(nn.Module):
    """``x @ y``."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y


class ApproxMatmul(nn.Module):
    """``x @ y`` whose integer products are those of a multiplier; x is its first operand.

    x real (..., M, K), y real (..., K, N), batches broadcast; result (..., M, N) =
    ``scale_x · scale_y · accumulator``. Each operand has one quantiser. With several candidates
    ``forward`` takes their weights, shape (M,), over one factorised product.

    Gradients of operands are the exact product's, zero where an operand is clamped, whatever the
    candidates' own; that of the mixture is exact.
    """

    def __init__(self, candidates: Candidates, *, quantisation: Quantisation = PLAIN) -> None:
        super().__init__()
        self.candidates = candidates
        self.x_quantiser = quantisation.quantiser(candidates.a_range, candidates.a_full_range)
        self.y_quantiser = quantisation.quantiser(candidates.b_range, candidates.b_full_range)

    def forward(self, x: Tensor, y: Tensor, mixture: Tensor | None = None) -> Tensor:
        self.candidates.check_mixture(mixture)
        (x_scale, x_zero), (y_scale, y_zero) = self.x_quantiser.grid(x), self.y_quantiser.grid(y)
        affine = not self.x_quantiser.is_symmetric
        x_range, y_range = (
            (quantiser.low, quantiser.high) for quantiser in (self.x_quantiser, self.y_quantiser)
        )
        sums = torch.ops.lut.matmul(
            quantise(x, x_scale, *x_range, x_zero if affine else 0),
            quantise(y, y_scale, *y_range, y_zero if affine else 0),
            x_zero, y_zero, mixture, self.candidates.key, affine,
        )  # fmt: skip
        result: Tensor = (sums * (x_scale * y_scale)).to(result_type(x))
        return result

    def extra_repr(self) -> str:
        return f"multiplier={'|'.join(lut.name for lut in self.candidates.luts)}"
