"""A netlist refuses what is no circuit."""

import pytest

from hw import Gate, InputError, Netlist, Port, build_multiplier

A = Port("a", (2, 3))


def test_good_netlist_and_its_graph() -> None:
    netlist = Netlist(
        "ha", (A,), (Port("p", (4, 5)),), (Gate("xor", (2, 3), (4,)), Gate("and", (2, 3), (5,)))
    )
    graph = netlist.graph()
    assert netlist.net_count == 6
    assert netlist.gate_counts() == {"and": 1, "xor": 1}
    assert sorted(graph.predecessors("gate/0")) == ["input/a[0]", "input/a[1]"]
    assert graph.edges["gate/1", "output/p[1]"]["net"] == 5


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ((Gate("nxor", (2, 3), (4,)),), "gate kind in t must be one of .*; did you mean"),
        ((Gate("xor", (2,), (4,)),), "must have 2 inputs and 1 outputs, not 1 and 1"),
        ((Gate("xor", (2, 9), (4,)),), "must be a net driven before it, not net 9"),
        ((Gate("xor", (2, 4), (4,)),), "must be a net driven before it, not net 4"),
        ((Gate("not", (2,), (4,)), Gate("not", (3,), (4,))), "driven already"),
        ((Gate("not", (2,), (1,)),), "driven already"),
        ((), "output 'p' of t must be a net driven before it"),
    ],
)
def test_bad_gates(gates: tuple[Gate, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Netlist("t", (A,), (Port("p", (4,)),), gates)


def test_port_and_net_names_are_distinct() -> None:
    with pytest.raises(InputError, match="distinct names"):
        Netlist("t", (A,), (Port("a", (2,)),), ())
    gates = (Gate("not", (2,), (4,)), Gate("not", (3,), (5,)))
    with pytest.raises(InputError, match="net names of t must be distinct"):
        Netlist("t", (A,), (Port("p", (4,)),), gates, {4: "x", 5: "x"})


def test_unknown_port_names_the_nearest() -> None:
    netlist = build_multiplier("mul3u_array").netlist
    assert netlist.input("a").width == 3
    with pytest.raises(InputError, match="output of mul3u_array must be one of p, not 'q'"):
        netlist.output("q")


def test_array_multiplier_is_the_gates_meant() -> None:
    """64 products; 8 half and 48 full adders of 2 and 5 gates."""
    counts = build_multiplier("mul8u_array").netlist.gate_counts()
    assert counts == {"and": 64 + 8 + 2 * 48, "or": 48, "xor": 8 + 2 * 48}
