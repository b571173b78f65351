"""The integer network: faithful to its float module, refused where there is none."""

import pytest
import torch
from torch import nn

from export import integerise
from export.integer import AveragePool, MaxPool, Requantise
from hw.errors import InputError
from lut import LUT, ApproxConv2d, Candidates

from ..lut.tables import random_table, truncated
from .networks import Residual, pixels, trained_residual

EXACT = LUT.exact(a_signed=True, b_signed=True)
SHAPE, SCALE = (2, 8, 8), 1 / 16


@pytest.mark.parametrize(
    "luts", [[EXACT], [truncated(7), truncated(6, rows=1)]], ids=["exact", "approximate"]
)
def test_logits_follow_the_float_module(luts: list[LUT]) -> None:
    network, images = trained_residual(luts), pixels(64, seed=5)
    integer = integerise(network, SHAPE, SCALE)
    expected = network(images.float() * SCALE).detach()
    errors = (integer(images) - expected).abs()
    assert errors.mean() < 0.05 * expected.std()
    assert errors.max() < 0.5 * expected.std()


def test_same_module_gives_the_same_integers() -> None:
    network = trained_residual([truncated(7)])
    one, two = (integerise(network, SHAPE, SCALE) for _ in range(2))
    images = pixels(8)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.trace(images).values(), two.trace(images).values(), strict=True)
    )


def test_training_flag_is_left_as_it_was() -> None:
    network = trained_residual([EXACT]).train()
    integerise(network, SHAPE, SCALE)
    assert network.training


def test_layers_carry_their_multiplications() -> None:
    integer = integerise(trained_residual([EXACT]), SHAPE, SCALE)
    macs = {node.layer: node.macs for node in integer.convolutions}
    assert macs["stem"] == 6 * 2 * 9 * 64
    assert macs["depthwise"] == 6 * 9 * 64
    assert macs["left"] == 4 * 12 * 16
    assert macs["classifier"] == 5 * 8


def test_requantise_is_multiply_add_shift_clamp() -> None:
    node = Requantise("n", ("x",), torch.tensor([3, -5]), torch.tensor([4, 7]), 3, -20, 20)
    x = torch.tensor([[[[9]], [[9]]], [[[-100]], [[-2]]]])
    assert node.evaluate(x).flatten().tolist() == [
        (27 + 4) >> 3,
        (-45 + 7) >> 3,
        -20,
        (10 + 7) >> 3,
    ]


def test_pools_equal_their_definitions() -> None:
    x = torch.randint(-200, 200, (1, 2, 5, 5), generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 1, 5, 5)
    counts = nn.functional.avg_pool2d(ones, 3, 1, 1, divisor_override=1)[0, 0]
    multiplier = torch.round(2.0**20 / counts).to(torch.int64)
    pool = AveragePool("p", ("x",), 3, 1, 1, multiplier, 1 << 15, 16)
    exact = nn.functional.avg_pool2d(x.double(), 3, 1, 1, count_include_pad=False) * 16
    assert (pool.evaluate(x) - exact).abs().max() <= 0.51
    largest = MaxPool("m", ("x",), 3, 2, 1).evaluate(x)
    assert torch.equal(largest.double(), nn.functional.max_pool2d(x.double(), 3, 2, 1))


def test_layers_without_an_integer_form_are_refused() -> None:
    candidates = Candidates([EXACT])
    convolution = ApproxConv2d(2, 2, 1, candidates)
    with pytest.raises(InputError, match="layer '1' must be one of ApproxConv2d.*not Softsign"):
        integerise(nn.Sequential(convolution, nn.Softsign()), SHAPE, SCALE)
    several = nn.Sequential(ApproxConv2d(2, 2, 1, Candidates([EXACT, truncated(4)])))
    with pytest.raises(InputError, match="layer '0' must have one multiplier, not 2"):
        integerise(several, SHAPE, SCALE)

    class Exponential(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(super().forward(x))

    with pytest.raises(InputError, match="not call .*exp"):
        integerise(Exponential([random_table(2)]), SHAPE, SCALE)
