"""Layers: exact integer accumulators, straight-through gradients, mixtures of candidates."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from export import integerise
from hw.errors import InputError
from lut import (
    LUT,
    ApproxConv1d,
    ApproxConv2d,
    ApproxLinear,
    Candidates,
    Quantisation,
    approx_conv2d,
)

from .tables import random_table, truncated

EXACT = LUT.exact(a_signed=True, b_signed=True)
SETTINGS = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}


def _layer(candidates: Candidates, quantisation: Quantisation | None = None) -> ApproxConv2d:
    torch.manual_seed(0)
    given = {} if quantisation is None else {"quantisation": quantisation}
    return ApproxConv2d(4, 6, 3, candidates, **SETTINGS, **given)


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


def test_a_share_of_the_images_estimates_the_gradient_of_a_mixture() -> None:
    luts = [EXACT, truncated(6), truncated(7, rows=2)]
    whole, part = _layer(Candidates(luts)).eval(), _layer(Candidates(luts, mixture_share=0.6))
    part.load_state_dict(whole.state_dict())
    part.eval()
    x, projection = _images(), torch.randn(3, 6, 5, 5, generator=torch.Generator().manual_seed(2))

    def gradients(layer: ApproxConv2d, images: Tensor) -> tuple[Tensor, ...]:
        weights = torch.tensor([0.5, 0.2, 0.3], requires_grad=True)
        y = layer(images, weights)
        return torch.autograd.grad((y * projection[: len(y)]).sum(), (weights, layer.weight))

    mixture, weight = gradients(part, x)
    first, _ = gradients(whole, x[:2])  # 0.6 of three images are two of them
    assert torch.allclose(mixture, first * 1.5, rtol=1e-4, atol=1e-3)
    assert torch.equal(weight, gradients(whole, x)[1])
    with pytest.raises(InputError, match="more than 0 and at most 1, not 0"):
        Candidates(luts, mixture_share=0.0)


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


def test_mixtures_of_the_wrong_size() -> None:
    layer = _layer(Candidates([EXACT, truncated(4)]))
    with pytest.raises(InputError, match="mixture must have 2 weights, not be left out"):
        layer(_images())
    with pytest.raises(InputError, match=r"mixture must have 2 weights, not the shape \(3,\)"):
        layer(_images(), torch.ones(3))


# Quantisation


def _fake_quantised(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """scale · level, the gradient that of learned step sizes (Esser et al., ICLR 2020, Eq. 3)."""
    ratio = x / scale
    level = torch.round(ratio).clamp(low, high).detach()
    inside = (torch.round(ratio) >= low) & (torch.round(ratio) <= high)
    return scale * torch.where(inside, ratio + (level - ratio).detach(), level)


@pytest.mark.parametrize("a_signed", [True, False])
def test_gradients_of_learned_scales_are_those_of_fake_quantisation(a_signed: bool) -> None:
    lut = LUT.exact(a_signed=a_signed, b_signed=True)
    layer = _layer(Candidates([lut]), Quantisation(learned=True))
    x = _images().abs() if not a_signed else _images()
    layer(x)
    assert layer.weight_scale is not None
    start = 2 * layer.weight.abs().mean((1, 2, 3)) / 127**0.5
    assert torch.allclose(layer.weight_scale, start)
    x_scale = layer.quantiser.scale.detach().clone().requires_grad_()
    w_scale = layer.weight_scale.detach().clone().requires_grad_()
    x, twin, weight = x.requires_grad_(), x.detach().requires_grad_(), layer.weight.detach()
    weight = weight.clone().requires_grad_()
    low, high = layer.candidates.a_range
    expected = functional.conv2d(
        _fake_quantised(twin, x_scale, low, high),
        _fake_quantised(weight, w_scale.view(-1, 1, 1, 1), -127, 127),
        **SETTINGS,
    )
    projection = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    (expected * projection).sum().backward()
    found = layer(x)
    (found * projection).sum().backward()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    _assert_close(layer.quantiser.scale.grad, x_scale.grad, (x.numel() * high) ** -0.5)
    _assert_close(layer.weight_scale.grad, w_scale.grad, (weight[0].numel() * 127) ** -0.5)
    _assert_close(x.grad, twin.grad, 1.0)
    _assert_close(layer.weight.grad, weight.grad, 1.0)


def _assert_close(found: Tensor | None, expected: Tensor | None, factor: float) -> None:
    assert found is not None and expected is not None
    limit = 2e-4 * float(expected.abs().max()) * factor
    assert torch.allclose(found, expected * factor, rtol=1e-3, atol=limit)


def test_learned_scales_are_used_kept_positive_and_exported() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        ApproxConv2d(4, 6, 3, Candidates([EXACT]), quantisation=Quantisation(learned=True)),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        ApproxLinear(6, 3, Candidates([EXACT]), quantisation=Quantisation(learned=True)),
    )
    layer, last = network[0], network[4]
    assert isinstance(layer, ApproxConv2d) and isinstance(last, ApproxLinear)
    scales = layer.weight_scale
    assert scales is not None and last.convolution.weight_scale is not None
    with torch.no_grad():
        scales[0], scales[1] = -1.0, 0.5
    network(_images())
    assert scales[0].item() == pytest.approx(1e-8) and scales[1].item() == 0.5
    levels, found = layer.quantised_weight()
    assert found.flatten().tolist() == scales.tolist()
    assert torch.equal(levels[1], torch.round(layer.weight[1] / 0.5).clamp(-127, 127))
    pixels = torch.randint(0, 256, (8, 4, 9, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network.eval()(pixels.float() / 64)
    logits = integerise(network, (4, 9, 9), 1 / 64)(pixels.to(torch.uint8))
    assert (logits - expected).abs().mean() < 0.05 * expected.std()


def test_learned_layers_learn_all_their_scales() -> None:
    layer = _layer(Candidates([truncated(6), EXACT]), Quantisation(learned=True))
    mixture = torch.tensor([0.25, 0.75], requires_grad=True)
    layer(_images(), mixture).square().sum().backward()
    for parameter in (*layer.parameters(), mixture):
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)


def test_rectified_activations_times_signed_weights() -> None:
    """Unsigned operands have a bit more for them: levels 0 … 255."""
    lut = LUT.exact(b_signed=True)
    x = torch.relu(_images())
    for quantisation in (Quantisation(), Quantisation(symmetric=False)):
        layer = _layer(Candidates([lut]), quantisation)
        layer(x)
        layer.eval()
        levels = layer.quantiser(x)
        assert (levels.min(), levels.max(), layer.quantiser.zero_point) == (0, 255, 0)
        weights, scales = layer.quantised_weight()
        assert (weights.min(), weights.max()) == (-127, 127)
        sums = functional.conv2d(levels.double(), weights.double(), **SETTINGS)
        scale = layer.quantiser.scale * scales.view(1, -1, 1, 1)
        assert torch.equal(layer(x), sums.float() * scale)
        exact = functional.conv2d(x, layer.weight, **SETTINGS)
        assert (layer(x) - exact).abs().max() < 0.01 * exact.abs().max()


def test_affine_layers_cover_the_whole_range_of_operands() -> None:
    x = _images().abs() + 1.0
    lut = truncated(6)
    layer = _layer(Candidates([lut]), Quantisation(symmetric=False))
    layer(x)
    layer.eval()
    levels, zero = layer.quantiser(x), int(layer.quantiser.zero_point)
    assert (zero, levels.max()) == (-128, 127)
    weights, scales = layer.quantised_weight()
    sums = approx_conv2d(
        levels.to(torch.int8), weights.to(torch.int8), lut, x_zero_point=zero, **SETTINGS
    )
    sums = sums - zero * weights.sum((1, 2, 3)).to(torch.int32).view(-1, 1, 1)
    expected = sums.float() * (layer.quantiser.scale * scales.view(1, -1, 1, 1))
    assert torch.equal(layer(x), expected)


def test_all_layers_take_a_quantisation() -> None:
    quantisation, candidates = Quantisation(observer="percentile"), Candidates([EXACT])
    layers = [
        ApproxConv2d(4, 6, 3, candidates, quantisation=quantisation),
        ApproxConv1d(4, 6, 3, candidates, quantisation=quantisation).convolution,
        ApproxLinear(4, 6, candidates, quantisation=quantisation).convolution,
    ]
    assert {layer.quantiser.observer_name for layer in layers} == {"percentile"}
    assert all(layer.weight_scale is None for layer in layers)


def test_quantisations_that_there_are_not() -> None:
    with pytest.raises(InputError, match="observer must be one of .*did you mean 'min_max'"):
        Quantisation(observer="minmax")
    with pytest.raises(InputError, match="learned scale must be symmetric, not affine"):
        Quantisation(symmetric=False, learned=True)
