"""Channels parted and put together by kernels, against ordinary operations: equal to the bit."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cosearch import channels
from cosearch.merged_cells import State
from lut.backends.cuda_operands import cuda_refusal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
runs_kernels = pytest.mark.skipif(
    cuda_refusal(torch.empty(0, device=DEVICE)) is not None,
    reason="a CUDA device is not here, and TRITON_INTERPRET is not 1",
)
SIZES = [(16, 2), (16, 4), (32, 2), (32, 4), (12, 2), (12, 4), (6, 1), (192, 4)]
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def image(count: int, dtype: torch.dtype = torch.float32, batch: int = 3) -> Tensor:
    x = torch.randn(batch, count, 5, 7, device=DEVICE).to(dtype)
    return x.contiguous(memory_format=torch.channels_last)


def seen_of(count: int, partial: int) -> int:
    """Channels that operations see; where there is one group, two of them."""
    return count // partial if partial > 1 else 2


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


@runs_kernels
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("count", "partial"), SIZES)
def test_split(count: int, partial: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    whole, seen = image(count, dtype).requires_grad_(), seen_of(count, partial)
    parts = channels.split(whole, seen)
    expected = whole[:, :seen], whole[:, seen:]
    signals = [torch.randn_like(part) for part in parts]
    for one, two in zip(parts, expected, strict=True):
        assert_same(one, two)
        assert is_channels_last(one)
    (gradient,) = torch.autograd.grad(parts, [whole], signals)
    assert_same(gradient, torch.cat(signals, 1))
    assert is_channels_last(gradient)


@runs_kernels
@pytest.mark.parametrize("used", [0, 1])
def test_gradient_of_one_part_alone(used: int) -> None:
    torch.manual_seed(0)
    whole = image(16).requires_grad_()
    part = channels.split(whole, 4)[used]
    signal = torch.randn_like(part)
    (gradient,) = torch.autograd.grad(part, [whole], signal)
    expected = torch.zeros_like(whole)
    (expected[:, :4], expected[:, 4:])[used].copy_(signal)
    assert_same(gradient, expected)


@runs_kernels
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("count", "partial"), SIZES)
def test_join(count: int, partial: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    seen = seen_of(count, partial)
    found, beside = image(seen, dtype).requires_grad_(), image(count - seen, dtype).requires_grad_()
    result = channels.join(found, beside, partial)
    expected = functional.channel_shuffle(torch.cat([found, beside], 1), partial)
    assert_same(result, expected)
    assert is_channels_last(result)
    signal = torch.randn_like(result)
    gradients = torch.autograd.grad(result, [found, beside], signal)
    wanted = torch.autograd.grad(expected, [found, beside], signal)
    for one, two in zip(gradients, wanted, strict=True):
        assert_same(one, two)
        assert is_channels_last(one)


@runs_kernels
@pytest.mark.parametrize("batch", [1, 3])
def test_images_that_lie_otherwise(batch: int) -> None:
    """Channels that are part of more, whose steps are the larger ones; and channels first."""
    torch.manual_seed(0)
    more = image(24, batch=batch)
    for whole in (more[:, 8:20], more[:, 1:13], more.contiguous()[:, 8:20], more[:, :12, ::2]):
        for one, two in zip(channels.split(whole, 4), (whole[:, :4], whole[:, 4:]), strict=True):
            assert_same(one, two)
        found, beside = whole[:, 4:8], whole[:, :4]
        expected = functional.channel_shuffle(torch.cat([found, beside], 1), 2)
        assert_same(channels.join(found, beside, 2), expected)


@runs_kernels
def test_gradient_that_is_part_of_more() -> None:
    """As that of a node is, which a cell's nodes are put together from."""
    torch.manual_seed(0)
    parts = [image(4).requires_grad_(), image(12).requires_grad_()]
    signal = torch.randn_like(image(32))
    found, expected = (
        torch.autograd.grad(torch.cat([node, image(16)], 1), parts, signal)
        for node in (
            channels.join(parts[0], parts[1], 4),
            functional.channel_shuffle(torch.cat(parts, 1), 4),
        )
    )
    for one, two in zip(found, expected, strict=True):
        assert_same(one, two)


def test_groups_without_a_kernel() -> None:
    """Three groups; and float64."""
    torch.manual_seed(0)
    found, beside = image(4), image(8)
    expected = functional.channel_shuffle(torch.cat([found, beside], 1), 3)
    assert_same(channels.join(found, beside, 3), expected)
    whole = image(12, torch.float64)
    for one, two in zip(channels.split(whole, 4), (whole[:, :4], whole[:, 4:]), strict=True):
        assert_same(one, two)


def test_a_state_is_parted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def split(whole: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        calls.append(seen)
        return channels.split(whole, seen)

    monkeypatch.setattr("cosearch.merged_cells.split", split)
    whole = image(16)
    state = State(whole, 4, 1)
    assert_same(state.x, whole[:, :4])
    assert_same(state.beside, whole[:, 4:])
    assert State(whole, 16, 1).x is whole
    assert calls == [4]
