"""The gradient of a mixture by its kernels against one forward pass for each multiplier."""

import pytest
import torch
from torch import Tensor

from lut import LUT, ActivationQuantiser, ApproxConv2d, Candidates
from lut.backends import cuda_mixture
from lut.emulation import Operands

from .tables import random_table, truncated
from .test_cuda_backends import DEVICE, runs_kernels

EXACT = LUT.exact(a_signed=True, b_signed=True)
LUTS = [EXACT, truncated(5), truncated(7)]
# Channels, outputs, kernel, height and width of the images, settings.
LAYERS = {
    "depthwise": (16, 16, 3, (8, 8), {"padding": 1, "groups": 16}),
    "long": (6, 6, 5, (4, 16), {"padding": 2, "groups": 6}),
    "unpadded": (6, 6, 3, (8, 8), {"groups": 6, "dilation": 3}),
    "odd": (5, 5, 3, (7, 4), {"padding": 1, "groups": 5}),
    "padded": (3, 3, 5, (6, 9), {"padding": 3, "groups": 3}),
    "bare": (18, 18, 2, (5, 6), {"groups": 18}),
    "dilated": (20, 20, 5, (8, 8), {"padding": 4, "dilation": 2, "stride": 2, "groups": 20}),
    "strided": (4, 4, 3, (9, 6), {"padding": 3, "dilation": 3, "stride": 2, "groups": 4}),
    "pointwise": (20, 24, 1, (8, 8), {}),
    "wide": (34, 66, 1, (3, 5), {}),
    "pointwise_strided": (80, 10, 1, (7, 8), {"stride": 2}),
}


def _layer(name: str, luts: list[LUT], affine: bool = False) -> tuple[ApproxConv2d, Tensor]:
    channels, outputs, kernel, size, settings = LAYERS[name]
    torch.manual_seed(0)
    layer = ApproxConv2d(channels, outputs, kernel, Candidates(luts), **settings)  # type: ignore[arg-type]
    if affine:
        layer.quantiser = ActivationQuantiser(-128, 127, symmetric=False)
    layer = layer.to(DEVICE)
    layer.quantiser.set_range(-1.5, 2.5)
    x = torch.randn(2, channels, *size).contiguous(memory_format=torch.channels_last)
    return layer.eval(), x.to(DEVICE)


def _found_and_expected(layer: ApproxConv2d, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient in the type of `like`, and what forward passes say, in float32."""
    count = len(layer.candidates)
    mixture = torch.rand(count, device=DEVICE).requires_grad_()
    with torch.autocast(DEVICE, like.dtype, enabled=like.dtype != torch.float32):
        y = layer(x, mixture)
    signal = torch.randn_like(y)
    (found,) = torch.autograd.grad(y, [mixture], signal)
    one_hot = torch.eye(count, device=DEVICE)
    each = [(layer(x, one) * signal.float()).sum() for one in one_hot]
    return found, torch.stack(each)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each gradient of the kernels; forward passes are torch's."""
    found: list[int] = []

    def mixture_gradient(gradient: Tensor, operands: Operands) -> Tensor:
        found.append(len(found))
        return cuda_mixture.mixture_gradient(gradient, operands)

    monkeypatch.setattr("lut.emulation.mixture_gradient", mixture_gradient)
    monkeypatch.setattr("lut.emulation.is_fused", lambda *_: False)
    return found


@runs_kernels
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_of_a_mixture(name: str, affine: bool, used: list[int]) -> None:
    layer, x = _layer(name, LUTS, affine)
    found, expected = _found_and_expected(layer, x, x)
    if affine:  # what is taken off for the zero point does not depend on the mixture
        expected = expected - (expected - found).mean()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert len(used) == 1


@runs_kernels
@pytest.mark.parametrize("name", ["dilated", "odd", "pointwise"])
def test_more_planes_than_a_group(name: str, used: list[int]) -> None:
    layer, x = _layer(name, [random_table(9), EXACT, random_table(2, seed=1)])
    found, expected = _found_and_expected(layer, x, x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert len(used) == 1


@runs_kernels
@pytest.mark.parametrize("name", ["depthwise", "strided", "pointwise"])
def test_gradients_in_bfloat16(name: str, used: list[int]) -> None:
    layer, x = _layer(name, LUTS)
    found, expected = _found_and_expected(layer, x.bfloat16().float(), x.bfloat16())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert len(used) == 1


@runs_kernels
def test_scales_of_weights_are_given(used: list[int]) -> None:
    for name in ("depthwise", "pointwise"):
        layer, x = _layer(name, LUTS)
        layer.weight_scale = torch.nn.Parameter(
            torch.linspace(0.001, 0.02, len(layer.weight), device=DEVICE)
        )
        layer.weight_scale.requires_grad_(False)
        found, expected = _found_and_expected(layer, x, x)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert len(used) == 2
