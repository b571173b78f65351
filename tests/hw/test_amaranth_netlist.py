"""A user's own Amaranth component takes the same road as the built-in families."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from hw import InputError, build_multiplier, netlist_from_component, truth_table, verilog


class Product(Component):
    """Written with operators and statements, not gates; members in an order of their own."""

    z: Out(9)
    y: In(4)
    x: In(5)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.y == 0):
            m.d.comb += self.z.eq(0)
        with m.Else():
            m.d.comb += self.z.eq(self.x * self.y)
        return m


class Register(Component):
    d: In(1)
    q: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.q.eq(self.d)
        return m


def test_operators_become_gates() -> None:
    netlist = netlist_from_component(Product(), "product")
    assert [port.name for port in netlist.inputs] == ["y", "x"]
    expected = np.outer(np.arange(16), np.arange(32))
    assert np.array_equal(truth_table(netlist, signed=False), expected)


def test_a_register_is_refused() -> None:
    with pytest.raises(InputError):
        netlist_from_component(Register(), "register")


def test_same_netlist_every_time() -> None:
    component = build_multiplier("mul6s_truncated_k4").component
    first, second = (netlist_from_component(component(), "m") for _ in range(2))
    assert first == second
    assert verilog(first) == verilog(second)
