"""Terms of the objective: one-hot shares against the discrete network, finite differences, and the
expected period against all outcomes.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cosearch.array_figures import ArrayFigures, read_array_figures, write_array_figures
from cosearch.array_model import ArrayModel
from cosearch.config import Hardware, Search
from cosearch.energy_lines import LINES
from cosearch.layer_use import LayerShares
from cosearch.layers import layer_records
from cosearch.network import Network
from cosearch.network_costs import NetworkCosts, float_costs, network_costs
from cosearch.passes import at
from cosearch.supernet import Supernet
from cosearch.terms import TERMS, Budget, CostedSpace, EnergyMeasure, LatencyMeasure, Measure
from hw.array import LayerShape, layer_clocks
from hw.errors import InputError
from lut import ApproxConv2d

from .costed import ARRAY, DELAYS, FIGURES, costed
from .small import LUTS, SHAPE, SPACE, supernet
from .smooth import smooth, tiny
from .test_supernet import GENOTYPE, arithmetic, one_hot

ALL_LINES = Search(energy_lines=tuple(LINES))


def _discrete(space: CostedSpace) -> NetworkCosts:
    """Of the network of GENOTYPE, from its own layers."""
    network = Network(SPACE, GENOTYPE, arithmetic)
    digests = [lut.digest for lut in LUTS]
    used = [
        space.candidates[digests.index(module.candidates.luts[0].digest)]
        for module in network.modules()
        if isinstance(module, ApproxConv2d)
    ]
    return network_costs(layer_records(network, SHAPE), used, space.array)


def _shares(net: Supernet, space: CostedSpace) -> LayerShares:
    with torch.no_grad():
        return space.use(net.all_choices())


@pytest.mark.parametrize("register", [0, 1])
def test_one_hot_shares_cost_what_the_discrete_network_costs(register: int) -> None:
    net = supernet()
    array = replace(ARRAY, hardware=replace(ARRAY.hardware, product_register=register))
    space = costed(net, array=array)
    one_hot(net, GENOTYPE)
    shares, expected = _shares(net, space), _discrete(space)
    for name in LINES:
        line = EnergyMeasure.of(space, [name])
        assert float(line.expected_fj(shares)) == pytest.approx(
            expected.lines_nj[name] * 1e6, rel=1e-6
        )
    latency = LatencyMeasure.of(space)
    assert float((shares.operations * space.clocks()).sum()) == expected.clocks
    assert float(latency.expected_period_ps(shares)) == expected.period_ps
    assert float(latency.expected_ms(shares)) == pytest.approx(expected.latency_ms, rel=1e-6)


@pytest.mark.parametrize("register", [0, 1])
def test_clocks_are_those_of_the_array(register: int) -> None:
    hardware = Hardware(array_rows=6, array_columns=5, product_register=register)
    for shape in (LayerShape(1, 27, 12, 64), LayerShape(8, 9, 1, 16), LayerShape(1, 40, 10, 1)):
        clocks = ArrayModel(hardware, None).schedule(shape).clocks
        assert clocks == layer_clocks(6, 5, shape, product_register=bool(register))


def slope_is_met(measure: Measure, net: Supernet, space: CostedSpace) -> None:
    def value() -> Tensor:
        return measure.relative(space.use(net.all_choices()))

    parameters = net.architecture_parameters()
    gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
    for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        generator = torch.Generator().manual_seed(number)
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        slope = 0.0 if gradient is None else float((gradient * direction).sum())
        values = []
        for step in (1e-4, -1e-4):
            with at([parameter], [parameter + step * direction]), torch.no_grad():
                values.append(float(value()))
        assert (values[0] - values[1]) / 2e-4 == pytest.approx(slope, rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("name", [*LINES, "all lines", "latency"])
def test_gradients_by_finite_differences(name: str) -> None:
    net = smooth()
    space = costed(tiny())
    measure: Measure
    if name == "latency":
        measure = LatencyMeasure.of(space)
    else:
        measure = EnergyMeasure.of(space, LINES if name == "all lines" else [name])
    slope_is_met(measure, net, space)


def test_the_expected_period_is_the_mean_over_all_outcomes() -> None:
    """Every choice falls on one of its multipliers or on nothing, independently."""
    space = costed(tiny())
    latency = LatencyMeasure.of(space)
    generator = torch.Generator().manual_seed(0)
    uses = torch.rand((4, 3), generator=generator, dtype=torch.float64)
    uses = uses / uses.sum(1, keepdim=True) * torch.tensor([[1.0], [0.7], [0.2], [0.5]])
    shares = LayerShares(torch.ones(1), torch.ones(1, 3), uses)
    # A multiplier is used or not, whatever the others are.
    used = 1 - (1 - uses).prod(0)
    mean = 0.0
    for outcome in product((False, True), repeat=3):
        weight = torch.where(torch.tensor(outcome), used, 1 - used).prod()
        periods = [float(p) for p, o in zip(latency.periods_ps, outcome, strict=True) if o]
        mean += float(weight) * max([latency.least_ps, *periods])
    assert float(latency.expected_period_ps(shares)) == pytest.approx(mean)


def test_relative_measures_are_one_for_uniform_alphas_and_the_exact_multiplier() -> None:
    net = supernet()
    space = costed(net)
    with torch.no_grad():
        for parameter in net.architecture_parameters():
            parameter.zero_()
        for betas in net.beta_parameters():
            betas[..., 0] = 1e4
    for kind in TERMS.values():
        measure = kind.measure(space, ALL_LINES)
        assert float(measure.relative(_shares(net, space))) == pytest.approx(1.0, rel=1e-6)


def test_only_multiplications_see_betas() -> None:
    net = smooth()
    space = costed(tiny())
    betas = net.beta_parameters()
    for name in LINES:
        value = EnergyMeasure.of(space, [name]).relative(space.use(net.all_choices()))
        gradients = torch.autograd.grad(value, betas, allow_unused=True)
        moved = any(g is not None and float(g.abs().max()) > 1e-12 for g in gradients)
        assert moved == (name == "multiplications")


def test_a_budget_grows_while_it_is_exceeded_and_never_below_zero() -> None:
    budget = Budget.of(0.5, 2.0, 0.1)
    assert float(budget.term(torch.tensor(0.5))) == pytest.approx(0.0, abs=1e-6)
    budget.ascend(torch.tensor(0.8))
    assert float(budget.multiplier) == pytest.approx(0.7)
    budget.ascend(torch.tensor(0.1))
    assert float(budget.multiplier) == 0.0


def test_memory_of_a_layer_by_hand() -> None:
    """A 1×1 convolution of 4 to 8 channels over 16 positions, on 8 rows and 8 columns."""
    layer = layer_records(torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1)), (4, 4, 4))[0]
    hardware = Hardware(
        array_rows=8, array_columns=8, on_chip_pj=1.0, off_chip_pj=10.0, on_chip_kib=0.1875
    )
    array = ArrayModel(hardware, FIGURES)
    assert LINES["on_chip_memory"](layer, array, 0.0) == (2 * 32 + 64 + 128) * 1e3
    assert LINES["off_chip_memory"](layer, array, 0.0) == 32 * 10e3
    narrow = replace(array, hardware=replace(hardware, on_chip_kib=0.18))
    assert LINES["off_chip_memory"](layer, narrow, 0.0) == (32 + 64 + 128) * 10e3
    # Two tiles of operands: sums of 19 bits leave and come back once.
    tall = replace(array, hardware=replace(hardware, array_rows=2))
    assert tall.sum_bits(4) == 19
    again = 2 * 128 * 19 / 8
    assert LINES["on_chip_memory"](layer, tall, 0.0) == (2 * 32 + 64 + 128 + again) * 1e3


def test_registers_and_additions_by_hand() -> None:
    hardware = Hardware(register_clock_fj=1.0, register_edge_fj=10.0)
    array = ArrayModel(hardware, FIGURES)
    assert array.register_fj(1) == (8 + 2 + 18 + 17) + (8 + 17) / 2 * 10
    assert array.addition_fj(9) == FIGURES.additions[20].energy_fj
    assert array.in_float32().register_fj(9) == (32 + 2 + 66 + 32) + 64 / 2 * 10
    assert array.period_ps(1000.0) == 1000.0 + 332.0
    staged = replace(array, hardware=replace(hardware, product_register=1))
    assert staged.period_ps(1000.0) == 1000.0
    assert staged.register_fj(1) == array.register_fj(1) + 16 + 80


def test_fp32_has_every_line_and_no_latency() -> None:
    layers = layer_records(Network(SPACE, GENOTYPE, arithmetic), SHAPE)
    costs = float_costs(layers, ARRAY)
    assert costs.latency_ms is None and set(costs.lines_nj) == set(LINES)
    macs = sum(layer.shape.macs for layer in layers)
    assert costs.lines_nj["multiplications"] == pytest.approx(macs * 90.0 * 1e-6)
    assert costs.lines_nj["accumulators"] == pytest.approx(macs * 900.0 * 1e-6)


def test_figures_survive_their_file(tmp_path: Path) -> None:
    assert read_array_figures(tmp_path) is None
    write_array_figures(FIGURES, tmp_path)
    assert read_array_figures(tmp_path) == FIGURES
    (tmp_path / "array.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="must hold the figures of an array, not lack"):
        read_array_figures(tmp_path)


def test_without_figures_accumulators_are_refused_and_the_rest_is_there() -> None:
    array = replace(ARRAY, figures=None)
    space = costed(tiny(), array=array)
    EnergyMeasure.of(space, ["multiplications", "registers", "off_chip_memory"])
    with pytest.raises(InputError, match="array.json must exist .* cosearch lut --force"):
        EnergyMeasure.of(space, ["accumulators"])
    with pytest.raises(InputError, match="array.json must exist"):
        LatencyMeasure.of(space)


def test_the_slowest_used_multiplier_sets_the_clock() -> None:
    layers = layer_records(Network(SPACE, GENOTYPE, arithmetic), SHAPE)
    space = costed(tiny())
    figures: ArrayFigures = FIGURES
    adder = figures.additions[32].delay_ps
    for slowest in (0, 1, 2):
        used = [space.candidates[2]] * (len(layers) - 1) + [space.candidates[slowest]]
        assert network_costs(layers, used, ARRAY).period_ps == DELAYS[slowest] + adder
