"""Activities against slow definitions: walks over states, and an event queue for real delays."""

import heapq
import itertools
from collections import Counter

import numpy as np
import pytest

from hw import (
    Activity,
    InputError,
    Netlist,
    Operands,
    build_multiplier,
    default_library,
    delayed_activity,
    flip_activity,
    mapped_cost,
    operand_stream,
    static_timing,
    stream_activity,
    synthesise,
)
from hw.activity import stream_bits
from hw.timing import arc_delays

LIBRARY = default_library()


@pytest.fixture(scope="module")
def small() -> Netlist:
    return synthesise(build_multiplier("mul3u_array").netlist, LIBRARY)


@pytest.fixture(scope="module")
def exact() -> Netlist:
    return synthesise(build_multiplier("mul8u_array").netlist, LIBRARY)


def walked(netlist: Netlist, steps: list[tuple[tuple[int, int], tuple[int, int]]]) -> list[Counter]:
    """Per gate, how often each change of its inputs happens; last, the toggles by net."""
    patterns = np.array(list(itertools.product(range(8), repeat=2)))
    bits = stream_bits(netlist, patterns)
    index = {tuple(pattern): i for i, pattern in enumerate(patterns.tolist())}
    counts: list[Counter] = [Counter() for _ in range(len(netlist.gates) + 1)]
    for old, new in steps:
        for gate, count in zip(netlist.gates, counts, strict=False):
            states = [
                sum(int(bits[net][index[at]]) << pin for pin, net in enumerate(gate.inputs))
                for at in (old, new)
            ]
            count[tuple(states)] += 1
        counts[-1].update(net for net in bits if bits[net][index[old]] != bits[net][index[new]])
    return counts


def assert_agrees(activity: Activity, counts: list[Counter], steps: int) -> None:
    for gate, count in zip(activity.gates, counts, strict=False):
        for (old, new), number in count.items():
            assert gate.changes[old, new] * steps == pytest.approx(number)
        assert gate.changes.sum() * steps == pytest.approx(sum(count.values()))
        assert gate.states.sum() == pytest.approx(1)
    for net, edges in activity.net_toggles.items():
        assert edges * steps == pytest.approx(counts[-1][net])


def test_flips(small: Netlist) -> None:
    pairs = itertools.product(range(8), repeat=2)
    steps = [
        ((a, b), ((a ^ 1 << bit) & 7, b) if bit < 3 else (a, (b ^ 1 << bit - 3) & 7))
        for (a, b), bit in itertools.product(pairs, range(6))
    ]
    activity = flip_activity(small)
    assert activity.model == "published-comparable"
    assert_agrees(activity, walked(small, steps), len(steps))


def test_stream(small: Netlist) -> None:
    stream = operand_stream(small, [None, np.arange(8)], length=200, seed=3)
    pairs = [tuple(pair) for pair in stream.tolist()]
    activity = stream_activity(small, stream)
    assert_agrees(activity, walked(small, list(itertools.pairwise(pairs))), len(pairs) - 1)
    assert activity.name == "recorded stream of 200 operand pairs, zero delay"


def queued_toggles(netlist: Netlist, stream: np.ndarray) -> Counter:
    """Edges by net from an event queue over the whole circuit, one operand pair after another."""
    timing = static_timing(netlist, LIBRARY)
    delays = {
        (g, output): arc_delays(gate, output, LIBRARY, timing)
        for g, gate in enumerate(netlist.gates)
        for output in range(len(gate.outputs))
    }
    bits = stream_bits(netlist, stream)
    toggles: Counter = Counter()
    for step in range(1, len(stream)):
        value = {net: int(values[step - 1]) for net, values in bits.items()}
        pending: dict[int, tuple[float, int]] = {}
        inputs = [net for port in netlist.inputs for net in port.nets]
        queue = [(0.0, net) for net in inputs if bits[net][step] != bits[net][step - 1]]
        while queue:
            now = queue[0][0]
            moved = set()
            while queue and queue[0][0] == now:
                _, net = heapq.heappop(queue)
                if net in inputs or pending.get(net, (None,))[0] == now:
                    pending.pop(net, None)
                    value[net] ^= 1
                    toggles[net] += 1
                    moved.add(net)
            for g, gate in enumerate(netlist.gates):
                pins = [pin for pin, net in enumerate(gate.inputs) if net in moved]
                if not pins:
                    continue
                state = sum(value[net] << pin for pin, net in enumerate(gate.inputs))
                for output, net in enumerate(gate.outputs):
                    target = netlist.kinds[gate.kind].tables[output] >> state & 1
                    if target == (pending[net][1] if net in pending else value[net]):
                        continue
                    if net in pending:
                        del pending[net]
                        continue
                    edges = [delays[g, output][pin] for pin in pins]
                    delay = max(edge.rise if target else edge.fall for edge in edges)
                    pending[net] = (now + delay, target)
                    heapq.heappush(queue, (now + delay, net))
        assert all(value[net] == values[step] for net, values in bits.items())
    return toggles


