"""Factors that need no look-up, against the tables they stand for, entry by entry."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hw.errors import InputError
from lut import LUT, approx_conv2d, approx_linear
from lut.backends import Problem, float32
from lut.direct_factors import DirectFactor, direct_factor
from lut.geometry import ConvGeometry
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
    products = found.planes(patterns.view(1, 256, 1, 1)).view(256, 1) * found.v
    assert torch.equal(found.kernels(patterns), found.v)
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
    assert found is not None and found.multiple is None
    assert torch.equal(found.kernels(torch.arange(256, dtype=torch.uint8)), found.v)
    assert torch.equal(found.v.long(), torch.from_numpy(v))
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


GEOMETRIES: list[dict[str, int | tuple[int, int]]] = [
    {"padding": 1},
    {"padding": 2, "stride": 2},
    {"padding": (0, 2), "dilation": (1, 2)},
    {"padding": 1, "groups": 4},
]


@pytest.mark.parametrize("settings", GEOMETRIES, ids=str)
@pytest.mark.parametrize("zero_point", [0, 5, 77], ids=["zero", "dropped", "counts"])
@pytest.mark.parametrize(
    "lut",
    [*DIRECT, truncated(6), random_table(3)],
    ids=lambda lut: f"{lut.name}_{lut.a_signed:d}{lut.b_signed:d}",
)
def test_padding_contributes_what_the_table_says(
    lut: LUT, zero_point: int, settings: dict[str, int | tuple[int, int]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    groups = settings.get("groups", 1)
    assert isinstance(groups, int)
    x = torch.randint(0, 256, (2, 16, 8, 8), generator=generator).to(torch.uint8)
    w = torch.randint(0, 256, (8, 16 // groups, 3, 3), generator=generator).to(torch.uint8)
    x[0], w[0], w[1] = 255, 255, 128
    for images in (x, x.contiguous(memory_format=torch.channels_last)):
        fast, slow = (
            approx_conv2d(images, w, lut, x_zero_point=zero_point, backend=backend, **settings)  # type: ignore[arg-type]
            for backend in ("float32", "table")
        )
        assert torch.equal(fast, slow)


def test_a_table_of_zeros() -> None:
    lut = LUT(np.zeros((256, 256), int), name="zero")
    x, w = torch.full((2, 8, 8, 8), 3).byte(), torch.full((5, 8, 3, 3), 7).byte()
    with pytest.raises(InputError, match="'float32' must be of rank 1 to 64, not 0, for LUT 'zero"):
        approx_conv2d(x, w, lut, padding=1, backend="float32")
    assert torch.equal(approx_conv2d(x, w, lut, padding=1), torch.zeros(2, 5, 8, 8).int())


def test_padding_is_left_to_the_convolution_where_products_are_zero() -> None:
    x = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    geometry = ConvGeometry.of(padding=1)

    def left(lut: LUT, zero: int | Tensor) -> bool:
        return Problem(x, x, lut, geometry, zero).padding_is_zero

    lut = dropping(3, signed=True)
    assert left(lut, 0) and left(lut, 7) and not left(lut, 8)
    assert not left(lut, torch.tensor(0)), "its value is not looked at"
    assert not left(random_table(3), 0)
    padded = Problem(x, x, lut, geometry, 7).padded()
    assert padded.geometry.padding == (0, 0) and padded.x.sum() == 16 * 7


def _none(lut: LUT) -> DirectFactor | None:
    return None
