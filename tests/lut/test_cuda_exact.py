"""Exact convolutions by kernels of the project against torch's, and their gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lut.backends import cuda_exact
from lut.backends.cuda_depthwise import Depthwise
from lut.backends.cuda_pointwise import Pointwise
from lut.backends.exact_kernels import Grid, exact_kernel
from lut.geometry import ConvGeometry

from .test_cuda_backends import DEVICE, runs_kernels

SHAPES = [
    # channels, height, width, kernel, stride, padding, dilation
    (16, 8, 8, 3, 1, 1, 1),
    (16, 8, 8, 5, 1, 4, 2),
    (4, 9, 7, 5, 1, 2, 1),
    (12, 7, 9, 3, 2, 1, 1),
    (36, 8, 5, 5, 2, 4, 2),
    (8, 10, 11, 3, 2, 2, 3),
    (3, 6, 6, 4, 3, 0, 1),
    (72, 5, 3, 2, 1, 1, 1),
    (5, 4, 1, 1, 1, 1, 1),
]


def operands(
    shape: tuple[int, ...],
) -> tuple[Tensor, Tensor, ConvGeometry]:
    """Small integers, whose sums are exact in any order."""
    channels, height, width, kernel, stride, padding, dilation = shape
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-9, 10, (3, channels, height, width), generator=generator).float()
    w = torch.randint(-9, 10, (channels, 1, kernel, kernel), generator=generator).float()
    pairs = [(one, one) for one in (stride, padding, dilation)]
    geometry = ConvGeometry.of(*pairs, channels)
    return x.to(DEVICE).to(memory_format=torch.channels_last), w.to(DEVICE), geometry


def expected(x: Tensor, w: Tensor, geometry: ConvGeometry) -> Tensor:
    return functional.conv2d(
        x, w, None, geometry.stride, geometry.padding, geometry.dilation, geometry.groups
    )


@runs_kernels
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_gradients_are_torchs(shape: tuple[int, ...], relu: bool) -> None:
    x, w, geometry = operands(shape)
    assert exact_kernel(x, w, geometry, x.dtype) is Depthwise
    one = Depthwise(x, w, geometry, relu)
    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    rectified = leaves[0].relu() if relu else leaves[0]
    right = expected(rectified, leaves[1], geometry)
    assert torch.equal(one.result(), right)
    signal = torch.randint_like(right, -9, 10)
    right_x, right_w = torch.autograd.grad(right, leaves, signal)
    assert torch.equal(one.operand_gradient(signal), right_x)
    assert torch.equal(one.weight_gradient(signal), right_w)


@runs_kernels
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_no_gradient_passes_where_levels_are_clamped(shape: tuple[int, ...]) -> None:
    x, w, geometry = operands(shape)
    scale = torch.tensor(1.0, device=DEVICE)
    grid = Grid(scale, torch.zeros((), dtype=torch.int32, device=DEVICE), -5, 4)
    leaf = x.clone().requires_grad_()
    right = expected(leaf, w, geometry)
    signal = torch.randint_like(right, -9, 10)
    (unclamped,) = torch.autograd.grad(right, leaf, signal)
    inside = (x >= -5) & (x <= 4)
    found = Depthwise(x, w, geometry, grid=grid).operand_gradient(signal)
    assert torch.equal(found, unclamped * inside)


POINTWISE = [(16, 16), (4, 4), (36, 20), (64, 64), (3, 7)]


def pointwise_operands(channels: int, outputs: int) -> tuple[Tensor, Tensor, ConvGeometry]:
    """Small integers, whose sums are exact in any order and type."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(-2, 3, (2, channels, 9, 15), generator=generator).bfloat16()
    w = torch.randint(-2, 3, (outputs, channels, 1, 1), generator=generator).float()
    x = x.to(DEVICE).to(memory_format=torch.channels_last)
    return x, w.to(DEVICE), ConvGeometry.of((1, 1), (0, 0), (1, 1), 1)


def small_signal(like: Tensor) -> Tensor:
    """One in eight is not zero, so that sums over positions stay exact in bfloat16 as well."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(-1, 2, like.shape, generator=generator)
    kept = torch.randint(8, like.shape, generator=generator) == 0
    return (values * kept).to(DEVICE).bfloat16().to(memory_format=torch.channels_last)


@runs_kernels
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("channels", "outputs"), POINTWISE)
def test_pointwise_results_and_gradients(channels: int, outputs: int, relu: bool) -> None:
    x, w, geometry = pointwise_operands(channels, outputs)
    assert exact_kernel(x, w, geometry, x.dtype) is Pointwise
    assert exact_kernel(x, w, geometry, torch.float32) is None
    one = Pointwise(x, w, geometry, relu)
    leaves = [x.float().requires_grad_(), w.clone().requires_grad_()]
    right = expected(leaves[0].relu() if relu else leaves[0], leaves[1], geometry)
    assert torch.equal(one.result().float(), right.bfloat16().float())
    signal = small_signal(right)
    right_x, right_w = torch.autograd.grad(right, leaves, signal.float())
    assert torch.equal(one.operand_gradient(signal).float(), right_x)
    assert torch.equal(one.weight_gradient(signal), right_w)


@runs_kernels
@pytest.mark.parametrize(("channels", "outputs"), POINTWISE)
def test_pointwise_gradients_of_quantised_operands(channels: int, outputs: int) -> None:
    x, w, geometry = pointwise_operands(channels, outputs)
    scale, zero = torch.tensor(0.5, device=DEVICE), torch.tensor(1, dtype=torch.int32)
    grid = Grid(scale, zero.to(DEVICE), -2, 4)  # values from -1.5 to 1.5
    one = Pointwise(x, w, geometry, grid=grid)
    leaves = [x.float().requires_grad_(), w.clone().requires_grad_()]
    right = expected(leaves[0].clamp(-1.5, 1.5), leaves[1], geometry)
    signal = small_signal(right)
    right_x, right_w = torch.autograd.grad(right, leaves, signal.float())
    assert torch.equal(one.operand_gradient(signal).float(), right_x)
    assert torch.equal(one.weight_gradient(signal), right_w)


def test_more_values_than_kernels_count_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_exact, "cuda_refusal", lambda x: None)
    geometry = ConvGeometry.of((1, 1), (0, 0), (1, 1), 1)
    w = torch.empty(64, 1, 1, 1)
    for side, kind in ((1 << 12, None), (1 << 11, Pointwise)):  # 2**30 results, and 2**28
        x = torch.empty(1, 1, side, side, dtype=torch.bfloat16, device="meta")
        assert exact_kernel(x, w, geometry, x.dtype) is kind
