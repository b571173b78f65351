"""A user's own network made approximate: same structure and weights, exact table close to fp32."""

import pytest
import torch
from torch import Tensor, nn

from export import integerise
from hw.errors import InputError
from lut import (
    LUT,
    ApproxConv1d,
    ApproxConv2d,
    ApproxLinear,
    Quantisation,
    approximate,
    calibrate,
)

from .tables import truncated

EXACT = LUT.exact(a_signed=True, b_signed=True)


class Block(nn.Module):
    """A residual block as in ResNet-20 (He et al., CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding="same", bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.first_norm(self.first(x)))
        result: Tensor = self.relu(self.second_norm(self.second(inner)) + x)
        return result


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Block(8),
        Block(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


def images(count: int = 8) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_exact_table_is_close_to_the_model_and_the_model_unchanged() -> None:
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    emulated = approximate(model, EXACT)
    calibrate(emulated, [images()])
    with torch.no_grad():
        expected, found = model(images()), emulated(images())
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(m, nn.Conv2d | nn.Linear) for m in emulated.modules())
    assert not any(module.training for module in emulated.modules())


def test_mapping_takes_the_first_pattern_that_fits() -> None:
    emulated = approximate(resnet(), {"3.second": None, "3.*": truncated(6), "7": EXACT})
    kinds = {
        name: module.candidates.luts[0].name
        for name, module in emulated.named_modules()
        if isinstance(module, ApproxConv2d)
    }
    assert kinds == {"3.first": "truncated_6_0", "7.convolution": "exact"}
    assert isinstance(emulated.get_submodule("3.second"), nn.Conv2d)


def test_rule() -> None:
    emulated = approximate(resnet(), lambda name, m: EXACT if isinstance(m, nn.Linear) else None)
    found = [n for n, m in emulated.named_modules() if isinstance(m, ApproxConv2d | ApproxLinear)]
    assert found == ["7", "7.convolution"]


def test_it_is_trained_and_exported() -> None:
    emulated = approximate(resnet(), {"0": EXACT, "*": truncated(6)}).train()
    optimiser = torch.optim.SGD(emulated.parameters(), 0.05)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(emulated(images()), torch.arange(8) % 5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    pixels = (images() * 255).to(torch.uint8)
    logits = integerise(emulated, (3, 8, 8), 1 / 255)(pixels)
    with torch.no_grad():
        expected = emulated.eval()(pixels.float() / 255)
    assert (logits - expected).abs().mean() < 0.1 * expected.std()


def test_one_dimensional_and_sequence_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 6, 5, stride=2, padding=2), nn.Linear(8, 3, bias=False))
    x = torch.randn(2, 4, 16)
    emulated = approximate(model, EXACT)
    assert isinstance(emulated[0], ApproxConv1d)  # type: ignore[index]
    calibrate(emulated, [x])
    with torch.no_grad():
        assert (emulated(x) - model(x)).abs().max() < 0.05


def test_what_cannot_be_replaced_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean '3.first'"):
        approximate(resnet(), {"3.frist": EXACT})
    reflecting = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(InputError, match="padding of layer '0' must be zeros, not 'reflect'"):
        approximate(reflecting, EXACT)
    uneven = nn.Sequential(nn.Conv2d(3, 3, 2, padding="same"))
    with pytest.raises(InputError, match="must be the same on both sides"):
        approximate(uneven, EXACT)
    with pytest.raises(InputError, match="not itself one layer"):
        approximate(nn.Linear(2, 2), EXACT)


def test_learned_quantisation_is_trained_and_exported() -> None:
    model = resnet()
    emulated = approximate(model, truncated(4), Quantisation(learned=True)).train()
    scales = {
        name: parameter
        for name, parameter in emulated.named_parameters()
        if name.endswith("weight_scale")
    }
    assert len(scales) == 6
    start = 2 * model[0].weight.abs().mean((1, 2, 3)) / 127**0.5  # type: ignore[index]
    assert torch.allclose(scales["0.weight_scale"], start)
    optimiser = torch.optim.SGD(emulated.parameters(), 0.05)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(emulated(images()), torch.arange(8) % 5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.allclose(scales["0.weight_scale"], start)
    pixels = (images() * 255).to(torch.uint8)
    logits = integerise(emulated, (3, 8, 8), 1 / 255)(pixels)
    with torch.no_grad():
        expected = emulated.eval()(pixels.float() / 255)
    assert (logits - expected).abs().mean() < 0.1 * expected.std()


def test_affine_quantisation_of_rectified_activations() -> None:
    model = resnet()
    emulated = approximate(model, EXACT, Quantisation(symmetric=False, observer="min_max"))
    calibrate(emulated, [images()])
    second = emulated.get_submodule("3.second")
    assert isinstance(second, ApproxConv2d)
    assert (second.quantiser.low, int(second.quantiser.zero_point)) == (-128, -128)
    with torch.no_grad():
        expected, found = model(images()), emulated(images())
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()


def test_a_layer_at_two_paths_stays_one() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    emulated = approximate(model, EXACT)
    assert isinstance(emulated[0], ApproxLinear)  # type: ignore[index]
    assert emulated[0] is emulated[2]  # type: ignore[index]
    apart = approximate(model, {"0": EXACT, "2": truncated(4)})
    assert [apart[i].convolution.candidates.luts[0].name for i in (0, 2)] == [  # type: ignore[index]
        "exact",
        "truncated_4_0",
    ]


def test_equal_tables_of_other_signedness_are_other_multipliers() -> None:
    signed = LUT.exact(a_signed=True, b_signed=True, width=2)
    unsigned = LUT(signed.table, name="other")
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    emulated = approximate(model, {"0": signed, "1": unsigned})
    lows = [emulated[i].convolution.quantiser.low for i in (0, 1)]  # type: ignore[index]
    assert lows == [-1, 0]
