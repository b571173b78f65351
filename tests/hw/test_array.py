"""The systolic array in Amaranth's simulator against sums of table entries, and its schedule."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.sim import Simulator
from numpy.typing import NDArray

from hw import Gate, GateKind, InputError, Netlist, Port, build_multiplier, truth_table
from hw.array import (
    ArrayDescription,
    ArrayMultiplier,
    ArraySchedule,
    ArrayTile,
    LayerShape,
    MultiplyAccumulate,
    SystolicArray,
    layer_clocks,
    module_name,
)

Table = NDArray[np.int64]


def random_circuit(name: str, a_width: int, b_width: int, seed: int) -> Netlist:
    """One gate that is the whole table: products without any structure, of zeros too."""
    inputs, outputs = a_width + b_width, a_width + b_width
    generator = np.random.default_rng(seed)
    tables = [
        int(bits)
        for bits in generator.integers(0, 2, (outputs, 1 << inputs))
        @ (1 << np.arange(1 << inputs, dtype=object))
    ]
    pins, results = tuple(f"i{k}" for k in range(inputs)), tuple(f"o{k}" for k in range(outputs))
    nets = tuple(range(2, 2 + inputs + outputs))
    ports = (Port("a", nets[:a_width]), Port("b", nets[a_width:inputs]))
    gate = Gate("table", nets[:inputs], nets[inputs:])
    kinds = {"table": GateKind("table", pins, results, tuple(tables))}
    return Netlist(name, ports, (Port("p", nets[inputs:]),), (gate,), {}, kinds)


A_WIDTH, B_WIDTH = 3, 2
CIRCUITS = {
    f"random_{seed}": random_circuit(f"random_{seed}", A_WIDTH, B_WIDTH, seed) for seed in range(3)
}
SIGNED = {"random_0": True, "random_1": False, "random_2": True}
MULTIPLIERS = {name: ArrayMultiplier(name, A_WIDTH, B_WIDTH, SIGNED[name]) for name in CIRCUITS}
TABLES: Mapping[str, Table] = {
    name: truth_table(circuit, SIGNED[name]).astype(np.int64) for name, circuit in CIRCUITS.items()
}


@dataclass
class Clock:
    """The inputs of one clock; what is not given is idle."""

    load: tuple[int, Sequence[int], Sequence[int]] | None = None
    swap: bool = False
    activations: Sequence[int] | None = None
    partial_sums: Sequence[int] | None = None
    select: int = 0
    enable: bool = True
    reset: bool = False


@dataclass
class Player:
    """Plays clocks into an array and collects (clock, sums) of every valid clock."""

    array: ArrayDescription
    results: list[tuple[int, list[int]]] = field(default_factory=list)

    def play(self, clocks: Iterator[Clock]) -> list[tuple[int, list[int]]]:
        design = SystolicArray(self.array, CIRCUITS)
        simulator = Simulator(design)
        simulator.add_clock(1e-6)

        async def bench(context: object) -> None:
            for number, clock in enumerate(clocks):
                self._drive(context, design, clock)
                if context.get(design.sums_valid) and clock.enable:
                    sums = context.get(design.sums)
                    self.results.append((number, self._integers(sums)))
                await context.tick()

        simulator.add_testbench(bench)
        simulator.run()
        return self.results

    def _drive(self, context: object, design: SystolicArray, clock: Clock) -> None:
        array = self.array
        row, weights, active = clock.load or (0, [], [])
        values = {
            "enable": clock.enable,
            "load": clock.load is not None,
            "load_row": row,
            "weights": _packed(weights, array.b_width),
            "active": _packed(active, 1),
            "swap": clock.swap,
            "valid": clock.activations is not None,
            "activations": _packed(clock.activations or [], array.a_width),
            "partial_sums": _packed(clock.partial_sums or [], array.accumulator_width),
        }
        for name, value in values.items():
            context.set(getattr(design, name), int(value))
        if array.select_width:
            context.set(design.select, clock.select)

    def _integers(self, sums: int) -> list[int]:
        width = self.array.accumulator_width
        fields = [sums >> width * c & (1 << width) - 1 for c in range(self.array.columns)]
        return [value - (value >> width - 1 << width) for value in fields]


def _packed(values: Sequence[int], width: int) -> int:
    return sum((int(v) & (1 << width) - 1) << width * i for i, v in enumerate(values))


def uniform(rows: int, columns: int, *names: str, register: bool = True) -> ArrayDescription:
    chosen = [MULTIPLIERS[name] for name in names or ["random_0"]]
    return ArrayDescription.uniform(
        rows, columns, chosen, accumulator_width=20, product_register=register
    )


def run_layer(
    array: ArrayDescription, layer: LayerShape, name: str, seed: int = 0
) -> tuple[Table, Table, int]:
    """Sums (groups·outputs, positions) of a random layer by the array and by its table, clocks."""
    generator = np.random.default_rng(seed)
    usable = array.columns_with(name)
    schedule = ArraySchedule(array.rows, len(usable), layer, array.latency)
    operands = generator.integers(0, 1 << A_WIDTH, (layer.groups, layer.fan_in, layer.positions))
    weights = generator.integers(0, 1 << B_WIDTH, (layer.groups, layer.outputs, layer.fan_in))
    expected = TABLES[name][operands[:, None], weights[..., None]].sum(axis=2)
    passes, swaps = list(schedule.passes()), schedule.swap_clocks()
    found = np.zeros((layer.groups, layer.outputs, layer.positions), np.int64)
    player = Player(array)

    def clocks() -> Iterator[Clock]:
        stream = {
            swap + 1 + position: (index, position)
            for index, swap in enumerate(swaps)
            for position in range(layer.positions)
        }
        loads = {
            start + row: (index, row)
            for index, start in enumerate([0, *swaps[:-1]])
            for row in range(array.rows)
        }
        for number in range(schedule.clocks):
            memory = dict(player.results)  # what has come out before this clock
            clock = Clock(swap=number in swaps, select=array.select_value(name))
            if number in loads:
                index, row = loads[number]
                clock.load = (row, *_row(array, passes[index], row, weights, usable))
            if number in stream:
                index, position = stream[number]
                clock.activations = [
                    operands[group, operand, position]
                    for group, operand in passes[index].operands()
                ]
                if not passes[index].first:
                    earlier = swaps[index - 1] + 1 + position + array.latency
                    assert earlier < number
                    clock.partial_sums = memory[earlier]
            yield clock

    results = dict(player.play(clocks()))
    for index, part in enumerate(passes):
        for position in range(layer.positions) if part.last else []:
            sums = results[swaps[index] + 1 + position + array.latency]
            for column, (group, output) in enumerate(part.results()):
                found[group, output, position] = sums[usable[column]]
    assert len(results) == len(passes) * layer.positions
    return found, expected, max(results) + 1


def _row(
    array: ArrayDescription, part: object, row: int, weights: Table, usable: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Weights and active bits of one row."""
    values, active = [0] * array.columns, [0] * array.columns
    operands = list(part.operands())
    if row < len(operands):
        for column, (group, output) in enumerate(part.results()):
            if group == operands[row][0]:
                values[usable[column]] = weights[group, output, operands[row][1]]
                active[usable[column]] = 1
    return values, active


