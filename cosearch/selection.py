"""Selection: the discrete genotype of scored operations and edges, with a cap on skips.

Each node keeps its two edges of the highest score, each edge its operation of the highest score
other than `none` (Liu, Simonyan, Yang, ICLR 2019, section 2.4), that its likeliest multiplier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosearch.choices import Choices
from cosearch.genotype import CellGenotype, Gene, Genotype, MultiplierChoice, genotype_of
from cosearch.operations import OPERATIONS, Arithmetic, multiplies
from cosearch.space import SearchSpace
from lut import LUT

__all__ = ["ANY_NUMBER", "Scores", "argmax_scores", "normal_skips", "selected"]

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
) -> Genotype:
    """The genotype of the scores by cell type; multipliers are those of the largest betas.

    The normal cell keeps its `most_skips` strongest skips; the others' edges stay, with their next
    best operation.
    """

    def cell(cell_type: str) -> CellGenotype:
        cap = most_skips if cell_type == "normal" else ANY_NUMBER
        return _cell(space, luts, cell_type, choices[cell_type], scores[cell_type], cap)

    return genotype_of(cell)


def normal_skips(genotype: Genotype) -> int:
    """Skips in the normal cell."""
    return sum(gene.operation == SKIP for node in genotype.normal.nodes for gene in node)


def _cell(
    space: SearchSpace,
    luts: Sequence[LUT],
    cell_type: str,
    choices: Choices,
    scores: Scores,
    most_skips: int,
) -> CellGenotype:
    ranked = _without(scores.operations, space, "none")
    kept = [_two_best(scores.edges, edges) for edges in _edges_of_nodes(space)]
    operations = dict(zip(range(space.edges), ranked.argmax(1).tolist(), strict=True))
    operations |= _replaced_skips(space, ranked, [e for two in kept for e in two], most_skips)
    choice = _multiplier_of(luts)
    sources = [source for _, source in space.edge_sources()]

    def gene(edge: int) -> Gene:
        operation, source = operations[edge], sources[edge]
        name = space.operations[operation]
        stride = 2 if cell_type == "reduction" and source < 2 else 1
        module = OPERATIONS[name](2, stride, Arithmetic(None, affine=False))
        needed = multiplies(module)
        return Gene(name, source, choice(choices.betas[edge, operation]) if needed else None)

    first, second = choices.preprocess
    return CellGenotype(
        (choice(first), choice(second)), tuple((gene(one), gene(two)) for one, two in kept)
    )


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


def _multiplier_of(luts: Sequence[LUT]) -> Callable[[Tensor], MultiplierChoice]:
    def choice(betas: Tensor) -> MultiplierChoice:
        lut = luts[int(betas.argmax())]
        return MultiplierChoice(lut.name, lut.digest)

    return choice


def _without(scores: Tensor, space: SearchSpace, operation: str) -> Tensor:
    """The scores with those of one operation below all others."""
    excluded = torch.tensor([name == operation for name in space.operations], device=scores.device)
    return scores.masked_fill(excluded, EXCLUDED)
