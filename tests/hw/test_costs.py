"""Energy, timing and area against slow definitions, by hand where a hand suffices."""

import itertools

import numpy as np
import pytest

from hw import (
    CATALOGUE,
    Cost,
    Gate,
    InputError,
    Netlist,
    Port,
    build_multiplier,
    default_library,
    multiplier_cost,
    netlist_cost,
    operand_activity,
    parse_multiplier_name,
    static_timing,
    synthesise,
)
from hw.costs import arc_shares
from hw.simulation import all_nets, unpacked

LIBRARY = default_library()


LEAVING_OUT = [
    name
    for name in CATALOGUE
    if parse_multiplier_name(name).family.name in ("array", "truncated", "broken_array")
]
"""Designs that are nothing but fewer partial products in the same array."""


@pytest.fixture(scope="module")
def costs() -> dict[str, Cost]:
    return {name: multiplier_cost(build_multiplier(name)) for name in LEAVING_OUT}


def inverter_chain() -> Netlist:
    gates = (Gate("INVX1", (2,), (4,)), Gate("INVX2", (4,), (5,)))
    ports = (Port("a", (2,)), Port("b", (3,)))
    return Netlist("chain", ports, (Port("p", (5,)),), gates, kinds=LIBRARY.kinds)


def test_timing_by_hand() -> None:
    """INVX1 into 2.7 fF: 12 + 2.5·2.7 ps, slew 8 + 3.6·2.7; then INVX2: 19 + 0.14·(slew - 40)."""
    timing = static_timing(inverter_chain(), LIBRARY)
    first, slew = 12 + 2.5 * 2.7, 8 + 3.6 * 2.7
    assert timing.arrivals_ps[4].worst == pytest.approx(first)
    assert timing.slews_ps[4].mean == pytest.approx(slew)
    assert timing.delay_ps == pytest.approx(first + 19 + 0.14 * (slew - 40))


def test_energy_by_hand() -> None:
    """Nets of 1.5, 2.7 and 0 fF toggle half the time; the cells add 0.8 and 1.2 fJ an edge."""
    chain = inverter_chain()
    cost = netlist_cost(chain, LIBRARY, operand_activity(chain), clock_mhz=100.0)
    assert cost.switching_fj == pytest.approx(0.5 * (1.5 + 2.7) * 1.1**2 / 2)
    assert cost.internal_fj == pytest.approx(0.5 * (0.8 + 1.2))
    assert cost.leakage_nw == pytest.approx(1.7 + 6.1)
    assert cost.leakage_fj == pytest.approx(7.8 / 100)  # nW over MHz
    assert cost.energy_fj == pytest.approx(cost.switching_fj + cost.internal_fj + cost.leakage_fj)
    assert cost.area_um2 == pytest.approx(1.4079 + 1.8772)


def slow_energy(mapped: Netlist, weights: np.ndarray) -> tuple[float, float]:
    """Switching and internal energy by walking every pair of successive operand patterns."""
    timing = static_timing(mapped, LIBRARY)
    bits = {net: unpacked(words)[: weights.size] for net, words in all_nets(mapped).items()}
    switching = internal = 0.0
    for old, new in itertools.product(range(weights.size), repeat=2):
        probability = weights[old] * weights[new]
        if probability == 0:
            continue
        for net, load in timing.loads_ff.items():
            switching += probability * float(bits[net][old] != bits[net][new]) * load * 1.21 / 2
        for gate in mapped.gates:
            cell = LIBRARY.cells[gate.kind]
            changed = [
                pin for pin, net in enumerate(gate.inputs) if bits[net][old] != bits[net][new]
            ]
            for output, net in enumerate(gate.outputs):
                if bits[net][old] == bits[net][new]:
                    continue
                arcs = [arc for arc in cell.power if arc.output == output and arc.input in changed]
                for arc in arcs:
                    table = arc.rise if bits[net][new] else arc.fall
                    slew = timing.slews_ps[gate.inputs[arc.input or 0]].mean
                    energy = table.at(slew, timing.loads_ff[net])
                    internal += probability * energy / len(arcs)
    return switching, internal


@pytest.mark.parametrize("seed", [None, 1])
def test_energy_against_all_transitions(seed: int | None) -> None:
    mapped = synthesise(build_multiplier("mul2s_array").netlist, LIBRARY)
    generator = np.random.default_rng(seed)
    histograms = None if seed is None else [generator.random(4), generator.random(4)]
    cost = netlist_cost(mapped, LIBRARY, operand_activity(mapped, histograms))
    a, b = histograms or [np.ones(4), np.ones(4)]
    weights = np.outer(a / a.sum(), b / b.sum()).ravel()
    assert (cost.switching_fj, cost.internal_fj) == pytest.approx(slow_energy(mapped, weights))


