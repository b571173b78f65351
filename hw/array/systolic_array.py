"""The array: columns of multiply-accumulate units between delays that skew and straighten.

A position's activations enter together and its sums leave together; inside, row r runs r clocks and
column c c clocks late, by registers at the borders.
"""

from collections.abc import Callable, Mapping, Sequence

from amaranth.hdl import Cat, ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib.wiring import Component, In, Out, PureInterface, Signature

from .description import ArrayDescription, ArrayTile
from .multiply_accumulate import MultiplyAccumulate, Netlists, passed_widths, unit_signature

ARRAY_MODULE = "cosearch_systolic_array"


def delay_module(name: str) -> str:
    """The Verilog module that delays the array's signals of that name."""
    return f"cosearch_delay_{name}"


def unit_module(array: ArrayDescription, tile: int) -> str:
    """The Verilog module of the units of a tile; tiles are numbered where there are several."""
    return f"cosearch_multiply_accumulate{_suffix(array, tile)}"


def column_module(array: ArrayDescription, tile: int) -> str:
    """The Verilog module of the columns of a tile."""
    return f"cosearch_array_column{_suffix(array, tile)}"


def _suffix(array: ArrayDescription, tile: int) -> str:
    return f"_{tile}" if len(array.tiles) > 1 else ""


