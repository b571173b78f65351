"""Planes looked up by the compiled loop, by torch, and by plain indexing."""

import pytest
import torch

from lut import planes
from lut.padding import padded_images
from lut.planes import factor_planes


@pytest.mark.parametrize("rank", [1, 5, 8])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("smallest", [0, 1 << 62], ids=["compiled", "torch"])
def test_planes_are_the_rows_of_the_factor(
    monkeypatch: pytest.MonkeyPatch, rank: int, dtype: torch.dtype, smallest: int
) -> None:
    monkeypatch.setattr(planes, "MANY_NUMBERS", smallest)
    monkeypatch.setattr(planes, "NUMBERS_A_THREAD", 64)  # several threads, where torch has them
    generator = torch.Generator().manual_seed(rank)
    x = torch.randint(0, 256, (3, 4, 5, 6), generator=generator).to(dtype)
    u = torch.randn(256, rank, generator=generator)
    index = x if dtype == torch.int32 else x.to(torch.int32)
    found = factor_planes(x if smallest == 0 else index, u)
    expected = u[x.long()].permute(0, 1, 4, 2, 3).reshape(3, 4 * rank, 5, 6)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("padding", [(0, 0), (1, 2), (2, 0)])
@pytest.mark.parametrize("value", [7, torch.tensor(7, dtype=torch.uint8)], ids=["int", "tensor"])
def test_padding_has_the_value(padding: tuple[int, int], value: int | torch.Tensor) -> None:
    x = torch.randint(0, 256, (2, 3, 4, 5)).to(torch.uint8)
    top, left = padding
    expected = torch.nn.functional.pad(x, (left, left, top, top), value=7)
    assert torch.equal(padded_images(x, padding, value), expected)
