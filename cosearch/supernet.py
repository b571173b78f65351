"""The supernet: every operation on every edge with every multiplier, weighted by alphas and betas.

alphas: over the operations of an edge, per cell type. betas: over the multipliers of an edge's
operation, per cell type; one more row of betas for each preprocessing convolution. gammas, in some
forms: over the edges of a node, per cell type.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosearch.choices import Choices, Form
from cosearch.genotype import CELL_TYPES, Genotype
from cosearch.network import classifier, preprocess, stem
from cosearch.operations import OPERATIONS, Arithmetic
from cosearch.recomputing import recomputed
from cosearch.selection import ANY_NUMBER, argmax_scores, selected
from cosearch.space import CellPlace, SearchSpace
from hw.errors import InputError
from lut import Candidates

__all__ = ["Cell", "MixedOp", "Supernet"]

INITIAL_SPREAD = 1e-3
PLAIN = Form()


class MixedOp(nn.Module):
    """All operations of one edge; the result is their sum weighted by alphas.

    Where a form takes one channel in k (PC-DARTS, Xu et al., ICLR 2020, section 3.2), operations
    see the first C / k channels, the others pass by (max-pooled where the stride is 2), and
    channels are shuffled so that the next operations see others.
    """

    def __init__(
        self,
        operations: tuple[str, ...],
        channels: int,
        stride: int,
        arithmetic: Arithmetic,
        partial_channels: int = 1,
    ) -> None:
        super().__init__()
        if channels % partial_channels:
            raise InputError(
                f"channels must be a multiple of search.partial_channels ({partial_channels}), "
                f"not {channels}"
            )
        self.seen, self.partial_channels = channels // partial_channels, partial_channels
        self.operations = nn.ModuleDict(
            {
                name: OPERATIONS[name](self.seen, stride, arithmetic)
                for name in operations
                if name != "none"
            }
        )
        self.names, self.stride = operations, stride
        self.rows = [index for index, name in enumerate(operations) if name != "none"]

    def forward(
        self, x: Tensor, alphas: Tensor, betas: Tensor, sampled: int | None = None
    ) -> Tensor:
        """alphas (operations,), betas (operations, M); sampled: the one operation to evaluate."""
        if self.partial_channels == 1:
            return self._mixed(x, alphas, betas, sampled)
        mixed = self._mixed(x[:, : self.seen], alphas, betas, sampled)
        beside = x[:, self.seen :]
        if self.stride == 2:
            beside = functional.max_pool2d(beside, 2, ceil_mode=True)
        return functional.channel_shuffle(torch.cat([mixed, beside], 1), self.partial_channels)

    def _mixed(self, x: Tensor, alphas: Tensor, betas: Tensor, sampled: int | None) -> Tensor:
        if sampled is not None:
            return self._one(x, alphas, betas, sampled)
        results = [
            alphas[row] * operation(x, betas[row])
            for row, operation in zip(self.rows, self.operations.values(), strict=True)
        ]
        return torch.stack(results).sum(0)

    def _one(self, x: Tensor, alphas: Tensor, betas: Tensor, sampled: int) -> Tensor:
        name = self.names[sampled]
        if name == "none":
            return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])
        result: Tensor = alphas[sampled] * self.operations[name](x, betas[sampled])
        return result


class Cell(nn.Module):
    """A cell with all its edges."""

    def __init__(
        self,
        place: CellPlace,
        space: SearchSpace,
        arithmetic: Arithmetic,
        partial_channels: int = 1,
    ) -> None:
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
                partial_channels,
            )
            for _, source in self.sources
        )

    def forward(self, before: Tensor, last: Tensor, choices: Choices) -> Tensor:
        states = [
            self.preprocess[0](before, choices.preprocess[0]),
            self.preprocess[1](last, choices.preprocess[1]),
        ]
        for node in range(self.nodes):
            results = [
                self._edge(edge, states[source], choices)
                for edge, (target, source) in enumerate(self.sources)
                if target == node
            ]
            states.append(torch.stack(results).sum(0))
        return torch.cat(states[2:], dim=1)

    def _edge(self, edge: int, x: Tensor, choices: Choices) -> Tensor:
        sampled = None if choices.sampled is None else choices.sampled[edge]
        result: Tensor = self.edges[edge](x, choices.alphas[edge], choices.betas[edge], sampled)
        return result if choices.edges is None else choices.edges[edge] * result


class Supernet(nn.Module):
    """Weights, alphas and betas of the whole space in one module (and one state_dict).

    `candidates` are the multipliers that betas weigh; stem and classifier use `exact`, a candidate
    list of one; `form` is the strategy's. gradient_checkpointing: cells are computed a second time
    in the backward pass instead of keeping their activations. Input (N, C, H, W) in [0, 1], output
    logits (N, classes).
    """

    def __init__(
        self, space: SearchSpace, candidates: Candidates, exact: Candidates, form: Form = PLAIN
    ) -> None:
        super().__init__()
        self.space, self.candidates, self.exact, self.form = space, candidates, exact, form
        self.gradient_checkpointing = False
        self.stem = stem(space, Arithmetic(exact, affine=True))
        arithmetic = Arithmetic(candidates, affine=False)
        self.cells = nn.ModuleList(
            Cell(place, space, arithmetic, form.partial_channels) for place in space.places
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier(space, Arithmetic(exact, affine=True))
        shape = (space.edges, len(space.operations))
        self.alphas = _architecture(shape)
        self.betas = _architecture((*shape, len(candidates)))
        self.preprocess_betas = _architecture((2, len(candidates)))
        self.gammas = _architecture((space.edges,)) if form.weighs_edges else nn.ParameterDict()

    def forward(self, x: Tensor, choices: Mapping[str, Choices] | None = None) -> Tensor:
        """`choices` by cell type; the shares of alphas, betas and gammas where left out."""
        if choices is None:
            choices = self.all_choices()
        before = last = self.stem(x)
        for place, cell in zip(self.space.places, self.cells, strict=True):
            before, last = last, self._through(cell, before, last, choices[place.cell_type])
        logits: Tensor = self.classifier(torch.flatten(self.pool(last), 1))
        return logits

    def _through(self, cell: nn.Module, before: Tensor, last: Tensor, choices: Choices) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return recomputed(cell, before, last, choices)
        result: Tensor = cell(before, last, choices)
        return result

    def all_choices(self) -> dict[str, Choices]:
        """The shares by cell type."""
        return {cell_type: self.choices(cell_type) for cell_type in CELL_TYPES}

    def choices(self, cell_type: str) -> Choices:
        """The shares that alphas, betas and gammas stand for."""
        relaxed = self.form.relaxation
        return Choices(
            relaxed(self.alphas[cell_type]),
            relaxed(self.betas[cell_type]),
            relaxed(self.preprocess_betas[cell_type]),
            self.edge_shares(cell_type),
        )

    def edge_shares(self, cell_type: str) -> Tensor | None:
        """Softmax of gammas over the edges of each node, (edges,); None without gammas."""
        if not self.form.weighs_edges:
            return None
        sizes = [node + 2 for node in range(self.space.nodes)]
        return torch.cat([part.softmax(0) for part in self.gammas[cell_type].split(sizes)])

    def alpha_parameters(self) -> list[nn.Parameter]:
        """Alphas, and gammas where there are any: what operations and edges are chosen by."""
        return [*self.alphas.parameters(), *self.gammas.parameters()]

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
    def genotype(self, most_skips: int = ANY_NUMBER) -> Genotype:
        """The likeliest two edges of each node, with their likeliest operation and multiplier."""
        choices = self.all_choices()
        scores = {name: argmax_scores(choice, self.space) for name, choice in choices.items()}
        return selected(self.space, self.candidates.luts, choices, scores, most_skips)


def _architecture(shape: tuple[int, ...]) -> nn.ParameterDict:
    """Nearly uniform logits for each cell type, from torch's global generator."""
    return nn.ParameterDict(
        {cell_type: nn.Parameter(INITIAL_SPREAD * torch.randn(shape)) for cell_type in CELL_TYPES}
    )
