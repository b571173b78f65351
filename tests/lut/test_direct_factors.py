"""Factors that need no look-up, against the tables they stand for, entry by entry."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lut import LUT, approx_conv2d, approx_linear
from lut.backends import float32
from lut.direct_factors import DirectFactor, direct_factor
from lut.table import operand_values

from .tables import random_table, truncated


def dropping(bits: int, signed: bool, factor: int = 1) -> LUT:
    """Products of activations without their lowest `bits` bits, times `factor`."""
    kept = operand_values(8, signed)[np.arange(256) >> bits << bits]
    table = factor * np.outer(kept, operand_values(8, signed=True))
    return LUT(table, a_signed=signed, b_signed=True, name=f"dropping_{bits}")


DIRECT = [
    *(LUT.exact(a_signed=a, b_signed=b) for a in (False, True) for b in (False, True)),
    *(dropping(bits, signed) for bits in (1, 3, 7) for signed in (False, True)),
    dropping(2, signed=True, factor=-5),
    dropping(0, signed=False, factor=3),
]


@pytest.mark.parametrize("lut", DIRECT, ids=lambda lut: f"{lut.name}_{lut.a_signed:d}")
def test_every_product_is_the_table_s(lut: LUT) -> None:
    found = direct_factor(lut)
    assert found is not None
    patterns = torch.arange(256, dtype=torch.uint8)
    products = found.planes(patterns)[:, None] * found.v
    assert products.dtype == torch.float32
    assert np.array_equal(products.numpy(), lut.table)
    backend = approx_linear(patterns[:, None], patterns[:, None], lut, backend="float32")
    assert np.array_equal(backend.numpy(), lut.table)


def test_others_are_looked_up() -> None:
    narrow = LUT.exact(width=4)
    zero = LUT(np.zeros((256, 256), int), name="zero")
    for lut in (random_table(1), truncated(6), narrow, zero):
        assert direct_factor(lut) is None


def test_a_factor_out_of_reach_of_fp32_is_looked_up() -> None:
    v = (1 << 20) + np.arange(256)
    lut = LUT(np.outer(np.arange(256), v), name="large")
    found = direct_factor(lut)
    assert found is not None and torch.equal(found.v.long(), torch.from_numpy(v))
    odd = np.where(np.arange(256) % 2, 3, 5)
    assert direct_factor(LUT(np.outer(odd, odd), name="odd")) is None


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_are_those_of_the_look_up(
    monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    lut = dropping(3, signed=True)
    x = torch.randint(0, 256, (2, 4, 6, 5)).to(torch.uint8).view(torch.int8)
    w = torch.randint(0, 256, (4, 4 // groups, 3, 3)).to(torch.uint8).view(torch.int8)

    def results() -> list[Tensor]:
        return [
            approx_conv2d(x, w, lut, padding=padding, groups=groups, backend="float32")
            for padding in (0, 1)
        ]

    converted = results()
    monkeypatch.setattr(float32, "direct_factor", _none)
    assert all(torch.equal(a, b) for a, b in zip(converted, results(), strict=True))


def _none(lut: LUT) -> DirectFactor | None:
    return None
