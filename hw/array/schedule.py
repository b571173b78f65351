"""How a convolution runs on a weight-stationary array: passes, clocks, what is moved.

Each group of a convolution is a matrix product: ``fan_in`` = C/groups·kH·kW operands (rows), its
``outputs`` = O/groups channels (columns), one position of the output a clock. A pass holds one tile
of weights while all positions stream; a fan-in that needs several passes gets its partial sums back
at the top of the array. Small groups share a pass, block-diagonally. Plain Python: a latency model
needs nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from ..errors import InputError


@dataclass(frozen=True)
class LayerShape:
    """A convolution as matrix products: per group (positions, fan_in) x (fan_in, outputs).

    positions: output height x width x images. A linear layer has one position an image.
    """

    groups: int
    fan_in: int
    outputs: int
    positions: int

    def __post_init__(self) -> None:
        for name in ("groups", "fan_in", "outputs", "positions"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} of a layer must be at least 1, not {getattr(self, name)}")

    @classmethod
    def convolution(cls, weight_shape: Sequence[int], groups: int, positions: int) -> "LayerShape":
        """From the shape (O, C / groups, kH, kW) of the weights."""
        outputs, channels, height, width = weight_shape
        return cls(groups, channels * height * width, outputs // groups, positions)

    @property
    def macs(self) -> int:
        return self.groups * self.fan_in * self.outputs * self.positions


@dataclass(frozen=True)
class Pass:
    """One tile of weights: some groups, and of each the same ranges of operands and outputs.

    Row ``g · len(fan_in) + i`` of the array gets operand ``fan_in[i]`` of group ``groups[g]``;
    column ``g · len(outputs) + j`` of the usable ones gives its output ``outputs[j]``. Units where
    the two groups differ, and rows and columns beyond, are not active.
    """

    groups: range
    fan_in: range
    outputs: range
    first: bool
    last: bool

    def operands(self) -> Iterator[tuple[int, int]]:
        """(group, operand) of each row used, from row 0 on."""
        return ((group, operand) for group in self.groups for operand in self.fan_in)

    def results(self) -> Iterator[tuple[int, int]]:
        """(group, output) of each column used."""
        return ((group, output) for group in self.groups for output in self.outputs)


@dataclass(frozen=True)
class ArraySchedule:
    """A layer on an array of ``rows`` x ``columns`` usable units.

    latency: ``ArrayDescription.latency`` of the array. memory_clocks: from a sum at the outputs to
    the same sum at the inputs as a partial sum, where the fan-in takes several passes.
    """

    rows: int
    columns: int
    layer: LayerShape
    latency: int
    memory_clocks: int = 1

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("columns", 1), ("latency", 1), ("memory_clocks", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")

    @property
    def groups_at_once(self) -> int:
        """Groups that share a pass: as many as fit beside each other, or one that is cut."""
        fit = min(self.rows // self.layer.fan_in, self.columns // self.layer.outputs)
        return max(1, min(fit, self.layer.groups))

    @property
    def group_tiles(self) -> int:
        return ceil(self.layer.groups / self.groups_at_once)

    @property
    def output_tiles(self) -> int:
        return ceil(self.layer.outputs / self.columns)

    @property
    def fan_in_tiles(self) -> int:
        return ceil(self.layer.fan_in / self.rows)

    @property
    def pass_count(self) -> int:
        return self.group_tiles * self.output_tiles * self.fan_in_tiles

    def passes(self) -> Iterator[Pass]:
        """In order: for each tile of groups, for each of outputs, for each of the fan-in."""
        layer = self.layer
        for groups in _cut(layer.groups, self.groups_at_once):
            for outputs in _cut(layer.outputs, self.columns):
                for fan_in in _cut(layer.fan_in, self.rows):
                    last = fan_in.stop == layer.fan_in
                    yield Pass(groups, fan_in, outputs, fan_in.start == 0, last)

    @property
    def period(self) -> int:
        """Clocks from a pass to the next: all positions, and the next tile's rows loaded."""
        return max(self.layer.positions, self.rows)

    @property
    def reentry_period(self) -> int:
        """Clocks to a next pass that needs this one's sums: the first must have come back."""
        return max(self.period, self.latency + self.memory_clocks)

    def swap_clocks(self) -> tuple[int, ...]:
        """The clock in which each pass's weights take over, from 0, the first row's load.

        The rows of a pass are loaded in order from the swap of the pass before on (those of the
        first from clock 0 on), one a clock; position i comes in at the swap's clock + 1 + i and its
        sums go out ``latency`` clocks later.
        """
        clocks, clock = [], self.rows
        for part in self.passes():
            clocks.append(clock)
            clock += self.period if part.last else self.reentry_period
        return tuple(clocks)

    @property
    def clocks(self) -> int:
        """From the first row's load to the last sum, both included; ``swap_clocks`` in closed form.

        rows + 1 + (passes - 1) periods + positions + latency.
        """
        chains = self.group_tiles * self.output_tiles
        between = chains * (self.fan_in_tiles - 1) * self.reentry_period
        between += (chains - 1) * self.period
        return self.rows + 1 + between + self.layer.positions + self.latency

    @property
    def utilisation(self) -> float:
        """Multiplications of the layer per unit and clock, at most 1."""
        return self.layer.macs / (self.rows * self.columns * self.clocks)


def layer_clocks(
    rows: int,
    columns: int,
    layer: LayerShape,
    *,
    product_register: bool = True,
    memory_clocks: int = 1,
) -> int:
    """Clocks of a layer on an array all of whose columns compute it."""
    latency = rows + columns - 1 + int(product_register)
    return ArraySchedule(rows, columns, layer, latency, memory_clocks).clocks


def _cut(count: int, size: int) -> Iterator[range]:
    """0 … count - 1 in pieces of at most ``size``."""
    return (range(start, min(start + size, count)) for start in range(0, count, size))
