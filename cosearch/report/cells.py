"""A cell drawn as a directed graph, from its two inputs on the left to its output on the right.

Every edge into a node has a lane and a box of its own (operation, multiplier), so that neither
boxes nor labels can overlap whatever the genotype is: nodes stand between the lanes of their edges.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from cosearch.genotype import CellGenotype, Gene, MultiplierChoice

from . import svg

LANE = 62.0
INPUT_WIDTH = 186.0
BOX_WIDTH, BOX_HEIGHT = 186.0, 46.0
OUTPUT_WIDTH = 104.0
BEND = 54.0
RADIUS = 17.0
COLUMN = BEND + BOX_WIDTH + 34 + 2 * RADIUS
TOP = 14.0


@dataclass(frozen=True)
class Layout:
    """Where the parts of a cell stand."""

    cell: CellGenotype

    @property
    def lanes(self) -> int:
        return max(2, sum(len(genes) for genes in self.cell.nodes))

    @property
    def height(self) -> float:
        return TOP + self.lanes * LANE + 10

    @property
    def width(self) -> float:
        return INPUT_WIDTH + len(self.cell.nodes) * COLUMN + BEND + OUTPUT_WIDTH

    def lane(self, node: int, gene: int) -> float:
        """The middle of the lane of ``gene`` of ``node``."""
        before = sum(len(genes) for genes in self.cell.nodes[:node])
        return TOP + (before + gene + 0.5) * LANE

    def box_x(self, node: int) -> float:
        """The left edge of the boxes of ``node``."""
        return INPUT_WIDTH + node * COLUMN + BEND

    def node_at(self, node: int) -> tuple[float, float]:
        """The centre of ``node``, between its lanes."""
        count = len(self.cell.nodes[node])
        y = (self.lane(node, 0) + self.lane(node, count - 1)) / 2
        return self.box_x(node) + BOX_WIDTH + 34 + RADIUS, y

    def exit_of(self, source: int) -> tuple[float, float]:
        """Where edges leave input or node ``source``."""
        if source < 2:
            middle = TOP + self.lanes * LANE / 2
            return INPUT_WIDTH, middle + (source - 0.5) * LANE * 1.1
        x, y = self.node_at(source - 2)
        return x + RADIUS, y


def cell_graph(kind: str, cell: CellGenotype, relative_energy: Mapping[str, float]) -> Markup:
    """The graph of ``cell``; the bar in a box is its multiplier's energy relative to exact."""
    layout = Layout(cell)
    edges = [
        _edge(layout, node, number, gene)
        for node, genes in enumerate(cell.nodes)
        for number, gene in enumerate(genes)
    ]
    boxes = [
        _box(layout, node, number, gene, relative_energy)
        for node, genes in enumerate(cell.nodes)
        for number, gene in enumerate(genes)
    ]
    return svg.drawing(
        layout.width,
        layout.height,
        _description(kind, cell),
        *edges,
        *(_output_edge(layout, node) for node in range(len(cell.nodes))),
        *boxes,
        *(_input(layout, source, relative_energy) for source in range(2)),
        *(_node(layout, node) for node in range(len(cell.nodes))),
        _output(layout),
    )


def _edge(layout: Layout, node: int, number: int, gene: Gene) -> Markup:
    """From the source into its lane, along it to the box, and from the box to the node."""
    (x, y), lane, box = layout.exit_of(gene.source), layout.lane(node, number), layout.box_x(node)
    node_x, node_y = layout.node_at(node)
    end = box + BOX_WIDTH
    into = f"{_bend(x, y, x + BEND - 8, lane)} H{svg.number(box - 7)}"
    onward = _bend(end, lane, node_x - RADIUS - 7, node_y)
    return svg.group(
        svg.path(into, "edge"),
        _arrow(box - 1, lane),
        svg.path(onward, "edge"),
        _arrow(node_x - RADIUS - 1, node_y),
    )


def _bend(x1: float, y1: float, x2: float, y2: float) -> str:
    middle = svg.number((x1 + x2) / 2)
    start, end = f"{svg.number(x1)},{svg.number(y1)}", f"{svg.number(x2)},{svg.number(y2)}"
    return f"M{start} C{middle},{svg.number(y1)} {middle},{svg.number(y2)} {end}"


def _arrow(x: float, y: float) -> Markup:
    return svg.path(f"M{svg.number(x)},{svg.number(y)} l-8,-4 v8 z", "arrow")


