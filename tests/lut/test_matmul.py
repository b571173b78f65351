"""Batched matrix products equal the sum over the table, whatever the table and the batch."""

import numpy as np
import pytest
import torch

from hw.errors import InputError
from lut import LUT, approx_matmul

from .tables import random_table, truncated

TABLES = [LUT.exact(), truncated(7), random_table(4), random_table(70, magnitude=3)]


def _operand(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator).to(torch.uint8)


@pytest.mark.parametrize("lut", TABLES, ids=lambda lut: lut.name)
@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [((5, 7), (7, 3)), ((2, 3, 4, 6), (2, 3, 6, 5)), ((3, 1, 4, 6), (2, 6, 2))],
)
def test_equals_the_sum_over_the_table(
    lut: LUT, x_shape: tuple[int, ...], y_shape: tuple[int, ...]
) -> None:
    x, y = _operand(x_shape, 0), _operand(y_shape, 1)
    products = lut.table[x.numpy()[..., :, :, None], y.numpy()[..., None, :, :]]
    result = approx_matmul(x, y, lut)
    assert result.dtype == torch.int32
    assert np.array_equal(result.numpy(), products.sum(axis=-2))


def test_all_maximum_operands_where_fp32_stops_being_exact() -> None:
    x = torch.full((2, 5401), 255, dtype=torch.uint8)
    assert approx_matmul(x, x.T.contiguous(), LUT.exact()).eq(5401 * 255 * 255).all()


def test_signed_operands() -> None:
    lut = LUT.exact(a_signed=True, b_signed=True)
    x, y = _operand((4, 9), 2).view(torch.int8), _operand((9, 4), 3).view(torch.int8)
    assert torch.equal(approx_matmul(x, y, lut), (x.int() @ y.int()).to(torch.int32))


def test_precision_settings_of_the_user_change_nothing() -> None:
    x, y = _operand((8, 200), 4), _operand((200, 8), 5)
    expected = approx_matmul(x, y, LUT.exact())
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(approx_matmul(x, y, LUT.exact()), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_wrong_operands() -> None:
    with pytest.raises(InputError, match="x must be int8 or uint8, not torch.float32"):
        approx_matmul(torch.zeros(2, 2), _operand((2, 2), 0), LUT.exact())
    with pytest.raises(InputError, match=r"must be \(..., M, K\) and \(..., K, N\)"):
        approx_matmul(_operand((2, 3), 0), _operand((2, 3), 0), LUT.exact())
