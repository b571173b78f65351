"""The accumulator's adder against sums, its width, and what an addition costs."""

from pathlib import Path

import numpy as np
import pytest

from hw.accumulator import accumulations, accumulator_cost, accumulator_width, adder
from hw.array import ArrayDescription, ArrayMultiplier
from hw.cache import Cache
from hw.errors import InputError
from hw.liberty import default_library
from hw.simulation import truth_table


@pytest.mark.parametrize("width", [2, 3, 5, 8])
def test_the_adder_adds(width: int) -> None:
    table = truth_table(adder(width), False)
    a = np.arange(1 << width)
    assert np.array_equal(table, (a[:, None] + a[None, :]) % (1 << width))


@pytest.mark.parametrize("fan_in", [1, 2, 9, 25, 64, 576, 65535])
def test_the_width_is_the_least_that_never_overflows(fan_in: int) -> None:
    width = accumulator_width(fan_in)
    multiplier = ArrayMultiplier("mul8s_array", 8, 8, signed=True)

    def fits(bits: int) -> bool:
        array = ArrayDescription.uniform(1, 1, [multiplier], accumulator_width=bits)
        return fan_in <= array.largest_fan_in(multiplier.name)

    assert fits(width) and (width == 17 or not fits(width - 1))
    with pytest.raises(InputError, match="fan_in must be at least 1, not 0"):
        accumulator_width(0)


def test_a_wider_addition_costs_more(tmp_path: Path) -> None:
    cache, library = Cache(tmp_path), default_library()
    narrow, wide = (accumulator_cost(width, library, cache) for width in (17, 24))
    assert 0 < narrow.energy_fj < wide.energy_fj
    assert 0 < narrow.delay_ps < wide.delay_ps
    assert accumulator_cost(24, library, cache) == wide


def test_partial_sums_are_those_of_added_products() -> None:
    """Mean square of the drawn sums against products that are added one by one."""
    drawn = accumulations(20)
    generator = np.random.default_rng(1)
    products = generator.integers(-128, 128, (4096, 15)) * generator.integers(-128, 128, (4096, 15))
    added = generator.integers(0, 15, 4096)
    sums = np.where(np.arange(15) < added[:, None], products, 0).sum(1)
    assert np.sqrt((drawn[:, 0] ** 2.0).mean()) == pytest.approx(
        np.sqrt((sums**2.0).mean()), rel=0.05
    )
    assert np.abs(drawn[:, 0]).max() < 1 << 19
