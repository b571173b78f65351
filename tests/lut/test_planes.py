"""Planes looked up by the compiled loop, by torch, and by plain indexing."""

import pytest
import torch

from lut import planes
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
