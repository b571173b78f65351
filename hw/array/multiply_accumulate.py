"""One unit of the systolic array: a held weight, a multiplier, an adder.

Weight-stationary, after H. T. Kung, "Why systolic architectures?", Computer 15(1), 1982: the weight
stays, activations pass to the right, partial sums pass down, one unit a clock.
"""

from collections.abc import Mapping

from amaranth.hdl import (
    Cat,
    Const,
    Elaboratable,
    Instance,
    Module,
    Mux,
    Shape,
    Signal,
    Value,
    signed,
    unsigned,
)
from amaranth.lib.wiring import Component, In, Out, Signature

from ..netlist import FALSE, TRUE, Netlist
from .description import ArrayDescription, ArrayMultiplier, ArrayTile

Netlists = Mapping[str, Netlist]
"""Gates of multipliers by name; without them a multiplier is an instance of its Verilog module."""


def unit_signature(array: ArrayDescription) -> Signature:
    """Ports of a unit; ``next_…`` are what came in one clock before, for its neighbour."""
    total = signed(array.accumulator_width)
    passed = passed_widths(array)
    return Signature(
        {
            "enable": In(1),
            **{name: In(width) for name, width in passed.items()},
            "weight": In(array.b_width),
            "active": In(1),
            "partial_sum": In(total),
            **{f"next_{name}": Out(width) for name, width in passed.items()},
            "sum": Out(total),
        }
    )


def passed_widths(array: ArrayDescription) -> dict[str, int]:
    """What units pass on to the right, and how many bits of it."""
    select = {"select": array.select_width} if array.select_width else {}
    return {"activation": array.a_width, "swap": 1, "load": 1, **select}


