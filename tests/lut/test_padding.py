"""Images laid out channels last, by the compiled loop and by torch, against plain conversions."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lut import padding as images
from lut.padding import float_images, padded_images

# By eight in both directions; several blocks of rows; not by eight.
SHAPES = [(3, 16, 5, 24), (1, 64, 70, 64), (2, 12, 8, 8), (2, 8, 4, 5)]


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(images, "MANY_BYTES", 0 if request.param == "compiled" else 1 << 62)
    monkeypatch.setattr(images, "ROW_BYTES", 1 << 10)
    yield request.param
    torch.set_num_threads(threads)


def bytes_of(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator).to(torch.uint8).view(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [(0, 0), (1, 2), (2, 0)])
@pytest.mark.parametrize("value", [200, torch.tensor(200)], ids=["int", "tensor"])
def test_padding_has_the_value(
    way: str, shape: tuple[int, ...], padding: tuple[int, int], value: int | Tensor
) -> None:
    x = bytes_of(shape, torch.uint8)
    top, left = padding
    expected = torch.nn.functional.pad(x, (left, left, top, top), value=200)
    for laid_out in (x, x.contiguous(memory_format=torch.channels_last)):
        found = padded_images(laid_out, padding, value)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_floats_are_the_integers(way: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = bytes_of(shape, dtype)
    for laid_out in (x, x.contiguous(memory_format=torch.channels_last), x[:, :, 1:]):
        found = float_images(laid_out)
        assert found.dtype == torch.float32
        assert torch.equal(found, laid_out.double().float())
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_compiled_loop_takes_what_fits(way: str) -> None:
    taken = [images._is_compiled(bytes_of(shape, torch.uint8), 1) for shape in SHAPES]
    assert taken == ([True, True, False, False] if way == "compiled" else [False] * 4)
    assert not images._is_compiled(bytes_of(SHAPES[0], torch.uint8)[:, :, 1:], 1)
    torch.set_num_threads(2)
    assert not images._is_compiled(bytes_of(SHAPES[0], torch.uint8), 1)