SHAPES = [
    (3, 2, LayerShape(1, 3, 2, 5), True),
    (3, 2, LayerShape(1, 7, 5, 6), True),  # padded rows and columns, three re-entries
    (4, 3, LayerShape(1, 9, 4, 2), False),  # fewer positions than rows and than the latency
    (2, 5, LayerShape(1, 4, 11, 2), True),  # as many positions as rows: no clock between tiles
    (4, 4, LayerShape(5, 2, 2, 4), True),  # two groups at once, one left over
    (2, 3, LayerShape(3, 5, 1, 4), False),  # depthwise, its fan-in cut
    (1, 1, LayerShape(2, 2, 2, 3), True),
    (1, 4, LayerShape(1, 3, 2, 3), False),
    (5, 1, LayerShape(1, 6, 2, 1), True),
]


@pytest.mark.parametrize(("rows", "columns", "layer", "register"), SHAPES)
def test_sums_are_those_of_the_table(
    rows: int, columns: int, layer: LayerShape, register: bool
) -> None:
    array = uniform(rows, columns, register=register)
    found, expected, clocks = run_layer(array, layer, "random_0")
    assert np.array_equal(found, expected)
    schedule = ArraySchedule(rows, columns, layer, array.latency)
    assert clocks == schedule.clocks
    assert clocks == layer_clocks(rows, columns, layer, product_register=register)
    assert array.latency == rows + columns - 1 + register


