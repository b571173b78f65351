"""Quantisers: onnxruntime's rounding, gradients from their papers' formulae, state that is kept."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor

from hw.errors import InputError
from lut import ActivationQuantiser
from lut.observers import OBSERVERS, SMALLEST_SCALE
from lut.quantisation import quantise, weight_scales

INTEGERS = {np.int8: (-128, 127), np.uint8: (0, 255)}


def _quantize_linear(x: Tensor, scale: float, zero_point: int, kind: type) -> NDArray[np.int64]:
    """ONNX QuantizeLinear by onnxruntime."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["y"])],
        "quantize",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", number, ["N"])],
        [
            onnx.numpy_helper.from_array(np.float32(scale), "scale"),
            onnx.numpy_helper.from_array(np.array(zero_point, kind), "zero_point"),
        ],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    (result,) = session.run(None, {"x": x.numpy()})
    return result.astype(np.int64)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("offset", [0, 3, 100, 127])
@pytest.mark.parametrize("scale", [0.5, 1.0, 0.1, 0.037, 3e-5])
def test_levels_are_those_of_quantize_linear(kind: type, offset: int, scale: float) -> None:
    low, high = INTEGERS[kind]
    zero_point = low + offset
    halves = (torch.arange(-600, 600) / 2) * torch.tensor(scale)
    random = 150 * scale * torch.randn(10_000, generator=torch.Generator().manual_seed(offset))
    x = torch.cat([halves, random, torch.tensor([0.0, -0.0, 1e30, -1e30])])
    expected = _quantize_linear(x, scale, zero_point, kind)
    for given in (zero_point, torch.tensor(zero_point, dtype=torch.int32)):
        found = quantise(x, torch.tensor(scale), low, high, given)
        assert found.dtype == torch.float32
        assert np.array_equal(found.numpy().astype(np.int64), expected)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_computed_in_float32(kind: torch.dtype) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(1)).to(kind).requires_grad_()
    levels = quantise(x, torch.tensor(0.01), -127, 127)
    assert torch.equal(levels, quantise(x.detach().float(), torch.tensor(0.01), -127, 127))
    levels.sum().backward()
    assert x.grad is not None and x.grad.dtype == kind