class MultiplyAccumulate(Component):  # type: ignore[misc] # Amaranth has no types
    """``sum`` = ``partial_sum`` + (multiplier of ``activation`` and the held weight), registered.

    Where ``enable`` is low nothing moves. ``load`` puts ``weight`` and ``active`` into the waiting
    register; ``swap`` hands the waiting register to the held one, which computes from the next
    clock on. A unit that is not active adds nothing, whatever its multiplier makes of zeros.
    ``activation``, ``select``, ``swap`` and ``load`` leave one clock later for the unit to the
    right. With a product register, ``partial_sum`` belongs to the activation of the clock before.

    Multipliers that are not selected, and that of an inactive unit, see the operand zero.
    """

    def __init__(
        self, array: ArrayDescription, tile: ArrayTile, netlists: Netlists | None = None
    ) -> None:
        self._array, self._tile, self._netlists = array, tile, netlists
        super().__init__(unit_signature(array))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.enable):
            for name in passed_widths(self._array):
                m.d.sync += getattr(self, f"next_{name}").eq(getattr(self, name))
        weight, active = self._weight_registers(m)
        product = self._product(m, weight, active)
        total = Signal(signed(self._array.accumulator_width), name="total")
        m.d.comb += total.eq(self.partial_sum + product)
        with m.If(self.enable):
            m.d.sync += self.sum.eq(total)
        return m

    def _weight_registers(self, m: Module) -> tuple[Signal, Signal]:
        """The held weight and whether it counts; the waiting ones are behind it."""
        width = self._array.b_width
        waiting_weight = Signal(width, name="waiting_weight")
        held_weight = Signal(width, name="held_weight")
        waiting_active = Signal(name="waiting_active")
        held_active = Signal(name="held_active")
        load_now, swap_now = Signal(name="load_now"), Signal(name="swap_now")
        m.d.comb += [load_now.eq(self.enable & self.load), swap_now.eq(self.enable & self.swap)]
        with m.If(load_now):
            m.d.sync += [waiting_weight.eq(self.weight), waiting_active.eq(self.active)]
        with m.If(swap_now):
            m.d.sync += [held_weight.eq(waiting_weight), held_active.eq(waiting_active)]
        return held_weight, held_active

    def _product(self, m: Module, weight: Signal, active: Signal) -> Signal:
        """The chosen product, zero where the unit is not active, behind its register if any."""
        counted = Signal(self._product_shape, name="counted_product")
        m.d.comb += counted.eq(Mux(active, self._chosen(m, weight, active), 0))
        if not self._array.product_register:
            return counted
        product = Signal(self._product_shape, name="product")
        with m.If(self.enable):
            m.d.sync += product.eq(counted)
        return product

    @property
    def _product_shape(self) -> Shape:
        """Holds the products of all multipliers of the tile."""
        multipliers = self._tile.multipliers
        width, signs = multipliers[0].p_width, {m.signed for m in multipliers}
        return (signed if True in signs else unsigned)(width + (len(signs) - 1))

    def _chosen(self, m: Module, weight: Signal, active: Signal) -> Signal:
        """The product of the selected multiplier."""
        selected = self._selected(m)
        products = [
            self._multiplied(m, index, weight, active, bit) for index, bit in enumerate(selected)
        ]
        chosen = products[-1]
        for index in reversed(range(len(products) - 1)):
            choice = Signal(self._product_shape, name=f"chosen_{index}")
            m.d.comb += choice.eq(Mux(selected[index], products[index], chosen))
            chosen = choice
        return chosen

    def _selected(self, m: Module) -> list[Signal | None]:
        """One bit a multiplier, None for the only one; values beyond the last mean the last."""
        count = len(self._tile.multipliers)
        if count == 1:
            return [None]
        bits: list[Signal | None] = []
        for index in range(count):
            bit = Signal(name=f"selected_{index}")
            value = Const(index, self._array.select_width)
            m.d.comb += bit.eq(self.select >= value if index == count - 1 else self.select == value)
            bits.append(bit)
        return bits

    def _multiplied(
        self, m: Module, index: int, weight: Signal, active: Signal, selected: Signal | None
    ) -> Signal:
        """The product of one multiplier, its activation held at zero while it is not needed."""
        multiplier = self._tile.multipliers[index]
        needed = active
        if selected is not None:
            needed = Signal(name=f"needed_{index}")
            m.d.comb += needed.eq(active & selected)
        operand = Signal(multiplier.a_width, name=f"operand_{index}")
        m.d.comb += operand.eq(self.activation & needed.replicate(multiplier.a_width))
        kind = signed if multiplier.signed else unsigned
        product = Signal(kind(multiplier.p_width), name=f"product_{index}")
        m.submodules[f"multiplier_{index}"] = self._circuit(multiplier, operand, weight, product)
        return product

    def _circuit(
        self, multiplier: ArrayMultiplier, a: Signal, b: Signal, p: Signal
    ) -> Elaboratable:
        if self._netlists is None:
            return Instance(multiplier.module, i_a=a, i_b=b, o_p=p)
        return _Gates(self._netlists[multiplier.name], a, b, p)


class _Gates(Elaboratable):  # type: ignore[misc] # Amaranth has no types
    """A netlist of generic gates between given signals, for simulation in Amaranth."""

    def __init__(self, netlist: Netlist, a: Signal, b: Signal, p: Signal) -> None:
        self._netlist, self._signals = netlist, (a, b, p)

    def elaborate(self, platform: object) -> Module:
        m, (a, b, p) = Module(), self._signals
        nets: dict[int, Value] = {FALSE: Const(0, 1), TRUE: Const(1, 1)}
        for port, signal in zip(self._netlist.inputs, (a, b), strict=True):
            nets.update((net, signal[bit]) for bit, net in enumerate(port.nets))
        for gate in self._netlist.gates:
            state = Cat(*(nets[net] for net in gate.inputs))
            for net, table in zip(gate.outputs, self._netlist.kinds[gate.kind].tables, strict=True):
                nets[net] = Signal(name=f"net_{net}")
                m.d.comb += nets[net].eq(Const(table, 1 << len(state)).bit_select(state, 1))
        m.d.comb += p.eq(Cat(*(nets[net] for net in self._netlist.outputs[0].nets)))
        return m
