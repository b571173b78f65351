"""Signed multipliers made of an unsigned one and a sign."""

from itertools import product

import numpy as np
import pytest
import torch

from hw.errors import InputError
from lut import LUT, Candidates, approx_conv2d

from .tables import random_table, truncated


def _unsigned(seed: int, rank: int, shape: tuple[int, int] = (256, 256)) -> LUT:
    """Of at most the given rank; its products with 0 are not 0."""
    generator = np.random.default_rng(seed)
    u, v = (generator.integers(-9, 10, (size, rank)) for size in shape)
    return LUT(u @ v.T, name=f"unsigned_{rank}")


TABLES = [
    LUT.exact(),
    truncated(7, signed=False),
    _unsigned(0, 3),
    _unsigned(1, 5, (16, 16)),
    _unsigned(2, 4, (256, 16)),
    _unsigned(3, 1, (2, 8)),
]


@pytest.mark.parametrize("lut", TABLES, ids=lambda lut: f"{lut.name}_{lut.a_width}x{lut.b_width}")
def test_every_product(lut: LUT) -> None:
    signed = lut.sign_magnitude()
    rows, columns = lut.table.shape
    for a, b in product(range(-rows // 2, rows // 2), range(-columns // 2, columns // 2)):
        sign = (a > 0) - (a < 0), (b > 0) - (b < 0)
        expected = sign[0] * sign[1] * lut.table[abs(a), abs(b)]
        assert signed.table[a % rows, b % columns] == expected, (a, b)
    assert (signed.a_signed, signed.b_signed) == (True, True)
    assert signed.table.shape == lut.table.shape
    assert signed.name == f"{lut.name}_sign_magnitude"


def test_the_exact_one_is_exact_the_lowest_operand_included() -> None:
    assert LUT.exact().sign_magnitude() == LUT.exact(a_signed=True, b_signed=True)


@pytest.mark.parametrize("lut", TABLES, ids=lambda lut: f"{lut.name}_{lut.a_width}x{lut.b_width}")
def test_factors(lut: LUT) -> None:
    unknown = LUT(lut.table).sign_magnitude()
    assert "factors" not in unknown.__dict__
    assert unknown.rank <= lut.rank
    bound = lut.factors.product_bound
    known = lut.sign_magnitude()
    assert known.factors.rank == known.rank == unknown.rank
    assert np.array_equal(known.factors.table, unknown.table)
    if known.rank == lut.rank:
        assert known.factors.product_bound <= bound


def test_factors_are_taken_over_where_no_column_is_lost() -> None:
    lut = truncated(7, signed=False)
    assert lut.factors.rank == lut.sign_magnitude().rank
    assert "factors" in lut.sign_magnitude().__dict__
    only_above = np.zeros((256, 256), np.int64)
    only_above[200, 200] = 1
    lost = LUT(only_above)
    assert lost.factors.rank == 1
    assert lost.sign_magnitude().rank == lost.sign_magnitude().factors.rank == 0


def test_it_convolves() -> None:
    lut = truncated(6, signed=False).sign_magnitude()
    generator = torch.Generator().manual_seed(0)
    x, w = (
        torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
        for shape in ((2, 3, 6, 6), (4, 3, 3, 3))
    )
    assert torch.equal(approx_conv2d(x, w, lut), approx_conv2d(x, w, lut, backend="table"))
    assert Candidates([lut]).a_range == (-127, 127)


def test_signed_ones_have_none() -> None:
    with pytest.raises(
        InputError,
        match="both operands of LUT 'random_3' must be unsigned, not of signedness 1 and 1",
    ):
        random_table(3).sign_magnitude()
    with pytest.raises(InputError, match="must be unsigned, not of signedness 0 and 1"):
        LUT.exact(b_signed=True).sign_magnitude()