@pytest.mark.parametrize("name", CIRCUITS)
def test_every_multiplier_of_an_array_that_switches(name: str) -> None:
    array = uniform(3, 2, *CIRCUITS)
    assert array.select_width == 2
    found, expected, _ = run_layer(array, LayerShape(1, 4, 3, 4), name)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", CIRCUITS)
def test_tiles_with_multipliers_of_their_own(name: str) -> None:
    tiles = (
        ArrayTile(2, (MULTIPLIERS["random_0"],)),
        ArrayTile(3, (MULTIPLIERS["random_1"], MULTIPLIERS["random_2"])),
    )
    array = ArrayDescription(3, tiles, accumulator_width=20)
    columns = {"random_0": (0, 1), "random_1": (2, 3, 4), "random_2": (2, 3, 4)}
    assert array.columns_with(name) == columns[name]
    found, expected, _ = run_layer(array, LayerShape(1, 5, 4, 4), name)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("register", [False, True])
@pytest.mark.parametrize("name", ["mul3s_array", "mul4x3u_truncated_constant_k3", "random_2"])
def test_unit_over_all_operand_pairs(name: str, register: bool) -> None:
    """Gates in the unit, one pair a clock, the partial sum changing with each."""
    circuit = CIRCUITS[name] if name in CIRCUITS else build_multiplier(name).netlist
    a_width, b_width = (port.width for port in circuit.inputs)
    signed = "u_" not in name
    table = truth_table(circuit, signed)
    multiplier = ArrayMultiplier(name, a_width, b_width, signed)
    array = ArrayDescription.uniform(
        1, 1, [multiplier], accumulator_width=16, product_register=register
    )
    unit = MultiplyAccumulate(array, array.tiles[0], {name: circuit})
    seen = set()

    async def hold(context: object, weight: int) -> None:
        for values in ({"load": 1, "weight": weight, "active": 1}, {"load": 0, "swap": 1}):
            for port, value in values.items():
                context.set(getattr(unit, port), value)
            await context.tick()
        context.set(unit.swap, 0)

    async def bench(context: object) -> None:
        context.set(unit.enable, 1)
        for b in range(1 << b_width):
            await hold(context, b)
            for a in range(1 << a_width):
                context.set(unit.activation, a)
                context.set(unit.partial_sum, 100 * a - 300)
                await context.tick().repeat(1 + register)
                assert context.get(unit.sum) == 100 * a - 300 + table[a, b]
                seen.add((a, b))

    _simulate(unit, bench)
    assert len(seen) == 1 << (a_width + b_width)


def _simulate(design: object, bench: Callable[..., object]) -> None:
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def small_matmul(weights: Table, activations: Table, names: Sequence[str]) -> list[list[int]]:
    """Sums by position; `names` says which multiplier each position takes."""
    return [
        TABLES[name][row[:, None], weights].sum(axis=0).tolist()
        for row, name in zip(activations, names, strict=True)
    ]


def loaded(weights: Table) -> list[Clock]:
    """Weights into the waiting registers, then a swap."""
    columns = weights.shape[1]
    loads = [Clock(load=(row, list(values), [1] * columns)) for row, values in enumerate(weights)]
    return [*loads, Clock(swap=True)]


def test_select_switches_between_neighbouring_positions() -> None:
    generator = np.random.default_rng(1)
    weights = generator.integers(0, 4, (3, 2))
    activations = generator.integers(0, 8, (9, 3))
    names = [f"random_{n}" for n in (0, 1, 2, 2, 1, 0, 0, 2, 1)]
    array = uniform(3, 2, *CIRCUITS)
    clocks = [
        *loaded(weights),
        *(
            Clock(activations=list(row), select=array.select_value(name))
            for row, name in zip(activations, names, strict=True)
        ),
        *[Clock()] * 8,
    ]
    results = Player(array).play(iter(clocks))
    assert [sums for _, sums in results] == small_matmul(weights, activations, names)


def test_select_beyond_the_last_multiplier_means_the_last() -> None:
    weights, activations = np.array([[1], [3]]), np.array([[5, 2]])
    array = uniform(2, 1, *CIRCUITS)
    clocks = [*loaded(weights), Clock(activations=[5, 2], select=3), *[Clock()] * 6]
    results = Player(array).play(iter(clocks))
    assert [sums for _, sums in results] == small_matmul(weights, activations, ["random_2"])