def test_real_delays_against_an_event_queue() -> None:
    mapped = synthesise(build_multiplier("mul4s_array").netlist, LIBRARY)
    stream = operand_stream(mapped, length=150, seed=1)
    activity = delayed_activity(mapped, LIBRARY, stream)
    toggles = queued_toggles(mapped, stream)
    for net, edges in activity.net_toggles.items():
        assert edges * 149 == pytest.approx(toggles[net])
    for gate, found in zip(mapped.gates, activity.gates, strict=True):
        for net, changes in zip(gate.outputs, found.output_changes, strict=True):
            assert changes.sum() * 149 == pytest.approx(toggles[net])


def test_glitches_cost_energy_and_every_cost_names_its_model(exact: Netlist) -> None:
    zero = mapped_cost(exact, LIBRARY)
    real = mapped_cost(exact, LIBRARY, model="workload real-delay")
    published = mapped_cost(exact, LIBRARY, model="published-comparable")
    assert 1.1 < real.energy_fj / zero.energy_fj < 1.9
    assert [cost.model for cost in (zero, real, published)] == [
        "workload zero-delay",
        "workload real-delay",
        "published-comparable",
    ]
    assert "65536 pairs of uniform operands, delays of cosearch45" in real.activity
    assert 0.2 < published.power_mw < 0.6  # published exact 8×8 circuits: 0.30 to 0.54 mW
    assert mapped_cost(
        exact, LIBRARY, model="published-comparable", clock_mhz=100.0
    ).power_mw == pytest.approx(published.power_mw)


def test_stream_of_independent_draws_costs_what_the_histogram_says(exact: Netlist) -> None:
    histogram = np.r_[np.full(64, 8), np.ones(192)]
    expected = mapped_cost(exact, LIBRARY, Operands(histogram, None))
    drawn = operand_stream(exact, [histogram, None])
    assert mapped_cost(exact, LIBRARY, Operands(stream=drawn)).energy_fj == pytest.approx(
        expected.energy_fj, rel=0.01
    )


def test_values_and_patterns_are_the_same_stream(small: Netlist) -> None:
    patterns = np.array([[7, 1], [2, 4], [6, 3], [0, 0]])
    values = np.array([[-1, 1], [2, -4], [-2, 3], [0, 0]])
    one, other = (stream_activity(small, stream) for stream in (patterns, values))
    assert one.net_toggles == other.net_toggles


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (np.zeros((1, 2), int), r"must be of shape \(at least 2, 2\), not \(1, 2\)"),
        (np.zeros((5, 3), int), r"must be of shape \(at least 2, 2\), not \(5, 3\)"),
        (np.zeros((5, 2)), "must be of integers, not float64"),
        (np.array([[0, 8], [0, 0]]), "operands 'b' of a stream must be -4 to 7, not 8"),
    ],
)
def test_bad_streams(small: Netlist, stream: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stream_activity(small, stream)


def test_contradictory_requests(small: Netlist) -> None:
    stream = np.zeros((4, 2), int)
    with pytest.raises(InputError, match="must be histograms or a stream, not both"):
        Operands(np.ones(8), None, stream)
    with pytest.raises(InputError, match="must be left out of the published-comparable"):
        mapped_cost(small, LIBRARY, Operands(stream=stream), model="published-comparable")
    with pytest.raises(InputError, match="energy model must be one of"):
        mapped_cost(small, LIBRARY, model="real")  # type: ignore[arg-type]