def test_gradients_of_the_levels_value_by_value() -> None:
    x = torch.tensor([-9.0, -3.3, -2.6, -0.2, 0.0, 1.2, 2.4, 2.6, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    levels = quantise(x, scale, -8, 5, 2)
    weights = torch.arange(1.0, 10.0)
    (levels * weights).sum().backward()
    expected_x, expected_scale = [], 0.0
    for value, weight in zip(x.tolist(), weights.tolist(), strict=True):
        inside = -8 <= round(value / 0.5) + 2 <= 5
        expected_x.append(weight / 0.5 if inside else 0.0)
        expected_scale += weight * -value / 0.25 if inside else 0.0
    assert x.grad is not None and scale.grad is not None
    assert x.grad.tolist() == expected_x
    assert scale.grad.item() == pytest.approx(expected_scale)


def _lsq(x: float, s: float, low: int, high: int) -> float:
    """d quantised value / d s, Eq. 3 of Esser et al., ICLR 2020."""
    if x / s <= low:
        return low
    if x / s >= high:
        return high
    return -x / s + round(x / s)


@pytest.mark.parametrize(("low", "high"), [(-127, 127), (0, 255), (-8, 7), (0, 3)])
def test_scale_gets_the_gradient_of_learned_step_sizes(low: int, high: int) -> None:
    generator = torch.Generator().manual_seed(0)
    step = 0.05
    x = step * high * torch.randn(3000, generator=generator)
    rounded_into_range = ((x / step > high) & (x / step <= high + 0.5)) | (
        (x / step < low) & (x / step >= low - 0.5)
    )
    x, weights = x[~rounded_into_range], torch.randn(3000, generator=generator)[~rounded_into_range]
    scale = torch.tensor(step, requires_grad=True)
    (weights * scale * quantise(x, scale, low, high)).sum().backward()
    expected = [_lsq(value, scale.item(), low, high) for value in x.tolist()]
    assert scale.grad is not None
    exact = np.dot(weights.double().numpy(), expected)
    assert scale.grad.item() == pytest.approx(exact, rel=1e-4, abs=1e-2)


def test_scale_gradient_value_by_value_and_half_a_level_beyond() -> None:
    step = 0.25
    for x in np.arange(-3.0, 3.0, 0.03125).tolist():
        scale = torch.tensor(step, requires_grad=True)
        (scale * quantise(torch.tensor(x), scale, -8, 7)).backward()
        inside = -8 <= round(x / step) <= 7
        expected = round(x / step) - x / step if inside else _lsq(x, step, -8, 7)
        assert scale.grad is not None and scale.grad.item() == pytest.approx(expected, abs=1e-6), x


def test_affine_scale_gradient() -> None:
    """Above and below the range the value is scale · (end - zero point)."""
    for x, expected in ((-50.0, -8 - 3), (50.0, 7 - 3), (1.3, 3 - 1.3 / 0.5)):
        scale = torch.tensor(0.5, requires_grad=True)
        (scale * (quantise(torch.tensor(x), scale, -8, 7, 3) - 3)).backward()
        assert scale.grad is not None and scale.grad.item() == pytest.approx(expected, abs=1e-6)


def test_scales_of_channels_get_their_own_gradients() -> None:
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    scales = weight_scales(weight, 127).requires_grad_()
    assert scales.shape == (4, 1, 1, 1)
    (scales * quantise(weight, scales, -127, 127)).sum().backward()
    assert scales.grad is not None and scales.grad.shape == scales.shape
    for channel in range(4):
        alone = scales.detach()[channel : channel + 1].requires_grad_()
        (alone * quantise(weight[channel : channel + 1], alone, -127, 127)).sum().backward()
        assert torch.allclose(alone.grad, scales.grad[channel : channel + 1])
    assert quantise(weight, scales, -127, 127).abs().amax(dim=(1, 2, 3)).tolist() == [127.0] * 4


def test_weight_scales_of_zeros() -> None:
    assert weight_scales(torch.zeros(1, 1, 1, 1), 127).item() == pytest.approx(SMALLEST_SCALE)


def test_symmetric_quantiser_follows_the_moving_average() -> None:
    quantiser = ActivationQuantiser(-127, 127)
    assert quantiser.is_symmetric and (quantiser.low, quantiser.high) == (-127, 127)
    assert quantiser.scale.item() == pytest.approx(1 / 127)
    quantiser(torch.tensor([-2.54, 1.0]))
    assert quantiser.scale.item() == pytest.approx(0.02)
    quantiser(torch.tensor([0.54]))
    assert quantiser.scale.item() == pytest.approx((0.9 * 2.54 + 0.1 * 0.54) / 127)
    before = quantiser.scale.clone()
    levels = quantiser.eval()(torch.tensor([before.item() * 2.5, 99.0, -99.0]))
    assert levels.tolist() == [2.0, 127.0, -127.0] and quantiser.scale == before
    assert quantiser.zero_point == 0 and quantiser.zero_point.dtype == torch.int32


def test_unsigned_symmetric_quantiser() -> None:
    quantiser = ActivationQuantiser(0, 255)
    levels = quantiser(torch.tensor([0.0, 1.275, 2.55]))
    assert levels.tolist() == [0.0, 128.0, 255.0] or levels.tolist() == [0.0, 127.0, 255.0]
    assert quantiser.scale.item() == pytest.approx(0.01) and quantiser.zero_point == 0
    assert quantiser.eval()(torch.tensor([-5.0, 5.0])).tolist() == [0.0, 255.0]


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize(("low", "high"), [(-128, 127), (0, 255)])
def test_affine_levels_hold_zero_exactly_and_stay_near(name: str, low: int, high: int) -> None:
    quantiser = ActivationQuantiser(low, high, observer=name, symmetric=False)
    assert not quantiser.is_symmetric
    x = torch.rand(1000, generator=torch.Generator().manual_seed(4)) * 3.0 - 0.5
    levels, (scale, zero_point) = quantiser(x), quantiser.eval().grid(x)
    assert low < zero_point < high and zero_point.dtype == torch.int32
    assert quantiser(torch.zeros(1)).item() == zero_point
    errors = (scale * (levels - zero_point) - x).abs()
    assert errors.max() <= (0.51 * scale if name != "percentile" else 0.02)
    assert scale == pytest.approx(3.0 / 255, rel=0.1)


def test_unknown_observer() -> None:
    with pytest.raises(
        InputError,
        match="observer must be one of min_max, moving_average, mse, percentile, not 'minmax'; "
        "did you mean 'min_max'?",
    ):
        ActivationQuantiser(-127, 127, observer="minmax")
    with pytest.raises(InputError, match="a learned scale must be symmetric, not affine"):
        ActivationQuantiser(-127, 127, symmetric=False, learned=True)


@pytest.mark.parametrize("learned", [False, True])
def test_range_can_be_forced(learned: bool) -> None:
    quantiser = ActivationQuantiser(-127, 127, learned=learned)
    quantiser.set_range(-1.27, 0.3)
    assert quantiser.scale.item() == pytest.approx(0.01) and quantiser.zero_point == 0
    quantiser.train()(torch.tensor([1.27]))
    assert quantiser.scale.item() == pytest.approx(0.01)
    with pytest.raises(InputError, match="a range must be finite and rise, not go from 1.0 to 0"):
        quantiser.set_range(1.0, 0.0)


def test_affine_range_can_be_forced() -> None:
    quantiser = ActivationQuantiser(0, 255, symmetric=False)
    quantiser.set_range(-1.0, 1.55)
    assert quantiser.scale.item() == pytest.approx(0.01) and quantiser.zero_point == 100
    quantiser(torch.tensor([-1.0, 1.55]))
    assert quantiser.scale.item() == pytest.approx(0.01) and quantiser.zero_point == 100


SETTINGS = [
    {"observer": name, "symmetric": symmetric} for name in OBSERVERS for symmetric in (True, False)
] + [{"learned": True}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_state_goes_through_a_state_dict(settings: dict) -> None:
    batches = [torch.randn(50, generator=torch.Generator().manual_seed(s)) + 0.5 for s in (0, 1)]
    one = ActivationQuantiser(-128, 127, **settings)
    one(batches[0])
    other = ActivationQuantiser(-128, 127, **settings)
    other.load_state_dict(one.state_dict())
    copied = copy.deepcopy(one)
    for quantiser in (one, other, copied):
        quantiser.train()(batches[1])
    for quantiser in (other, copied):
        assert quantiser.scale == one.scale and quantiser.zero_point == one.zero_point
        assert torch.equal(quantiser.eval()(batches[0]), one.eval()(batches[0]))


def test_two_training_calls_before_one_backward() -> None:
    for settings in SETTINGS:
        quantiser = ActivationQuantiser(-128, 127, **settings)
        x = torch.randn(20, generator=torch.Generator().manual_seed(5)).requires_grad_()
        (quantiser(x).sum() + quantiser(3 * x).sum()).backward()
        assert x.grad is not None and x.grad.abs().sum() > 0


def test_learned_scale_starts_from_the_first_training_batch() -> None:
    quantiser = ActivationQuantiser(0, 15, learned=True)
    x = torch.rand(400, generator=torch.Generator().manual_seed(6))
    quantiser.eval()(x)
    assert quantiser.scale.item() == pytest.approx(1 / 15)
    quantiser.train()(x)
    assert quantiser.scale.item() == pytest.approx(2 * x.mean().item() / 15**0.5)
    before = quantiser.scale.detach().clone()
    quantiser(100 * x)
    assert quantiser.scale == before
    assert dict(quantiser.named_parameters()).keys() == {"scale"}


def test_loading_a_fresh_state_starts_a_learned_scale_again() -> None:
    quantiser = ActivationQuantiser(0, 15, learned=True)
    fresh = copy.deepcopy(quantiser.state_dict())
    quantiser(torch.ones(4))
    quantiser.load_state_dict(fresh)
    quantiser(2 * torch.ones(4))
    assert quantiser.scale.item() == pytest.approx(4 / 15**0.5)


def test_learned_scale_gradient_is_scaled_by_the_number_of_values() -> None:
    quantiser = ActivationQuantiser(-127, 127, learned=True)
    quantiser.set_range(-1.0, 1.0)
    x = torch.randn(500, generator=torch.Generator().manual_seed(7))
    scale, zero_point = quantiser.grid(x)
    assert scale == quantiser.scale and zero_point == 0
    (scale * quantise(x, scale, -127, 127)).sum().backward()
    plain = quantiser.scale.detach().clone().requires_grad_()
    (plain * quantise(x, plain, -127, 127)).sum().backward()
    assert torch.allclose(quantiser.scale.grad, plain.grad / (500 * 127) ** 0.5)


def test_learned_scale_stays_positive() -> None:
    quantiser = ActivationQuantiser(-127, 127, learned=True)
    quantiser(torch.ones(3))
    with torch.no_grad():
        quantiser.scale.fill_(-1.0)
    assert quantiser.eval().grid(torch.ones(3))[0].item() == pytest.approx(SMALLEST_SCALE)
    scale, _ = quantiser.train().grid(torch.ones(3))
    assert scale.item() == quantiser.scale.item() == pytest.approx(SMALLEST_SCALE)


def test_learning_the_scale_lowers_the_error() -> None:
    quantiser = ActivationQuantiser(-7, 7, learned=True)
    x = torch.randn(4000, generator=torch.Generator().manual_seed(8))
    optimiser, errors = torch.optim.SGD(quantiser.parameters(), lr=3.0), []
    for _ in range(60):
        scale, _ = quantiser.grid(x)
        error = (scale * quantise(x, scale, -7, 7) - x).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.8 * errors[0]


def test_it_says_what_it_is() -> None:
    assert ActivationQuantiser(-127, 127).extra_repr() == (
        "-127 … 127, symmetric, observer=moving_average"
    )
    assert ActivationQuantiser(0, 255, learned=True).extra_repr() == "0 … 255, symmetric, learned"
    affine = ActivationQuantiser(0, 255, observer="mse", symmetric=False)
    assert affine.extra_repr() == "0 … 255, affine, observer=mse"
