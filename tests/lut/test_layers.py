"""Layers: exact integer accumulators, straight-through gradients, mixtures of candidates."""

import torch

from lut import LUT, ApproxConv2d, ApproxLinear, Candidates, approx_conv2d

from .tables import random_table, truncated

EXACT = LUT.exact(a_signed=True, b_signed=True)
SETTINGS = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}


def _layer(candidates: Candidates) -> ApproxConv2d:
    torch.manual_seed(0)
    return ApproxConv2d(4, 6, 3, candidates, **SETTINGS)


def _images() -> torch.Tensor:
    return torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(1))


def _integer_result(layer: ApproxConv2d, x: torch.Tensor, lut: LUT) -> torch.Tensor:
    weights, scales = layer.quantised_weight()
    levels = layer.quantiser(x).to(torch.int8)
    sums = approx_conv2d(levels, weights.to(torch.int8), lut, backend="table", **SETTINGS)
    return sums.float() * (layer.quantiser.scale * scales.view(1, -1, 1, 1))


def test_one_multiplier_equals_the_integer_convolution() -> None:
    for lut in (EXACT, truncated(7), random_table(5)):
        layer = _layer(Candidates([lut]))
        layer.train()(_images())
        layer.eval()
        assert torch.equal(layer(_images()), _integer_result(layer, _images(), lut))


def test_one_hot_mixture_equals_that_multiplier() -> None:
    luts = [EXACT, truncated(4), truncated(7, rows=2)]
    layer = _layer(Candidates(luts)).eval()
    for index, lut in enumerate(luts):
        one_hot = torch.eye(len(luts))[index]
        assert torch.equal(layer(_images(), one_hot), _integer_result(layer, _images(), lut))


def test_mixture_is_the_weighted_sum_of_its_multipliers() -> None:
    luts = [EXACT, truncated(5), truncated(7), truncated(6, rows=1)]
    layer = _layer(Candidates(luts)).eval()
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    separate = torch.stack([layer(_images(), one_hot) for one_hot in torch.eye(4)])
    mixture = torch.einsum("m,mnohw->nohw", weights, separate)
    assert torch.allclose(layer(_images(), weights), mixture, rtol=1e-4, atol=1e-4)


def test_gradient_of_the_mixture_by_finite_differences() -> None:
    layer = _layer(Candidates([EXACT, truncated(6), truncated(7, rows=2)])).eval()
    weights = torch.tensor([0.5, 0.2, 0.3], requires_grad=True)
    projection = torch.randn(3, 6, 5, 5, generator=torch.Generator().manual_seed(2))
    (layer(_images(), weights) * projection).sum().backward()
    assert weights.grad is not None
    for index, one_hot in enumerate(torch.eye(3)):
        change = layer(_images(), weights.detach() + one_hot) - layer(_images(), weights.detach())
        expected = (change * projection).sum()
        assert torch.allclose(weights.grad[index], expected, rtol=1e-3, atol=1e-2)


def test_operand_gradients_are_those_of_the_exact_product() -> None:
    layer, x = _layer(Candidates([truncated(7)])).eval(), _images().requires_grad_()
    layer.quantiser.set_range(-10.0, 10.0)
    layer(x).square().sum().backward()
    result = layer(x.detach()).detach()
    weights, scales = layer.quantised_weight()
    kernel = (weights * scales).detach().requires_grad_()
    levels = (layer.quantiser(x.detach()) * layer.quantiser.scale).requires_grad_()
    torch.nn.functional.conv2d(levels, kernel, **SETTINGS).backward(2 * result)
    assert x.grad is not None and layer.weight.grad is not None
    assert torch.allclose(x.grad, levels.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(layer.weight.grad, kernel.grad, rtol=1e-4, atol=1e-3)


def test_linear_is_the_matrix_product_plus_bias() -> None:
    torch.manual_seed(0)
    layer, x = ApproxLinear(7, 5, Candidates([EXACT])).eval(), torch.randn(4, 7)
    weights, scales = layer.convolution.quantised_weight()
    quantiser = layer.convolution.quantiser
    expected = (quantiser(x) @ weights[:, :, 0, 0].T) * (quantiser.scale * scales.view(1, -1))
    bias = torch.arange(5.0)
    with torch.no_grad():
        layer.convolution.bias.copy_(bias)
    assert torch.equal(layer(x), expected + bias)


def test_quantiser_rounds_as_quantize_linear_and_follows_the_range() -> None:
    layer = _layer(Candidates([EXACT]))
    quantiser = layer.quantiser.train()
    quantiser(torch.tensor([-2.54, 1.0]))
    assert torch.isclose(127 * quantiser.scale, torch.tensor(2.54))
    quantiser(torch.tensor([0.54]))
    assert torch.isclose(127 * quantiser.scale, torch.tensor(2.34))
    quantiser.eval().set_range(-127.0, 127.0)
    levels = quantiser(torch.tensor([0.5, 1.5, 2.5, -0.5, 300.0, -300.0]))
    assert levels.tolist() == [0.0, 2.0, 2.0, 0.0, 127.0, -127.0]
