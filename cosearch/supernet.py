"""The supernet: every operation on every edge with every multiplier, weighted by alphas and betas.

alphas: softmax over the operations of an edge, per cell type. betas: softmax over the multipliers
of an edge's operation, per cell type; one more row of betas for each preprocessing convolution.
"""

import torch
from torch import Tensor, nn

from cosearch.genotype import (
    CELL_TYPES,
    CellGenotype,
    Gene,
    Genotype,
    MultiplierChoice,
    genotype_of,
)
from cosearch.network import classifier, preprocess, stem
from cosearch.operations import OPERATIONS, Arithmetic, multiplies
from cosearch.space import CellPlace, SearchSpace
from lut import Candidates

__all__ = ["Cell", "MixedOp", "Supernet"]

INITIAL_SPREAD = 1e-3


class MixedOp(nn.Module):
    """All operations of one edge; the result is their sum weighted by alphas (softmaxed)."""

    def __init__(
        self, operations: tuple[str, ...], channels: int, stride: int, arithmetic: Arithmetic
    ) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(
            {
                name: OPERATIONS[name](channels, stride, arithmetic)
                for name in operations
                if name != "none"
            }
        )
        self.rows = [index for index, name in enumerate(operations) if name != "none"]

    def forward(self, x: Tensor, alphas: Tensor, betas: Tensor) -> Tensor:
        """alphas (operations,), betas (operations, M), both softmaxed."""
        results = [
            alphas[row] * operation(x, betas[row])
            for row, operation in zip(self.rows, self.operations.values(), strict=True)
        ]
        return torch.stack(results).sum(0)


class Cell(nn.Module):
    """A cell with all its edges."""

    def __init__(self, place: CellPlace, space: SearchSpace, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.preprocess = nn.ModuleList(preprocess(place, index, arithmetic) for index in (0, 1))
        self.sources = list(space.edge_sources())
        self.nodes = space.nodes
        self.edges = nn.ModuleList(
            MixedOp(
                space.operations,
                place.channels,
                2 if place.reduces and source < 2 else 1,
                arithmetic,
            )
            for _, source in self.sources
        )

    def forward(
        self, before: Tensor, last: Tensor, alphas: Tensor, betas: Tensor, first: Tensor
    ) -> Tensor:
        """alphas (edges, operations), betas (edges, operations, M), first (2, M), all softmaxed."""
        states = [
            self.preprocess[0](before, first[0]),
            self.preprocess[1](last, first[1]),
        ]
        for node in range(self.nodes):
            states.append(
                torch.stack(
                    [
                        self.edges[edge](states[source], alphas[edge], betas[edge])
                        for edge, (target, source) in enumerate(self.sources)
                        if target == node
                    ]
                ).sum(0)
            )
        return torch.cat(states[2:], dim=1)


class Supernet(nn.Module):
    """Weights, alphas and betas of the whole space in one module (and one state_dict).

    `candidates` are the multipliers that betas weigh; stem and classifier use `exact`, a candidate
    list of one. Input (N, C, H, W) in [0, 1], output logits (N, classes).
    """

    def __init__(self, space: SearchSpace, candidates: Candidates, exact: Candidates) -> None:
        super().__init__()
        self.space, self.candidates = space, candidates
        self.stem = stem(space, Arithmetic(exact, affine=True))
        arithmetic = Arithmetic(candidates, affine=False)
        self.cells = nn.ModuleList(Cell(place, space, arithmetic) for place in space.places)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier(space, Arithmetic(exact, affine=True))
        shape = (space.edges, len(space.operations))
        self.alphas = _architecture(shape)
        self.betas = _architecture((*shape, len(candidates)))
        self.preprocess_betas = _architecture((2, len(candidates)))

    def forward(self, x: Tensor) -> Tensor:
        choices = {cell_type: self.probabilities(cell_type) for cell_type in CELL_TYPES}
        before = last = self.stem(x)
        for place, cell in zip(self.space.places, self.cells, strict=True):
            before, last = last, cell(before, last, *choices[place.cell_type])
        logits: Tensor = self.classifier(torch.flatten(self.pool(last), 1))
        return logits

    def probabilities(self, cell_type: str) -> tuple[Tensor, Tensor, Tensor]:
        """Softmaxed alphas (edges, operations), betas (edges, operations, M) and preprocessing
        betas.
        """
        alphas, betas = self.alphas[cell_type], self.betas[cell_type]
        return alphas.softmax(-1), betas.softmax(-1), self.preprocess_betas[cell_type].softmax(-1)

    def alpha_parameters(self) -> list[nn.Parameter]:
        return list(self.alphas.parameters())

    def beta_parameters(self) -> list[nn.Parameter]:
        """Betas of edges' operations and of the preprocessing convolutions."""
        return [*self.betas.parameters(), *self.preprocess_betas.parameters()]

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Alphas and betas."""
        return self.alpha_parameters() + self.beta_parameters()

    def weight_parameters(self) -> list[nn.Parameter]:
        """Every parameter that is neither an alpha nor a beta."""
        architecture = {id(parameter) for parameter in self.architecture_parameters()}
        return [p for p in self.parameters() if id(p) not in architecture]

    @torch.no_grad()
    def genotype(self) -> Genotype:
        """The likeliest two edges of each node, with their likeliest operation and multiplier."""
        return genotype_of(self._cell_genotype)

    def _cell_genotype(self, cell_type: str) -> CellGenotype:
        alphas, betas, first = self.probabilities(cell_type)
        stride_two = cell_type == "reduction"
        strengths, chosen = _without_none(alphas, self.space.operations).max(dim=1)
        nodes = []
        for node in range(self.space.nodes):
            edges = [e for e, (n, _) in enumerate(self.space.edge_sources()) if n == node]
            best = sorted(sorted(edges, key=lambda e: -float(strengths[e]))[:2])
            one, two = (
                self._gene(edge, edges, int(chosen[edge]), betas[edge], stride_two) for edge in best
            )
            nodes.append((one, two))
        preprocess_choices = (self._choice(first[0]), self._choice(first[1]))
        return CellGenotype(preprocess_choices, tuple(nodes))

    def _gene(
        self, edge: int, edges: list[int], operation: int, betas: Tensor, stride_two: bool
    ) -> Gene:
        name, source = self.space.operations[operation], edge - edges[0]
        stride = 2 if stride_two and source < 2 else 1
        module = OPERATIONS[name](2, stride, Arithmetic(None, affine=False))
        choice = self._choice(betas[operation]) if multiplies(module) else None
        return Gene(name, source, choice)

    def _choice(self, betas: Tensor) -> MultiplierChoice:
        lut = self.candidates.luts[int(betas.argmax())]
        return MultiplierChoice(lut.name, lut.digest)


def _architecture(shape: tuple[int, ...]) -> nn.ParameterDict:
    """Nearly uniform logits for each cell type, from torch's global generator."""
    return nn.ParameterDict(
        {cell_type: nn.Parameter(INITIAL_SPREAD * torch.randn(shape)) for cell_type in CELL_TYPES}
    )


def _without_none(alphas: Tensor, operations: tuple[str, ...]) -> Tensor:
    excluded = torch.tensor([name == "none" for name in operations])
    return alphas.masked_fill(excluded, -1.0)
