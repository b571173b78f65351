"""Exact factors of every kind of table, of minimal rank; one basis for several tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.errors import InputError
from lut import LUT, Factors, error_metrics, factorize, joint_basis

from .tables import random_table, truncated

TABLES = [
    LUT.exact(),
    LUT.exact(a_signed=True, b_signed=True),
    LUT(np.zeros((256, 256), int), name="zero"),
    LUT(np.ones((16, 256), int), name="ones"),
    *[truncated(columns) for columns in range(0, 12, 3)],
    truncated(8, signed=False, rows=3),
    *[random_table(rank) for rank in (1, 2, 17, 40)],
]


@pytest.mark.parametrize("lut", TABLES, ids=lambda lut: lut.name)
def test_factors_are_exact_and_of_minimal_rank(lut: LUT) -> None:
    factors = factorize(lut)
    assert np.array_equal(factors.u @ factors.v.T, lut.table)
    assert factors.rank == lut.rank == np.linalg.matrix_rank(lut.table.astype(float))


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(0, 2**31), st.integers(1, 1000))
def test_factors_of_random_small_tables(rank: int, seed: int, magnitude: int) -> None:
    generator = np.random.default_rng(seed)
    u = generator.integers(-magnitude, magnitude + 1, (8, rank))
    v = generator.integers(-magnitude, magnitude + 1, (16, rank))
    factors = factorize(LUT(u @ v.T))
    assert np.array_equal(factors.u @ factors.v.T, u @ v.T)


def test_known_ranks() -> None:
    assert LUT.exact().rank == 1
    assert truncated(4).rank == 5
    assert LUT(np.zeros((4, 4), int)).rank == 0


def test_product_bound_bounds_every_partial_sum() -> None:
    factors = truncated(7).factors
    terms = np.abs(factors.u[:, None, :] * factors.v[None, :, :]).sum(axis=2)
    assert factors.product_bound == terms.max()


def test_joint_basis_serves_every_table() -> None:
    luts = [truncated(columns) for columns in (0, 4, 6, 7)] + [truncated(7, rows=2)]
    basis = joint_basis(luts)
    assert basis.rank <= 8
    for index, lut in enumerate(luts):
        assert np.array_equal(basis.factors(index).table, lut.table)


def test_factors_that_do_not_reproduce_the_table_are_refused() -> None:
    lut, other = truncated(5), truncated(6).factors
    with pytest.raises(InputError, match="must reproduce its table exactly"):
        lut.with_factors(Factors(other.u, other.v))


def test_tables_that_are_none() -> None:
    with pytest.raises(InputError, match="must hold integers, not float64"):
        LUT(np.zeros((256, 256)))
    with pytest.raises(InputError, match=r"two powers of two up to 256, not \(256, 255\)"):
        LUT(np.zeros((256, 255), int))
    with pytest.raises(InputError, match="values that fit int32"):
        LUT(np.full((4, 4), 1 << 31))


def test_metrics_by_their_definitions() -> None:
    lut = truncated(3, signed=False)
    total = relative = worst = wrong = squared = signed = 0.0
    for a in range(256):
        for b in range(256):
            error = int(lut.table[a, b]) - a * b
            total, worst = total + abs(error), max(worst, abs(error))
            relative += abs(error) / max(1, a * b)
            wrong, squared, signed = wrong + (error != 0), squared + error**2, signed + error
    metrics = error_metrics(lut)
    expected = [v / 65536 for v in (total, relative, wrong, squared, signed)]
    found = [metrics.mae, metrics.mre, metrics.ep, metrics.mse, metrics.bias]
    assert np.allclose(found, expected, rtol=1e-12) and metrics.wce == worst
