"""Depthwise layers by columns of products: against look-ups one by one, and against planes."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hw.errors import InputError
from lut import LUT, ApproxConv2d, Candidates, approx_conv2d, emulation
from lut import depthwise as depthwise_module
from lut.depthwise import looked_up, summed_by_pattern
from lut.geometry import ConvGeometry

from .tables import random_table, truncated

GEOMETRIES = [
    ConvGeometry.of(1, 0, 1, 4),
    ConvGeometry.of(2, 0, 1, 4),
    ConvGeometry.of((1, 2), 0, (2, 1), 4),
]
TAPS = (3, 2)


@pytest.fixture(autouse=True)
def many_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several, of a channel each."""
    monkeypatch.setattr(depthwise_module, "LOOK_UPS_A_THREAD", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def windows(patterns: Tensor, geometry: ConvGeometry) -> Iterator[tuple[int, int, Tensor]]:
    """Each tap with the patterns that it meets (N, C, H', W')."""
    shape = torch.Size((patterns.shape[1], 1, *TAPS))
    height, width = geometry.output_size(patterns.shape, shape)
    for i in range(TAPS[0]):
        for j in range(TAPS[1]):
            down, right = i * geometry.dilation[0], j * geometry.dilation[1]
            rows = patterns[:, :, down :: geometry.stride[0], right :: geometry.stride[1]]
            yield i, j, rows[:, :, :height, :width].long()


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_sums_are_those_of_single_look_ups(geometry: ConvGeometry, dtype: torch.dtype) -> None:
    patterns = torch.randint(0, 256, (3, 4, 8, 7)).to(torch.uint8)
    columns = torch.randint(-9999, 9999, (4, *TAPS, 256)).to(dtype)
    found, channel = looked_up(patterns, columns, geometry), torch.arange(4).view(1, 4, 1, 1)
    expected = sum(columns[channel, i, j, at] for i, j, at in windows(patterns, geometry))
    assert found.dtype == dtype and torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_by_pattern_are_the_transpose(geometry: ConvGeometry) -> None:
    patterns = torch.randint(0, 256, (3, 4, 8, 7)).to(torch.uint8)
    columns = torch.randn(4, *TAPS, 256)
    sums = looked_up(patterns, columns, geometry)
    gradient = torch.randn(sums.shape)
    expected = torch.zeros(4, *TAPS, 256, dtype=torch.float64)
    for i, j, at in windows(patterns, geometry):
        for channel in range(4):
            signal = gradient[:, channel].flatten().double()
            expected[channel, i, j].index_add_(0, at[:, channel].flatten(), signal)
    found = summed_by_pattern(patterns, gradient, TAPS, geometry)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    through = (found * columns.double()).sum()
    assert float(through) == pytest.approx(float((sums.double() * gradient).sum()), rel=1e-5)


@pytest.mark.parametrize("lut", [truncated(7), random_table(20), LUT.exact(b_signed=True)])
def test_the_backend_is_exact(lut: LUT) -> None:
    x = torch.randint(0, 256, (2, 4, 7, 6)).to(torch.uint8)
    w = torch.randint(0, 256, (4, 1, 3, 3)).to(torch.uint8)
    settings = {"groups": 4, "padding": 2, "stride": 2, "dilation": 2, "x_zero_point": 3}
    one, two = (
        approx_conv2d(x, w, lut, backend=name, **settings)  # type: ignore[arg-type]
        for name in ("columns", "table")
    )
    assert torch.equal(one, two)
    patterns = torch.arange(256, dtype=torch.uint8)
    a, b = patterns.view(1, 1, -1, 1).expand(1, 256, -1, 1), patterns.view(256, 1, 1, 1)
    products = approx_conv2d(a, b, lut, groups=256, backend="columns")[0, :, :, 0]
    assert torch.equal(products, torch.from_numpy(lut.table.T.copy()))


def test_other_layers_are_refused() -> None:
    x, w = torch.zeros(1, 4, 3, 3, dtype=torch.int8), torch.zeros(4, 2, 1, 1, dtype=torch.int8)
    with pytest.raises(InputError, match="'columns' must be for a depthwise layer"):
        approx_conv2d(x, w, truncated(4), groups=2, backend="columns")


def test_a_mixture_and_its_gradients_are_those_of_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = Candidates([truncated(k) for k in (2, 5, 7)])
    torch.manual_seed(0)
    layer = ApproxConv2d(4, 4, 3, candidates, padding=2, dilation=2, stride=2, groups=4)
    x, mixture = torch.randn(3, 4, 8, 8), torch.tensor([0.2, 0.5, 0.3])
    layer(x, mixture)  # ranges

    def results() -> list[Tensor]:
        a, b = x.clone().requires_grad_(), mixture.clone().requires_grad_()
        result = layer.eval()(a, b)
        gradients = torch.autograd.grad((result * weights).sum(), (a, b, layer.weight))
        return [result.detach(), *gradients]

    weights = torch.randn(layer(x, mixture).shape)
    by_columns = results()
    monkeypatch.setattr(emulation, "has_columns", lambda *operands: False)
    for one, other in zip(by_columns, results(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-4)


def test_a_one_hot_mixture_is_its_candidate() -> None:
    luts = [truncated(k) for k in (2, 7)]
    both, single = Candidates(luts), Candidates(luts[1:])
    torch.manual_seed(1)
    mixed, alone = (ApproxConv2d(4, 4, 3, one, groups=4) for one in (both, single))
    alone.load_state_dict(mixed.state_dict())
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(mixed(x, torch.tensor([0.0, 1.0])), alone(x))