def _box(
    layout: Layout, node: int, number: int, gene: Gene, relative_energy: Mapping[str, float]
) -> Markup:
    x, y = layout.box_x(node), layout.lane(node, number) - BOX_HEIGHT / 2
    style = "box" if gene.multiplier else "box plain"
    words_y = y + (18 if gene.multiplier else 28)
    return svg.group(
        svg.rectangle(x, y, BOX_WIDTH, BOX_HEIGHT, style, 6),
        svg.text(x + BOX_WIDTH / 2, words_y, gene.operation, "operation", "middle"),
        *_multiplier(gene.multiplier, x, y + 33, relative_energy),
        hint=_hint(gene.multiplier, relative_energy),
    )


def _multiplier(
    choice: MultiplierChoice | None, x: float, y: float, relative_energy: Mapping[str, float]
) -> list[Markup]:
    """Name and energy bar of a multiplier in a box that begins at ``x``."""
    if choice is None:
        return []
    full = BOX_WIDTH - 20
    share = min(relative_energy.get(choice.name, 1.0), 1.0)
    return [
        svg.text(x + BOX_WIDTH / 2, y, choice.name, "mono small", "middle"),
        svg.rectangle(x + 10, y + 6, full, 3, "track", 1.5),
        svg.rectangle(x + 10, y + 6, full * share, 3, "blue bar", 1.5),
    ]


def _hint(choice: MultiplierChoice | None, relative_energy: Mapping[str, float]) -> str:
    if choice is None:
        return "no multiplier"
    share = relative_energy.get(choice.name)
    energy = "" if share is None else f", {share:.1%} of the exact multiplier's energy"
    return f"{choice.name}, LUT {choice.sha256[:12]}{energy}"


def _input(layout: Layout, source: int, relative_energy: Mapping[str, float]) -> Markup:
    _, y = layout.exit_of(source)
    top = y - BOX_HEIGHT / 2
    choice = layout.cell.preprocess[source]
    name = svg.element("tspan", {}, "c") + svg.element(
        "tspan", {"class": "subscript", "dy": 3}, f"k−{2 - source}"
    )
    words = name + svg.element("tspan", {"dy": -3}, "  1×1 convolution")
    return svg.group(
        svg.rectangle(0.5, top, INPUT_WIDTH - 1, BOX_HEIGHT, "state", 6),
        svg.text(INPUT_WIDTH / 2, top + 18, words, "operation", "middle"),
        *_multiplier(choice, 0, top + 33, relative_energy),
        hint=_hint(choice, relative_energy),
    )


def _node(layout: Layout, node: int) -> Markup:
    x, y = layout.node_at(node)
    return svg.group(
        svg.element("circle", {"cx": x, "cy": y, "r": RADIUS, "class": "state"}),
        svg.text(x, y + 4.5, str(node), "operation", "middle"),
        hint=f"node {node}: the sum of its two edges",
    )


def _output_edge(layout: Layout, node: int) -> Markup:
    (x, y), end = layout.exit_of(node + 2), layout.width - OUTPUT_WIDTH
    middle = TOP + layout.lanes * LANE / 2
    along = max(end - BEND, x)
    curve = _bend(along, y, end - 7, middle)
    start = f"M{svg.number(x)},{svg.number(y)} H{svg.number(along)} "
    return svg.group(
        svg.path(start + curve.replace("M", "L", 1), "edge faint"), _arrow(end - 1, middle)
    )


def _output(layout: Layout) -> Markup:
    middle = TOP + layout.lanes * LANE / 2
    name = svg.element("tspan", {}, "c") + svg.element(
        "tspan", {"class": "subscript", "dy": 3}, "k"
    )
    x = layout.width - OUTPUT_WIDTH
    return svg.group(
        svg.rectangle(x, middle - BOX_HEIGHT / 2, OUTPUT_WIDTH - 1, BOX_HEIGHT, "state", 6),
        svg.text(x + OUTPUT_WIDTH / 2, middle - 2, name, "operation", "middle"),
        svg.text(x + OUTPUT_WIDTH / 2, middle + 14, "concatenated", "small note", "middle"),
        hint="the nodes, concatenated over channels",
    )


def _description(kind: str, cell: CellGenotype) -> str:
    names = ("c(k-2)", "c(k-1)", *(f"node {n}" for n in range(len(cell.nodes))))
    edges = (
        f"{names[gene.source]} to node {node}: {gene.operation}"
        + (f" with {gene.multiplier.name}" if gene.multiplier else "")
        for node, genes in enumerate(cell.nodes)
        for gene in genes
    )
    return f"{kind} cell; " + "; ".join(edges)
