"""Gradients of tables: exact for an exact table, by definition for others, naive sums in layers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hw.errors import InputError
from lut import LUT, ApproxConv2d, Candidates
from lut.gradients import GRADIENTS, WINDOW
from lut.table import operand_values

from .tables import random_table, truncated

EXACT = LUT.exact(a_signed=True, b_signed=True)
VALUES = operand_values(8, signed=True).astype(float)


@pytest.mark.parametrize("name", GRADIENTS)
def test_exact_table_has_the_exact_gradient(name: str) -> None:
    slopes = GRADIENTS[name](EXACT, EXACT.factors)
    assert np.allclose(slopes.x_u @ slopes.x_v.T, np.tile(VALUES, (256, 1)))
    assert np.allclose(slopes.w_u @ slopes.w_v.T, np.tile(VALUES[:, None], (1, 256)))


@pytest.mark.parametrize("lut", [truncated(7), random_table(3)], ids=lambda lut: lut.name)
def test_fitted_slopes_are_those_of_least_squares_lines(lut: LUT) -> None:
    slopes = GRADIENTS["fitted"](lut, lut.factors)
    for pattern in (0, 5, 128, 201):
        along_a = np.polyfit(VALUES, lut.table[:, pattern], 1)[0]
        assert np.isclose((slopes.x_u @ slopes.x_v.T)[17, pattern], along_a)
        along_b = np.polyfit(VALUES, lut.table[pattern], 1)[0]
        assert np.isclose((slopes.w_u @ slopes.w_v.T)[pattern, 99], along_b)


@pytest.mark.parametrize("lut", [truncated(7), random_table(3)], ids=lambda lut: lut.name)
def test_differences_are_slopes_over_a_window_of_the_table(lut: LUT) -> None:
    slopes = GRADIENTS["difference"](lut, lut.factors)
    slope_x, slope_w = slopes.x_u @ slopes.x_v.T, slopes.w_u @ slopes.w_v.T
    for a, b in ((0, 3), (-128, 77), (127, -128), (-60, -1)):
        around = np.arange(max(-128, a - WINDOW), min(127, a + WINDOW) + 1)
        expected = np.polyfit(around, lut.table[around & 255, b & 255], 1)[0]
        assert np.isclose(slope_x[a & 255, b & 255], expected)
        around = np.arange(max(-128, b - WINDOW), min(127, b + WINDOW) + 1)
        expected = np.polyfit(around, lut.table[a & 255, around & 255], 1)[0]
        assert np.isclose(slope_w[a & 255, b & 255], expected)


def _gradients(gradient: str, luts: list[LUT], mixture: Tensor | None) -> tuple[Tensor, ...]:
    """Gradients of the integer levels of x and w, taken through quantisers of scale 1."""
    torch.manual_seed(0)
    settings = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    layer = ApproxConv2d(4, 6, 3, Candidates(luts, gradient=gradient), **settings).eval()
    layer.quantiser.set_range(-127.0, 127.0)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape).float())
        layer.weight[:, 0, 0, 0] = 127.0
    x = torch.randint(-127, 128, (2, 4, 5, 5)).float().requires_grad_()
    result = layer(x, mixture)
    output_gradient = torch.randn(result.shape)
    result.backward(output_gradient)
    assert x.grad is not None and layer.weight.grad is not None
    return x.detach(), layer.weight.detach(), output_gradient, x.grad, layer.weight.grad


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("weights", [None, [0.25, 0.75], [0.5, 1.5]])
def test_layer_gradients_are_the_naive_sums(gradient: str, weights: list[float] | None) -> None:
    if weights == [0.5, 1.5] and gradient == "straight_through":
        weights = [0.1, 0.9]  # it is that of the exact product, for weights that sum to one
    luts = [truncated(7)] if weights is None else [truncated(7), truncated(5, rows=2)]
    mixture = None if weights is None else torch.tensor(weights)
    x, w, g, grad_x, grad_w = _gradients(gradient, luts, mixture)
    slope_x = slope_w = np.zeros((256, 256))
    for share, lut in zip(weights or [1.0], luts, strict=True):
        slopes = GRADIENTS[gradient](lut, lut.factors)
        slope_x = slope_x + share * (slopes.x_u @ slopes.x_v.T)
        slope_w = slope_w + share * (slopes.w_u @ slopes.w_v.T)
    padded = np.pad(x.numpy().astype(int), [(0, 0), (0, 0), (1, 1), (1, 1)])
    weight = w.numpy().astype(int)
    expected_x, expected_w = np.zeros(padded.shape), np.zeros(weight.shape)
    for n, o, i, j in np.ndindex(*g.shape):
        for c, p, q in np.ndindex(*weight.shape[1:]):
            at = n, 2 * (o // 3) + c, 2 * i + p, 2 * j + q
            a, b = padded[at] & 255, weight[o, c, p, q] & 255
            expected_x[at] += float(g[n, o, i, j]) * slope_x[a, b]
            expected_w[o, c, p, q] += float(g[n, o, i, j]) * slope_w[a, b]
    assert np.allclose(grad_x.numpy(), expected_x[:, :, 1:-1, 1:-1], rtol=1e-3, atol=0.1)
    assert np.allclose(grad_w.numpy(), expected_w, rtol=1e-3, atol=0.1)


def test_unknown_gradient() -> None:
    with pytest.raises(InputError, match="did you mean 'fitted'"):
        Candidates([EXACT], gradient="fited")