def test_nothing_moves_while_not_enabled() -> None:
    generator = np.random.default_rng(2)
    weights = generator.integers(0, 4, (3, 3))
    activations = generator.integers(0, 8, (7, 3))
    names = ["random_0"] * 7
    moving = [
        *loaded(weights),
        *loaded(3 - weights)[:-1],  # wait, and must go on waiting
        *(Clock(activations=list(row)) for row in activations),
        *[Clock()] * 8,
    ]
    junk = Clock(load=(1, [2, 2, 2], [1, 1, 1]), swap=True, activations=[7, 7, 7], enable=False)
    stalled = [clock for step in moving for clock in [*[junk] * generator.integers(0, 3), step]]
    for clocks in (moving, stalled):
        results = Player(uniform(3, 3)).play(iter(clocks))
        assert [sums for _, sums in results] == small_matmul(weights, activations, names)


def test_next_weights_load_while_the_last_positions_pass() -> None:
    """A swap in the clock of the last position; loads of the tile after begin in that clock."""
    generator = np.random.default_rng(3)
    tiles = generator.integers(0, 4, (4, 3, 2))
    activations = generator.integers(0, 8, (4, 3, 3))
    clocks = loaded(tiles[0])[:-1]
    for index in range(5):
        for row in range(3):
            clock = Clock(swap=row == 0 and index < 4)
            if index + 1 < 4:
                clock.load = (row, list(tiles[index + 1, row]), [1, 1])
            if row == 0 and index > 0:
                clock.activations = list(activations[index - 1, 2])
            if row > 0 and index < 4:
                clock.activations = list(activations[index, row - 1])
            clocks.append(clock)
    results = Player(uniform(3, 2)).play(iter([*clocks, *[Clock()] * 6]))
    expected = [
        sums
        for weights, rows in zip(tiles, activations, strict=True)
        for sums in small_matmul(weights, rows, ["random_0"] * 3)
    ]
    assert [sums for _, sums in results] == expected


def test_a_row_may_load_until_the_swap_is_about_to_reach_it() -> None:
    """Row r in the clock r - 1 after the swap: the swap's wave comes one clock later."""
    generator = np.random.default_rng(4)
    weights, activations = generator.integers(0, 4, (4, 3)), generator.integers(0, 8, (5, 4))
    clocks = [
        Clock(load=(row, list(values), [1, 1, 1]), swap=row == 1)
        for row, values in enumerate(weights)
    ]
    for clock, row in zip(clocks[2:], activations, strict=False):
        clock.activations = list(row)
    clocks += [Clock(activations=list(row)) for row in activations[2:]]
    results = Player(uniform(4, 3)).play(iter([*clocks, *[Clock()] * 8]))
    assert [sums for _, sums in results] == small_matmul(weights, activations, ["random_0"] * 5)


def test_units_that_are_not_active_pass_partial_sums_on() -> None:
    """Products of zero are not zero here, so that nothing but the active bit can leave them out."""
    assert TABLES["random_0"][0, 0] != 0
    clocks = [
        Clock(load=(0, [0, 1], [0, 1])),
        Clock(load=(1, [0, 2], [0, 0])),
        Clock(swap=True),
        Clock(activations=[3, 4], partial_sums=[-77, 500]),
        *[Clock()] * 6,
    ]
    results = Player(uniform(2, 2)).play(iter(clocks))
    assert [sums for _, sums in results] == [[-77, 500 + TABLES["random_0"][3, 1]]]


def test_reset_drops_what_is_under_way_and_all_weights() -> None:
    array = uniform(2, 2)
    design = SystolicArray(array, CIRCUITS)
    player = Player(array)
    seen = []

    async def bench(context: object) -> None:
        for clock in [*loaded(np.array([[1, 2], [3, 0]])), Clock(activations=[5, 6])]:
            player._drive(context, design, clock)
            await context.tick()
        player._drive(context, design, Clock())
        context.set(reset.rst, 1)
        await context.tick()
        context.set(reset.rst, 0)
        for _ in range(6):
            assert not context.get(design.sums_valid)
            await context.tick()
        player._drive(context, design, Clock(activations=[5, 6], partial_sums=[9, -9]))
        await context.tick()
        player._drive(context, design, Clock())
        for _ in range(array.latency):
            seen.append(
                (context.get(design.sums_valid), player._integers(context.get(design.sums)))
            )
            await context.tick()

    from amaranth.hdl import ClockDomain, Module

    m, reset = Module(), ClockDomain("sync")
    m.domains.sync = reset
    m.submodules.array = design
    _simulate(m, bench)
    assert [valid for valid, _ in seen] == [0] * (array.latency - 1) + [1]
    assert seen[-1][1] == [9, -9]


