"""Selection: the discrete genotype of scored operations and edges, with a cap on skips.

Each node keeps its two edges of the highest score, each edge its operation of the highest score
other than `none` (Liu, Simonyan, Yang, ICLR 2019, section 2.4), that its likeliest multiplier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cosearch.choices import Choices
from cosearch.config import NOISE
from cosearch.edge_operations import absent
from cosearch.genotype import (
    CellGenotype,
    CellMultipliers,
    Gene,
    Genotype,
    MultiplierChoice,
    genotype_of,
)
from cosearch.operations import operation_kinds
from cosearch.space import CellPlace, SearchSpace
from lut import LUT

__all__ = ["ANY_NUMBER", "Scores", "argmax_scores", "normal_noise", "normal_skips", "selected"]

ANY_NUMBER = -1  # of skips
SKIP = "skip_connect"
EXCLUDED = -float("inf")


@dataclass(frozen=True, eq=False)
class Scores:
    """How good the operations (edges, operations) and the edges (edges,) of a cell type are.

    Numbers of one matrix are comparable; `none` is never chosen, whatever its score.
    """

    operations: Tensor
    edges: Tensor


def argmax_scores(choices: Choices, space: SearchSpace) -> Scores:
    """The shares themselves; an edge is as good as its best operation, times its own weight."""
    operations = choices.alphas
    if choices.edges is not None:
        operations = operations * choices.edges[:, None]
    return Scores(operations, _without(operations, space, "none").amax(1))


def selected(
    space: SearchSpace,
    luts: Sequence[LUT],
    choices: Mapping[str, Choices],
    scores: Mapping[str, Scores],
    most_skips: int = ANY_NUMBER,
    exact: LUT | None = None,
) -> Genotype:
    """The genotype of the scores by cell type; multipliers are those of the largest betas, and
    `exact`, by default the first, where there is no choice.

    The normal cell keeps its `most_skips` strongest skips; the others' edges stay, with their next
    best operation.
    """

    multipliers = _Multipliers(space, luts, exact or luts[0])

    def cell(cell_type: str) -> CellGenotype:
        cap = most_skips if cell_type == "normal" else ANY_NUMBER
        one = choices[cell_type].of_type()
        return _cell(space, multipliers, cell_type, one, scores[cell_type], cap)

    found = genotype_of(cell)
    return replace(
        found,
        ends=multipliers.ends(choices["normal"]),
        layers=multipliers.layers(found, choices) if choices["normal"].by_layer else (),
    )


def normal_skips(genotype: Genotype) -> int:
    """Skips in the normal cell."""
    return sum(gene.operation == SKIP for node in genotype.normal.nodes for gene in node)


def normal_noise(genotype: Genotype) -> int:
    """Edges of the normal cell that are noise."""
    return sum(gene.operation == NOISE for node in genotype.normal.nodes for gene in node)


def _cell(
    space: SearchSpace,
    multipliers: "_Multipliers",
    cell_type: str,
    choices: Choices,
    scores: Scores,
    most_skips: int,
) -> CellGenotype:
    ranked = _without(scores.operations, space, "none")
    ranked = ranked.masked_fill(absent(space, cell_type).to(ranked.device), EXCLUDED)
    kept = [_two_best(scores.edges, edges) for edges in _edges_of_nodes(space)]
    operations = dict(zip(range(space.edges), ranked.argmax(1).tolist(), strict=True))
    operations |= _replaced_skips(space, ranked, [e for two in kept for e in two], most_skips)
    sources = [source for _, source in space.edge_sources()]

    def gene(edge: int) -> Gene:
        operation, source = operations[edge], sources[edge]
        name = space.operations[operation]
        kinds = operation_kinds(name, _stride(cell_type, source))
        chooses = [kind for kind in kinds if kind in space.approximated]
        betas = choices.betas[edge, operation]
        return Gene(name, source, multipliers.of(betas, chooses[0]) if chooses else None)

    first, second = (multipliers.of(betas, "preprocess") for betas in choices.preprocess)
    return CellGenotype((first, second), tuple((gene(one), gene(two)) for one, two in kept))


def _stride(cell_type: str, source: int) -> int:
    return 2 if cell_type == "reduction" and source < 2 else 1


@dataclass(frozen=True, eq=False)
class _Multipliers:
    """Of shares to choices."""

    space: SearchSpace
    luts: Sequence[LUT]
    exact: LUT

    def of(self, betas: Tensor, kind: str) -> MultiplierChoice:
        """The likeliest, or the exact one for a kind that has no choice."""
        chooses = kind in self.space.approximated
        lut = self.luts[int(betas.argmax())] if chooses else self.exact
        return MultiplierChoice(lut.name, lut.digest)

    def ends(self, choices: Choices) -> tuple[MultiplierChoice, MultiplierChoice] | None:
        """Of stem and classifier; None where both are exact."""
        if not any(kind in self.space.approximated for kind in ("stem", "classifier")):
            return None
        rows = choices.preprocess.new_ones(2, 1) if choices.ends is None else choices.ends
        return self.of(rows[0], "stem"), self.of(rows[1], "classifier")

    def layers(
        self, genotype: Genotype, choices: Mapping[str, Choices]
    ) -> tuple[CellMultipliers, ...]:
        """Of every convolution of every cell."""
        cells = []
        for index, place in enumerate(self.space.places):
            one = choices[place.cell_type].of_cell(self.space.ordinal(index))
            cells.append(self._of_cell(one, genotype.cell(place.cell_type), place))
        return tuple(cells)

    def _of_cell(self, choices: Choices, cell: CellGenotype, place: CellPlace) -> CellMultipliers:
        numbers = {pair: edge for edge, pair in enumerate(self.space.edge_sources())}
        halves = (2 if place.after_reduction else 1, 1)
        preprocess = tuple(
            tuple(self.of(row, "preprocess") for row in choices.preprocess[index, :count])
            for index, count in enumerate(halves)
        )
        edges = tuple(
            self._of_gene(choices.betas[numbers[node, gene.source]], gene, place.cell_type)
            for node, genes in enumerate(cell.nodes)
            for gene in genes
        )
        return CellMultipliers(preprocess, edges)

    def _of_gene(self, betas: Tensor, gene: Gene, cell_type: str) -> tuple[MultiplierChoice, ...]:
        """betas (operations, K, M)"""
        rows = betas[self.space.operations.index(gene.operation)]
        kinds = operation_kinds(gene.operation, _stride(cell_type, gene.source))
        return tuple(self.of(row, kind) for row, kind in zip(rows, kinds, strict=False))


def _replaced_skips(
    space: SearchSpace, ranked: Tensor, kept: list[int], most_skips: int
) -> dict[int, int]:
    """The next best operation of each kept edge whose skip is beyond the cap."""
    if most_skips == ANY_NUMBER or SKIP not in space.operations:
        return {}
    skip = space.operations.index(SKIP)
    skips = [edge for edge in kept if int(ranked[edge].argmax()) == skip]
    weakest = sorted(skips, key=lambda edge: -float(ranked[edge, skip]))[most_skips:]
    others = _without(ranked, space, SKIP)
    return {edge: int(others[edge].argmax()) for edge in weakest}


def _edges_of_nodes(space: SearchSpace) -> list[list[int]]:
    nodes: list[list[int]] = [[] for _ in range(space.nodes)]
    for edge, (node, _) in enumerate(space.edge_sources()):
        nodes[node].append(edge)
    return nodes


def _two_best(strengths: Tensor, edges: list[int]) -> tuple[int, int]:
    """In the order of their sources; the earlier where strengths are equal."""
    one, two = sorted(sorted(edges, key=lambda edge: -float(strengths[edge]))[:2])
    return one, two


def _without(scores: Tensor, space: SearchSpace, operation: str) -> Tensor:
    """The scores with those of one operation below all others."""
    excluded = torch.tensor([name == operation for name in space.operations], device=scores.device)
    return scores.masked_fill(excluded, EXCLUDED)
