"""Operands of any widths and signedness, on every backend and in layers, equal a naive loop."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from lut import LUT, ApproxConv2d, Candidates, Quantisation, approx_conv2d
from lut.backends import BACKENDS as ALL_BACKENDS
from lut.table import operand_values

BACKENDS = [name for name in ALL_BACKENDS if name in ("int8", "float32", "rows", "table")]
WIDTHS = [(8, 4), (4, 4), (8, 1), (8, 2), (8, 7), (4, 8), (3, 5), (2, 2), (1, 8), (8, 8)]
SIGNS = list(product([False, True], repeat=2))


def _table(widths: tuple[int, int], signs: tuple[bool, bool]) -> LUT:
    """Exact products plus an error of rank 2; products with 0 are not 0."""
    a, b = (operand_values(width, sign) for width, sign in zip(widths, signs, strict=True))
    generator = np.random.default_rng(1)
    u, v = (generator.integers(-3, 4, (len(values), 2)) for values in (a, b))
    return LUT(np.outer(a, b) + u @ v.T, a_signed=signs[0], b_signed=signs[1], name="any")


def _operand(shape: tuple[int, ...], width: int, signed: bool, seed: int) -> Tensor:
    """All integers of the operand, as int8 if signed and as uint8 if not."""
    low, high = (-(1 << (width - 1)), 1 << (width - 1)) if signed else (0, 1 << width)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(low, high, shape, generator=generator)
    return values.to(torch.int8 if signed else torch.uint8)


def naive(x: Tensor, w: Tensor, lut: LUT) -> Tensor:
    """Products looked up by value, padding 1 of zeros, in Python loops; int32."""
    rows, columns = lut.table.shape
    images = np.pad(x.numpy().astype(int), ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernels = w.numpy().astype(int)
    outputs, channels, height, width = kernels.shape
    size = images.shape[2] - height + 1, images.shape[3] - width + 1
    result = torch.zeros(len(images), outputs, *size, dtype=torch.int32)
    for n, o, i, j in product(range(len(images)), range(outputs), *map(range, size)):
        for c, p, q in product(range(channels), range(height), range(width)):
            a, b = images[n, c, i + p, j + q], kernels[o, c, p, q]
            result[n, o, i, j] += int(lut.table[a % rows, b % columns])
    return result


@pytest.mark.parametrize("signs", SIGNS, ids=str)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_convolution(widths: tuple[int, int], signs: tuple[bool, bool]) -> None:
    lut = _table(widths, signs)
    x = _operand((2, 2, 4, 4), widths[0], signs[0], 0)
    w = _operand((3, 2, 3, 2), widths[1], signs[1], 1)
    expected = naive(x, w, lut)
    for backend in (None, *BACKENDS):
        found = approx_conv2d(x, w, lut, padding=1, backend=backend)
        assert torch.equal(found, expected), backend


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "affine"])
@pytest.mark.parametrize("signs", SIGNS, ids=str)
@pytest.mark.parametrize("widths", [(8, 4), (4, 4), (8, 2), (8, 8)], ids=str)
def test_layer(widths: tuple[int, int], signs: tuple[bool, bool], symmetric: bool) -> None:
    lut = _table(widths, signs)
    torch.manual_seed(0)
    layer = ApproxConv2d(
        2, 3, (3, 2), Candidates([lut]), padding=1, quantisation=Quantisation(symmetric=symmetric)
    )
    x = torch.randn(2, 2, 4, 4)
    layer(x)
    layer.eval()
    with torch.no_grad():
        levels, (weights, scales) = layer.quantiser(x), layer.quantised_weight()
        zero = int(layer.quantiser.zero_point)
        sums = _padded_with(zero, levels, weights, lut)
        sums = sums - zero * weights.sum((1, 2, 3)).to(torch.int32).view(-1, 1, 1)
        expected = sums.float() * (layer.quantiser.scale * scales.view(1, -1, 1, 1))
        assert torch.equal(layer(x), expected)
    low, high = (-(1 << (widths[0] - 1)), 1 << (widths[0] - 1)) if signs[0] else (0, 1 << widths[0])
    assert (layer.quantiser.low, layer.quantiser.high) == (low + (signs[0] and symmetric), high - 1)


def _padded_with(zero: int, levels: Tensor, weights: Tensor, lut: LUT) -> Tensor:
    """The naive sums where the padding is the zero point."""
    padded = torch.nn.functional.pad(levels, (1, 1, 1, 1), value=float(zero))
    return naive(padded, weights, lut)[:, :, 1:-1, 1:-1]
