"""Half and full adders from gates: one named one-bit signal a gate, one submodule an adder.

The classical forms: a half adder is XOR and AND; a full adder is two half adders and an OR. Those
that add a constant one exist because a signed product's correction constant is made of such ones.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out


class HalfAdder(Component):  # type: ignore[misc] # Amaranth has no types
    """a + b = 2·carry + total."""

    def __init__(self) -> None:
        super().__init__({"a": In(1), "b": In(1), "total": Out(1), "carry": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.total.eq(self.a ^ self.b)
        m.d.comb += self.carry.eq(self.a & self.b)
        return m


class HalfAdderPlusOne(Component):  # type: ignore[misc] # Amaranth has no types
    """a + b + 1 = 2·carry + total."""

    def __init__(self) -> None:
        super().__init__({"a": In(1), "b": In(1), "total": Out(1), "carry": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        differ = Signal()
        m.d.comb += differ.eq(self.a ^ self.b)
        m.d.comb += self.total.eq(~differ)
        m.d.comb += self.carry.eq(self.a | self.b)
        return m


class FullAdder(Component):  # type: ignore[misc] # Amaranth has no types
    """a + b + c = 2·carry + total."""

    def __init__(self) -> None:
        super().__init__({"a": In(1), "b": In(1), "c": In(1), "total": Out(1), "carry": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        either = Signal()
        both = Signal()
        passed = Signal()
        m.d.comb += either.eq(self.a ^ self.b)
        m.d.comb += both.eq(self.a & self.b)
        m.d.comb += passed.eq(either & self.c)
        m.d.comb += self.total.eq(either ^ self.c)
        m.d.comb += self.carry.eq(both | passed)
        return m