def delays(array: ArrayDescription) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Bits of a field, and the clocks by which each field is delayed, of everything that is."""
    rows, columns = tuple(range(array.rows)), tuple(range(array.columns))
    late = tuple(clocks + array.product_register for clocks in columns)
    select = {"select": (array.select_width, rows)} if array.select_width else {}
    found = {
        "activations": (array.a_width, rows),
        "swap": (1, rows),
        **select,
        "weights": (array.b_width, columns),
        "active": (1, columns),
        "partial_sums": (array.accumulator_width, late),
        "sums": (array.accumulator_width, columns[::-1]),
        "valid": (1, (array.latency,)),
    }
    return {name: delay for name, delay in found.items() if any(delay[1])}


class Delay(Component):  # type: ignore[misc] # Amaranth has no types
    """Field i of ``delayed`` is field i of ``direct``, ``clocks[i]`` enabled clocks later."""

    def __init__(self, width: int, clocks: Sequence[int]) -> None:
        self._width, self._clocks = width, tuple(clocks)
        super().__init__(delay_signature(width, len(self._clocks)))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = []
        for index, clocks in enumerate(self._clocks):
            value = self.direct.word_select(index, self._width)
            for clock in range(1, clocks + 1):
                register = Signal(self._width, name=f"field_{index}_clock_{clock}")
                with m.If(self.enable):
                    m.d.sync += register.eq(value)
                value = register
            fields.append(value)
        m.d.comb += self.delayed.eq(Cat(*fields))
        return m


def delay_signature(width: int, fields: int) -> Signature:
    """Ports of a delay; field 0 in the lowest bits."""
    return Signature(
        {"enable": In(1), "direct": In(width * fields), "delayed": Out(width * fields)}
    )


class Column(Component):  # type: ignore[misc] # Amaranth has no types
    """All rows of one column: ``weight`` and ``active`` reach every unit, sums pass down."""

    def __init__(
        self, array: ArrayDescription, tile: ArrayTile, netlists: Netlists | None, unit: str
    ) -> None:
        self._array, self._tile, self._netlists, self._unit = array, tile, netlists, unit
        super().__init__(column_signature(array))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        above: Value = self.partial_sum
        passed = passed_widths(self._array)
        rows = [self._row(m, row) for row in range(self._array.rows)]
        for row, ports in enumerate(rows):
            for name in ("enable", "weight", "active"):
                m.d.comb += getattr(ports, name).eq(getattr(self, name))
            for name, width in passed.items():
                m.d.comb += getattr(ports, name).eq(getattr(self, name).word_select(row, width))
            m.d.comb += ports.partial_sum.eq(above)
            above = ports.sum
        for name in passed:
            following = Cat(*(getattr(ports, f"next_{name}") for ports in rows))
            m.d.comb += getattr(self, f"next_{name}").eq(following)
        m.d.comb += self.sum.eq(above)
        return m

    def _row(self, m: Module, row: int) -> PureInterface:
        def unit() -> Component:
            return MultiplyAccumulate(self._array, self._tile, self._netlists)

        module = self._unit if self._netlists is None else None
        return _placed(m, f"row_{row}", unit_signature(self._array), unit, module)


def column_signature(array: ArrayDescription) -> Signature:
    """Ports of a column: those of a unit, what is passed on for all rows, row 0 lowest."""
    passed = passed_widths(array)
    unit = dict(unit_signature(array).members.items())
    for name, width in passed.items():
        unit[name], unit[f"next_{name}"] = In(width * array.rows), Out(width * array.rows)
    return Signature(unit)


class SystolicArray(Component):  # type: ignore[misc] # Amaranth has no types
    """A weight-stationary array of any multipliers.

    ``activations``, ``partial_sums`` and ``valid`` of a clock come out as ``sums`` and
    ``sums_valid`` ``latency`` clocks later: sums[c] = partial_sums[c] + Σ_r multiplier(
    activations[r], weight[r, c]) over the active units of column c. ``load`` writes ``weights``
    and ``active`` into the waiting registers of row ``load_row``; ``swap`` makes the waiting
    weights those of the positions from the next clock on. ``enable`` low: nothing moves. A reset
    clears every register, so that no unit is active. Vectors hold field 0 in their lowest bits.

    With ``netlists`` (gates by multiplier name) the array can be simulated in Amaranth; without,
    multipliers, units, columns and delays are instances of their Verilog modules.
    """

    def __init__(self, array: ArrayDescription, netlists: Netlists | None = None) -> None:
        self._array, self._netlists = array, netlists
        select = {"select": In(array.select_width)} if array.select_width else {}
        sums = array.accumulator_width * array.columns
        super().__init__(
            {
                "enable": In(1),
                "load": In(1),
                "load_row": In(max(1, (array.rows - 1).bit_length())),
                "weights": In(array.b_width * array.columns),
                "active": In(array.columns),
                "swap": In(1),
                **select,
                "valid": In(1),
                "activations": In(array.a_width * array.rows),
                "partial_sums": In(sums),
                "sums_valid": Out(1),
                "sums": Out(sums),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        passed = {
            "activation": self._delayed(m, "activations", self.activations),
            "swap": self._delayed(m, "swap", self.swap.replicate(self._array.rows)),
            "load": self._row_loads(m),
        }
        if self._array.select_width:
            copies = self.select.replicate(self._array.rows)
            passed["select"] = self._delayed(m, "select", copies)
        above = {name: self._delayed(m, name, getattr(self, name)) for name in _FROM_ABOVE}
        below = self._columns(m, passed, above)
        m.d.comb += [
            self.sums.eq(self._delayed(m, "sums", below)),
            self.sums_valid.eq(self._delayed(m, "valid", self.valid)),
        ]
        return m

    def _delayed(self, m: Module, name: str, value: Value) -> Value:
        """The fields of ``value`` as many clocks later as ``delays`` says."""
        if name not in delays(self._array):
            return value
        width, clocks = delays(self._array)[name]
        module = delay_module(name) if self._netlists is None else None
        signature = delay_signature(width, len(clocks))
        ports = _placed(m, f"delay_{name}", signature, lambda: Delay(width, clocks), module)
        m.d.comb += [ports.enable.eq(self.enable), ports.direct.eq(value)]
        return ports.delayed

    def _row_loads(self, m: Module) -> Value:
        """One bit a row: whether that row takes the weights of this clock."""
        bits = []
        for row in range(self._array.rows):
            meant, bit = Signal(name=f"row_{row}_meant"), Signal(name=f"row_{row}_load")
            m.d.comb += [meant.eq(self.load_row == row), bit.eq(self.load & meant)]
            bits.append(bit)
        return Cat(*bits)

    def _columns(self, m: Module, passed: Mapping[str, Value], above: Mapping[str, Value]) -> Value:
        """Columns from left to right, each fed by its left neighbour; their sums side by side."""
        array, sums = self._array, []
        tiles = [i for i, tile in enumerate(array.tiles) for _ in range(tile.columns)]
        for column, tile in enumerate(tiles):
            ports = self._column(m, column, tile)
            weights, active, partial_sums = (above[name] for name in _FROM_ABOVE)
            m.d.comb += [
                ports.enable.eq(self.enable),
                ports.weight.eq(weights.word_select(column, array.b_width)),
                ports.active.eq(active[column]),
                ports.partial_sum.eq(partial_sums.word_select(column, array.accumulator_width)),
                *(getattr(ports, name).eq(value) for name, value in passed.items()),
            ]
            passed = {name: getattr(ports, f"next_{name}") for name in passed}
            sums.append(ports.sum)
        return Cat(*sums)

    def _column(self, m: Module, column: int, tile: int) -> PureInterface:
        array, netlists = self._array, self._netlists
        unit, module = unit_module(array, tile), column_module(array, tile)

        def build() -> Component:
            return Column(array, array.tiles[tile], netlists, unit)

        name = f"column_{column}"
        place = module if netlists is None else None
        return _placed(m, name, column_signature(array), build, place)


_FROM_ABOVE = ("weights", "active", "partial_sums")


def _placed(
    m: Module,
    name: str,
    signature: Signature,
    build: Callable[[], Component],
    module: str | None,
) -> PureInterface:
    """Put a component into ``m`` and give signals for its ports, named after ``name``.

    With a module name it is an instance of that Verilog module, otherwise the component itself.
    """
    ports = signature.create(path=(name,))
    if module is not None:
        directions = {
            f"{'i' if port.flow is In else 'o'}_{member}": getattr(ports, member)
            for member, port in signature.members.items()
        }
        m.submodules[name] = Instance(
            module, i_clk=ClockSignal(), i_rst=ResetSignal(), **directions
        )
        return ports
    component = build()
    m.submodules[name] = component
    for member, port in signature.members.items():
        inner, outer = getattr(component, member), getattr(ports, member)
        m.d.comb += inner.eq(outer) if port.flow is In else outer.eq(inner)
    return ports
