"""The gradient of a mixture by its kernels against one forward pass for each multiplier."""

import pytest
import torch

from lut import LUT, ApproxConv2d, Candidates
from lut.backends import cuda_mixture
from lut.emulation import Operands

from .tables import truncated
from .test_cuda_backends import DEVICE, runs_kernels

LUTS = [LUT.exact(a_signed=True, b_signed=True), truncated(5), truncated(7)]
LAYERS = {
    "depthwise": (16, 16, 3, {"padding": 1, "groups": 16}),
    "dilated": (20, 20, 5, {"padding": 4, "dilation": 2, "stride": 2, "groups": 20}),
    "pointwise": (20, 24, 1, {}),
    "strided": (80, 10, 1, {"stride": 2}),
}


@runs_kernels
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_of_a_mixture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def plane_sums(gradient: torch.Tensor, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
        used.append(name)
        return cuda_mixture.plane_sums(gradient, operands)

    monkeypatch.setattr("lut.emulation.plane_sums", plane_sums)
    channels, outputs, kernel, settings = LAYERS[name]
    torch.manual_seed(0)
    layer = ApproxConv2d(channels, outputs, kernel, Candidates(LUTS), **settings)  # type: ignore[arg-type]
    x = torch.randn(2, channels, 8, 8).contiguous(memory_format=torch.channels_last).to(DEVICE)
    layer = layer.to(DEVICE)
    layer.quantiser.set_range(-3.0, 3.0)
    layer.eval()
    mixture = torch.rand(len(LUTS), device=DEVICE).requires_grad_()
    y = layer(x, mixture)
    signal = torch.randn_like(y)
    (found,) = torch.autograd.grad((y * signal).sum(), [mixture])
    each = [(layer(x, one) * signal).sum() for one in torch.eye(len(LUTS), device=DEVICE)]
    torch.testing.assert_close(found, torch.stack(each), rtol=2e-3, atol=2e-3)
    assert used == [name]