def test_shares_charge_every_edge_once() -> None:
    for cell in LIBRARY.cells.values():
        states = np.arange(1 << len(cell.kind.inputs))
        for output, table in enumerate(cell.kind.tables):
            shares = [
                share
                for arc, share in zip(cell.power, arc_shares(cell), strict=True)
                if arc.output == output
            ]
            value = (table >> states.astype(object) & 1).astype(int)
            edges = value[:, None] != value[None, :]
            charged = sum((share.rise + share.fall for share in shares), np.zeros(edges.shape))
            assert np.allclose(charged, edges)


def test_histograms() -> None:
    multiplier = build_multiplier("mul8u_array")
    still = np.zeros(256)
    still[93] = 1
    cost = multiplier_cost(multiplier, a_probabilities=still, b_probabilities=still)
    assert cost.switching_fj == cost.internal_fj == 0
    assert cost.leakage_fj > 0
    uniform = multiplier_cost(multiplier)
    given = multiplier_cost(
        multiplier, a_probabilities=np.full(256, 7), b_probabilities=np.ones(256)
    )
    assert given.energy_fj == pytest.approx(uniform.energy_fj)
    assert uniform.activity == "uniform operands, successive pairs independent, zero delay"
    assert given.activity.startswith("given operand histograms")
    quiet = np.r_[np.ones(128), np.zeros(128)]
    assert multiplier_cost(multiplier, a_probabilities=quiet).energy_fj < uniform.energy_fj


@pytest.mark.parametrize("histogram", [np.ones(255), -np.ones(256), np.zeros(256), [np.nan] * 256])
def test_bad_histograms(histogram: object) -> None:
    with pytest.raises(InputError, match="histogram of operand 'a' must"):
        multiplier_cost(build_multiplier("mul8u_array"), a_probabilities=histogram)  # type: ignore[arg-type]


def test_bad_clock() -> None:
    with pytest.raises(InputError, match="clock must be above 0 MHz, not 0"):
        multiplier_cost(build_multiplier("mul2u_array"), clock_mhz=0)


def test_more_left_out_never_costs_more(costs: dict[str, Cost]) -> None:
    """Of two designs of one sign, the one that keeps fewer products has no more energy or area."""
    kept = {}
    for name in LEAVING_OUT:
        parsed = parse_multiplier_name(name)
        parameters = dict(parsed.named_parameters())
        rows, columns = parameters.get("h", 0), parameters.get("v", parameters.get("k", 0))
        pairs = itertools.product(range(8), repeat=2)
        kept[name] = {(i, j) for i, j in pairs if j >= rows and i + j >= columns}
    for more, less in itertools.permutations(LEAVING_OUT, 2):
        if more[:5] == less[:5] and kept[less] < kept[more]:
            assert costs[less].energy_fj < costs[more].energy_fj, (less, more)
            assert costs[less].area_um2 < costs[more].area_um2, (less, more)


@pytest.mark.parametrize("name", ["mul8s_array", "mul8u_array"])
def test_exact_multiplier_is_plausible(costs: dict[str, Cost], name: str) -> None:
    """Published exact 8×8 circuits at 45 nm: 710 to 730 µm², 1.43 to 1.48 ns (EvoApproxLib)."""
    cost = costs[name]
    assert 400 < cost.area_um2 < 800
    assert 1_000 < cost.delay_ps < 2_000
    assert 300 < cost.energy_fj < 1_500
    assert 0 < cost.leakage_fj < 0.05 * cost.energy_fj


def test_costs_add_and_travel_as_json(costs: dict[str, Cost]) -> None:
    first, second = costs["mul8s_array"], costs["mul8s_truncated_k6"]
    both = first + second
    assert both.energy_fj == first.energy_fj + second.energy_fj
    assert both.delay_ps == max(first.delay_ps, second.delay_ps)
    assert both.activity == first.activity
    assert Cost.from_json(first.to_json()) == first
    with pytest.raises(InputError, match="must be of one library and clock"):
        _ = first + multiplier_cost(build_multiplier("mul8s_array"), clock_mhz=1.0)


@pytest.mark.parametrize("broken", [{}, {"energy_fj": 1.0}, {"library": 3}])
def test_bad_json(costs: dict[str, Cost], broken: dict[str, object]) -> None:
    obj = {**costs["mul8s_array"].to_json(), **broken} if "library" in broken else broken
    with pytest.raises(InputError, match="a cost must have the fields energy_fj"):
        Cost.from_json(obj)
