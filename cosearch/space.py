"""The macro structure shared by the supernet and the found network: which cell stands where, how
wide.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cosearch.config import INSIDE_CELLS, EdgeOperations

__all__ = ["CellPlace", "SearchSpace"]

STEM_MULTIPLIER = 3


@dataclass(frozen=True)
class CellPlace:
    """One cell: its type, channels of its nodes and of its two inputs, and whether the cell before
    reduced.
    """

    cell_type: str
    channels: int
    inputs: tuple[int, int]
    after_reduction: bool

    @property
    def reduces(self) -> bool:
        return self.cell_type == "reduction"


@dataclass(frozen=True)
class SearchSpace:
    """`channels` of the first cell; reduction cells at one and two thirds of `cells` double them.

    A cell has `nodes` nodes, all of which it concatenates; `operations` are those an edge may
    choose, unless `by_edge` has a list of its own for it. Convolutions of the kinds in
    `approximated` have a choice of multipliers, the others are exact.
    """

    channels: int
    cells: int
    nodes: int
    operations: tuple[str, ...]
    image_channels: int
    classes: int
    approximated: tuple[str, ...] = INSIDE_CELLS
    by_edge: tuple[EdgeOperations, ...] = ()

    @property
    def stem_channels(self) -> int:
        return STEM_MULTIPLIER * self.channels

    @property
    def edges(self) -> int:
        return sum(2 + node for node in range(self.nodes))

    def edge_sources(self) -> Iterator[tuple[int, int]]:
        """(node, source) of each edge, in the order of the rows of alphas."""
        return ((node, source) for node in range(self.nodes) for source in range(node + 2))

    def edge_operations(self, cell_type: str, edge: int) -> tuple[str, ...]:
        """Those that an edge may choose, in the order of `operations`."""
        for entry in self.by_edge:
            if (entry.cell_type, entry.edge) == (cell_type, edge):
                return tuple(name for name in self.operations if name in entry.operations)
        return self.operations

    @property
    def places(self) -> tuple[CellPlace, ...]:
        places: list[CellPlace] = []
        before = (self.stem_channels, self.stem_channels)
        channels, after_reduction = self.channels, False
        for index in range(self.cells):
            reduces = index in {self.cells // 3, 2 * self.cells // 3}
            channels *= 2 if reduces else 1
            cell_type = "reduction" if reduces else "normal"
            places.append(CellPlace(cell_type, channels, before, after_reduction))
            before, after_reduction = (before[1], self.nodes * channels), reduces
        return tuple(places)

    def ordinal(self, cell: int) -> int:
        """How many cells of its type stand before a cell."""
        types = [place.cell_type for place in self.places]
        return types[:cell].count(types[cell])

    @property
    def output_channels(self) -> int:
        return self.nodes * self.places[-1].channels
