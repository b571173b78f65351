"""Bit-parallel simulation against gate-by-gate evaluation of single patterns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import Gate, GateKind, InputError, Netlist, Port, build_multiplier, truth_table
from hw.netlist import GATE_KINDS
from hw.simulation import all_nets, unpacked


def plain_value(netlist: Netlist, a: int, b: int) -> int:
    """The slow, obvious twin: one pattern, one gate at a time, by its truth table."""
    nets = {0: 0, 1: 1}
    for port, value in zip(netlist.inputs, (a, b), strict=True):
        nets.update((net, value >> bit & 1) for bit, net in enumerate(port.nets))
    for gate in netlist.gates:
        state = sum(nets[net] << pin for pin, net in enumerate(gate.inputs))
        for net, table in zip(gate.outputs, netlist.kinds[gate.kind].tables, strict=True):
            nets[net] = table >> state & 1
    return sum(nets[net] << bit for bit, net in enumerate(netlist.outputs[0].nets))


@st.composite
def netlists(draw: st.DrawFn) -> Netlist:
    a_width, b_width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    first = 2 + a_width + b_width
    gates = []
    for net in range(first, first + draw(st.integers(1, 25))):
        kind = GATE_KINDS[draw(st.sampled_from(sorted(GATE_KINDS)))]
        inputs = tuple(draw(st.integers(0, net - 1)) for _ in kind.inputs)
        gates.append(Gate(kind.name, inputs, (net,)))
    outputs = draw(st.lists(st.integers(0, first + len(gates) - 1), min_size=1, max_size=6))
    ports = Port("a", tuple(range(2, 2 + a_width))), Port("b", tuple(range(2 + a_width, first)))
    return Netlist("random", ports, (Port("p", tuple(outputs)),), tuple(gates))


@given(netlists())
def test_random_netlists_against_single_patterns(netlist: Netlist) -> None:
    table = truth_table(netlist, signed=False)
    for a in range(table.shape[0]):
        for b in range(table.shape[1]):
            assert table[a, b] == plain_value(netlist, a, b)


@given(st.integers(1, 4), st.data())
def test_any_truth_table_is_simulated(inputs: int, data: st.DataObject) -> None:
    table = data.draw(st.integers(0, (1 << (1 << inputs)) - 1))
    kind = GateKind("any", tuple(f"i{n}" for n in range(inputs)), ("y",), (table,))
    nets = tuple(range(2, 2 + inputs))
    netlist = Netlist(
        "any", (Port("a", nets),), (), (Gate("any", nets, (9,)),), kinds={"any": kind}
    )
    bits = unpacked(all_nets(netlist)[9])[: 1 << inputs]
    assert bits.tolist() == [table >> state & 1 for state in range(1 << inputs)]


def test_signed_output_and_orientation() -> None:
    table = truth_table(build_multiplier("mul4x3s_array").netlist, signed=True)
    assert table.shape == (16, 8)
    assert table.dtype == np.int32
    assert table[0b1000, 0b011] == -8 * 3
    assert table[0b0111, 0b100] == 7 * -4


def test_too_wide_for_a_table() -> None:
    netlist = build_multiplier("mul13u_array").netlist
    with pytest.raises(InputError, match="must have at most 24 input bits, not 26"):
        truth_table(netlist, signed=False)


def test_not_two_operands() -> None:
    netlist = Netlist("wire", (Port("a", (2,)),), (Port("p", (2,)),), ())
    with pytest.raises(InputError, match="must have two input ports and one output port"):
        truth_table(netlist, signed=False)
