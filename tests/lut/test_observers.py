"""Observers: averages by hand, percentiles by sorting, least errors by brute force."""

import pytest
import torch
from torch import Tensor

from hw.errors import InputError
from lut.observers import (
    CANDIDATES,
    OBSERVERS,
    SMALLEST_SCALE,
    Levels,
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
)
from lut.quantisation import quantise

SYMMETRIC = Levels(-127, 127)
AFFINE = Levels(-128, 127, symmetric=False)
UNSIGNED = Levels(0, 255, symmetric=False)
BATCHES = [torch.tensor([-2.0, 0.5]), torch.tensor([1.0, 6.0]), torch.tensor([-7.0, -1.0])]


def _range(observer: torch.nn.Module, batches: list[Tensor]) -> tuple[float, float]:
    for batch in batches:
        observer.observe(batch)
    assert observer.batches.item() == len(batches)
    lowest, highest = observer.range
    assert lowest.shape == highest.shape == () and lowest.dtype == highest.dtype == torch.float32
    return lowest.item(), highest.item()


def _values(count: int = 20_000, seed: int = 0) -> Tensor:
    """Long tails, not centred."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator) ** 3 + 0.3


def test_min_max_is_of_all_batches() -> None:
    assert _range(MinMax(AFFINE), BATCHES[:1]) == (-2.0, 0.5)
    assert _range(MinMax(AFFINE), BATCHES) == (-7.0, 6.0)
    assert _range(MinMax(SYMMETRIC), BATCHES[:2]) == (-6.0, 6.0)


def test_first_batch_sets_the_range_exactly() -> None:
    tiny = torch.tensor([-3e-12, 1e-12])
    for kind in (MinMax, MovingAverage):
        lowest, highest = _range(kind(AFFINE), [tiny])
        assert (lowest, highest) == (tiny[0].item(), tiny[1].item())


def test_moving_average_by_hand() -> None:
    expected_low = 0.9 * (0.9 * -2.0 + 0.1 * 1.0) + 0.1 * -7.0
    expected_high = 0.9 * (0.9 * 0.5 + 0.1 * 6.0) + 0.1 * -1.0
    assert _range(MovingAverage(AFFINE), BATCHES) == pytest.approx((expected_low, expected_high))
    magnitude = 0.9 * (0.9 * 2.0 + 0.1 * 6.0) + 0.1 * 7.0
    assert _range(MovingAverage(SYMMETRIC), BATCHES) == pytest.approx((-magnitude, magnitude))
    assert _range(MovingAverage(AFFINE, 0.5), BATCHES[:2]) == pytest.approx((-0.5, 3.25))


@pytest.mark.parametrize("share", [0.999, 0.99, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 7, 1000, 20_000])
def test_percentile_by_sorting(share: float, count: int) -> None:
    values = _values(count)
    magnitudes = sorted(values.abs().tolist())
    lowest, highest = Percentile(SYMMETRIC, share=share).batch_range(values)
    assert sum(m > highest for m in magnitudes) <= (1 - share) * count + 1e-9
    tighter = [m for m in magnitudes if m < highest]
    assert not tighter or sum(m > tighter[-1] for m in magnitudes) > (1 - share) * count
    assert lowest == -highest
    lowest, highest = Percentile(AFFINE, share=share).batch_range(values)
    beyond = round((1 - share) * count - 0.5 + 1e-9)
    ordered = sorted(values.tolist())
    assert lowest == ordered[beyond // 2] and highest == ordered[count - 1 - beyond // 2]


def test_percentile_of_more_values_than_torch_quantile_takes() -> None:
    values = torch.zeros((1 << 24) + 1)
    values[:1000] = torch.arange(1000.0)
    _, highest = Percentile(Levels(0, 255)).batch_range(values.view(1, 1, 1, -1))
    assert highest == 0.0
    _, highest = Percentile(Levels(0, 255), share=1 - 10 / len(values)).batch_range(values)
    assert highest == 989.0


def test_percentiles_are_averaged_over_batches() -> None:
    first, second = _values(seed=1), _values(seed=2)
    ranges = [Percentile(AFFINE).batch_range(values) for values in (first, second)]
    expected = [(0.9 * one + 0.1 * two).item() for one, two in zip(*ranges, strict=True)]
    assert _range(Percentile(AFFINE), [first, second]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "levels",
    [SYMMETRIC, AFFINE, UNSIGNED, Levels(0, 255), Levels(-7, 7), Levels(-8, 7, symmetric=False)],
)
def test_least_squared_error_by_brute_force(levels: Levels) -> None:
    values = _values()
    extremes = MovingAverage(levels).batch_range(values)
    errors = []
    for index in range(CANDIDATES):
        limit = 2.0 ** (-index / 8) * values.abs().max()
        lowest, highest = torch.clamp(torch.stack(extremes), -limit, limit)
        errors.append(_error(values, levels, lowest, highest))
    found = _error(values, levels, *MeanSquaredError(levels).batch_range(values))
    assert found == pytest.approx(min(errors), rel=1e-5)
    assert found <= errors[0]


def _error(values: Tensor, levels: Levels, lowest: Tensor, highest: Tensor) -> float:
    scale, zero_point = levels.grid(lowest, highest)
    integers = quantise(values, scale, levels.low, levels.high, zero_point)
    return (scale * (integers - zero_point) - values).square().double().mean().item()


def test_outliers_are_clipped() -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(3))
    values[0] = 200.0
    for name in ("percentile", "mse"):
        _, highest = _range(OBSERVERS[name](Levels(-7, 7)), [values])
        assert 2.0 < highest < 10.0, name


@pytest.mark.parametrize("name", OBSERVERS)
def test_state_goes_through_a_state_dict(name: str) -> None:
    one, other = (OBSERVERS[name](AFFINE) for _ in range(2))
    one.observe(_values(seed=1))
    other.load_state_dict(one.state_dict())
    assert other.range == one.range
    for observer in (one, other):
        observer.observe(_values(seed=2))
    assert other.range == one.range and other.batches == 2


@pytest.mark.parametrize("name", OBSERVERS)
def test_zeros_and_low_precision(name: str) -> None:
    assert _range(OBSERVERS[name](SYMMETRIC), [torch.zeros(2, 3)]) == (0.0, 0.0)
    values = _values().to(torch.bfloat16)
    observers = [OBSERVERS[name](SYMMETRIC) for _ in range(2)]
    assert _range(observers[0], [values]) == _range(observers[1], [values.float()])


@pytest.mark.parametrize("name", OBSERVERS)
def test_nothing_is_read_back(name: str) -> None:
    """On the meta device tensors have no values: a read would raise."""
    observer = OBSERVERS[name](AFFINE).to("meta")
    observer.observe(torch.empty(2, 3, device="meta"))
    scale, zero_point = AFFINE.grid(*observer.range)
    assert scale.is_meta and zero_point.dtype == torch.int32


def test_grids_by_hand() -> None:
    scale, zero_point = SYMMETRIC.grid(torch.tensor(-2.54), torch.tensor(1.0))
    assert scale == pytest.approx(0.02) and zero_point == 0 and zero_point.dtype == torch.int32
    scale, zero_point = UNSIGNED.grid(torch.tensor(-1.0), torch.tensor(1.55))
    assert scale == pytest.approx(0.01) and zero_point == 100
    scale, zero_point = AFFINE.grid(torch.tensor(2.0), torch.tensor(5.1))
    assert scale == pytest.approx(0.02) and zero_point == -128
    scale, zero_point = AFFINE.grid(torch.tensor(-5.1), torch.tensor(-1.0))
    assert scale == pytest.approx(0.02) and zero_point == 127
    scale, zero_point = AFFINE.grid(torch.tensor(0.0), torch.tensor(0.0))
    assert scale == pytest.approx(SMALLEST_SCALE) and zero_point == -128


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="levels must run from at most 0 to at least 1, not from"):
        Levels(1, 255)
    with pytest.raises(InputError, match="levels must run from at most 0 to at least 1, not from"):
        Levels(-8, 0)
    with pytest.raises(InputError, match="a range must be finite and rise, not go from 2.0 to 1.0"):
        MinMax(AFFINE).set_range(2.0, 1.0)
    with pytest.raises(InputError, match="a range must be finite and rise, not go from -inf to 1"):
        MinMax(AFFINE).set_range(-float("inf"), 1.0)
    with pytest.raises(InputError, match="share must be above 0 and at most 1, not 99.9"):
        Percentile(AFFINE, share=99.9)


def test_a_range_may_be_widened_to_that_of_a_whole_batch() -> None:
    """Several processes: each observes its part, `across` says the range of all."""
    parts = torch.randn(2, 50)
    observer = OBSERVERS["moving_average"](Levels(-127, 127, symmetric=False))
    observer.across = lambda lowest, highest: (parts.min(), parts.max())
    observer.observe(parts[0])
    assert observer.range == (parts.min(), parts.max())
    assert not [key for key in observer.state_dict() if "across" in key]