@pytest.mark.parametrize("seed", range(40))
def test_schedule_computes_every_product_once(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows, columns = (int(n) for n in generator.integers(1, 9, 2))
    layer = LayerShape(*(int(n) for n in generator.integers(1, [6, 30, 12, 20])))
    register = bool(seed % 2)
    latency = rows + columns - 1 + register
    schedule = ArraySchedule(rows, columns, layer, latency)
    done: dict[tuple[int, int, int], int] = {}
    for part in schedule.passes():
        operands, results = list(part.operands()), list(part.results())
        assert len(operands) <= rows and len(results) <= columns
        for (group, operand), (other, output) in itertools.product(operands, results):
            if group == other:
                key = group, operand, output
                done[key] = done.get(key, 0) + 1
    ranges = map(range, (layer.groups, layer.fan_in, layer.outputs))
    assert done == dict.fromkeys(itertools.product(*ranges), 1)
    swaps = schedule.swap_clocks()
    assert len(swaps) == schedule.pass_count == len(list(schedule.passes()))
    assert schedule.clocks == swaps[-1] + layer.positions + latency + 1
    assert schedule.clocks == layer_clocks(rows, columns, layer, product_register=register)
    assert all(later - sooner >= rows for sooner, later in itertools.pairwise(swaps))
    assert 0 < schedule.utilisation <= 1


def test_shape_of_a_convolution() -> None:
    layer = LayerShape.convolution((12, 4, 3, 3), groups=2, positions=100)
    assert layer == LayerShape(groups=2, fan_in=36, outputs=6, positions=100)
    assert layer.macs == 12 * 36 * 100
    assert layer_clocks(16, 16, LayerShape(1, 32, 32, 1000)) == 16 + 1 + 3 * 1000 + 1000 + 32


def test_bounds_of_the_accumulator() -> None:
    signed, unsigned = (ArrayMultiplier(f"m{sign}", 8, 8, sign) for sign in (True, False))
    array = ArrayDescription.uniform(2, 2, [signed, unsigned])
    assert array.largest_fan_in("mTrue") == ((1 << 31) - 1) // (1 << 15)
    assert array.largest_fan_in("mFalse") == ((1 << 31) - 1) // 65_535


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(0, 2), "rows of an array must be at least 1, not 0"),
        (lambda: uniform(2, 0), "a tile must have at least 1 column, not 0"),
        (lambda: ArrayDescription(2, ()), "tiles of an array must be at least 1, not 0"),
        (lambda: ArrayTile(1, ()), "multipliers of a tile must be one or several distinct, not []"),
        (
            lambda: ArrayDescription.uniform(
                2, 2, [ArrayMultiplier("x", 8, 8, True), ArrayMultiplier("y", 8, 4, True)]
            ),
            "operands of an array's multipliers must be equally wide, not [(8, 4), (8, 8)]",
        ),
        (
            lambda: ArrayDescription.uniform(
                2, 2, [ArrayMultiplier("x", 8, 8, True)], accumulator_width=12
            ),
            "accumulator_width must be 16 to 64 for x, not 12",
        ),
        (
            lambda: ArrayMultiplier("a b", 8, 8, True),
            "a multiplier's name must be letters, digits and underscores to name a Verilog module, "
            "not 'a b'",
        ),
        (
            lambda: ArrayMultiplier("x", 0, 8, True),
            "operands of x must be at least 1 bit wide, not 0 and 8",
        ),
        (
            lambda: uniform(2, 2).columns_with("random_7"),
            "multiplier of the array must be one of random_0, not 'random_7'; did you mean "
            "'random_0'?",
        ),
        (lambda: LayerShape(1, 0, 1, 1), "fan_in of a layer must be at least 1, not 0"),
        (
            lambda: ArraySchedule(2, 2, LayerShape(1, 1, 1, 1), 3, -1),
            "memory_clocks must be at least 0, not -1",
        ),
    ],
)
def test_what_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message


def test_schedule_needs_no_amaranth() -> None:
    code = (
        "import sys\nfrom hw.array import LayerShape, layer_clocks\n"
        "print(layer_clocks(8, 8, LayerShape(1, 8, 8, 1)), 'amaranth' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["26", "False"]


def test_module_names() -> None:
    assert module_name("mul8s_array") == "cosearch_mul8s_array"
    assert module_name("mul8u_array_sign_magnitude") == "cosearch_mul8u_array_signed"
