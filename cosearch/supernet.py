"""The supernet: every operation on every edge with every multiplier, weighted by alphas and betas.

alphas: over the operations of an edge, per cell type. betas: over multipliers, by default those of
an edge's operation, per cell type, with one more row for each preprocessing convolution; other
grains: cosearch/grain.py. gammas, in some forms: over the edges of a node, per cell type.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosearch.choices import Choices, Form, Relaxation
from cosearch.edge_operations import EdgeOperations
from cosearch.genotype import CELL_TYPES, Genotype
from cosearch.grain import Grain, once
from cosearch.layers import layer_kind
from cosearch.merged_cells import Edge, Edges, can_merge, follow_first, merged_preprocess
from cosearch.network import classifier, preprocess, stem
from cosearch.operations import OPERATIONS, Arithmetic
from cosearch.recomputing import recomputed
from cosearch.selection import ANY_NUMBER, argmax_scores, selected
from cosearch.space import CellPlace, SearchSpace
from cosearch.streams import side_by_side
from hw.errors import InputError
from lut import ApproxConv2d, ApproxLinear, Candidates

__all__ = ["Cell", "MixedOp", "Supernet"]

INITIAL_SPREAD = 1e-3
PLAIN = Form()
EVERY: Mapping[str, tuple[int, ...]] = MappingProxyType({})


class MixedOp(nn.Module):
    """All operations of one edge, `own` of the space's; the result is their sum weighted by alphas.

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
        own: tuple[str, ...] | None = None,
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
                if name != "none" and (own is None or name in own)
            }
        )
        self.names, self.stride = operations, stride
        self.rows = [index for index, name in enumerate(operations) if name in self.operations]

    def forward(
        self, x: Tensor, alphas: Tensor, betas: Tensor, sampled: int | None = None
    ) -> Tensor:
        """alphas (operations,), betas (operations, M) or (operations, K, M); sampled: the one
        operation to evaluate.
        """
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
    """A cell with all its edges.

    In training its operations are merged (cosearch/merged_cells.py) on a CUDA device; everywhere or
    nowhere where `merged` says so.
    """

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
        self.nodes, self.partial_channels = space.nodes, partial_channels
        self.merged: bool | None = None
        self.edges = nn.ModuleList(
            MixedOp(
                space.operations,
                place.channels,
                2 if place.reduces and source < 2 else 1,
                arithmetic,
                partial_channels,
                space.edge_operations(place.cell_type, edge),
            )
            for edge, (_, source) in enumerate(self.sources)
        )

    def forward(self, before: Tensor, last: Tensor, choices: Choices) -> Tensor:
        wanted = before.is_cuda if self.merged is None else self.merged
        merged = wanted and self.training and choices.sampled is None and can_merge(self)
        return (self._merged if merged else self._plain)(before, last, choices)

    def _merged(self, before: Tensor, last: Tensor, choices: Choices) -> Tensor:
        merged = self._merged_edges(choices)
        edges = Edges(
            [
                [
                    edge
                    for edge, (_, origin) in zip(merged, self.sources, strict=True)
                    if origin == s
                ]
                for s in range(self.nodes + 1)
            ],
            self.partial_channels,
        )
        both = zip(self.preprocess, (before, last), choices.preprocess, strict=True)
        works = [partial(merged_preprocess, *one) for one in both]
        inputs = side_by_side(works, [before, last])
        nodes = edges.nodes(inputs)
        follow_first(self, edges)
        return torch.cat(nodes, dim=1)

    def _merged_edges(self, choices: Choices) -> list[Edge]:
        """All edges; shares are taken apart at once, so that their gradients come together so."""
        alphas = choices.alphas
        shares = alphas.new_ones(len(alphas)) if choices.edges is None else choices.edges
        weights = (shares[:, None] * alphas).float().unbind()
        found: list[Edge] = []
        for edge, one, betas, share in zip(
            self.edges, weights, choices.betas.unbind(), shares.unbind(), strict=True
        ):
            assert isinstance(edge, MixedOp)
            rows = {name: row for row, name in enumerate(edge.names)}
            node, _ = self.sources[len(found)]
            found.append(
                Edge(node, edge.operations, rows, edge.stride, one.unbind(), betas.unbind(), share)
            )
        return found

    def _plain(self, before: Tensor, last: Tensor, choices: Choices) -> Tensor:
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

    `candidates` are the multipliers that betas weigh; convolutions that are not approximated use
    `exact`, a candidate list of one; `form` is the strategy's; `grain` and `allowed`:
    cosearch/grain.py. gradient_checkpointing: cells are computed a second time in the backward pass
    instead of keeping their activations. real: convolutions are in real numbers. Input (N, C, H, W)
    in [0, 1], output logits (N, classes).
    """

    def __init__(
        self,
        space: SearchSpace,
        candidates: Candidates,
        exact: Candidates,
        form: Form = PLAIN,
        grain: str = "edge_operation",
        allowed: Mapping[str, tuple[int, ...]] = EVERY,
        *,
        real: bool = False,
    ) -> None:
        super().__init__()
        self.space, self.candidates, self.exact, self.form = space, candidates, exact, form
        self.gradient_checkpointing = False
        ends = Arithmetic(None if real else exact, affine=True)
        self.stem = stem(space, ends)
        arithmetic = Arithmetic(None if real else candidates, affine=False)
        self.cells = nn.ModuleList(
            Cell(place, space, arithmetic, form.partial_channels) for place in space.places
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier(space, ends)
        shape = (space.edges, len(space.operations))
        self.grain = Grain(space, len(candidates), grain, allowed)
        self.alphas = _architecture(dict.fromkeys(CELL_TYPES, shape))
        self.edge_operations = EdgeOperations(space)
        self.betas = _architecture(self.grain.betas())
        self.preprocess_betas = _architecture(self.grain.preprocess())
        self.end_betas = _architecture(self.grain.ends())
        gammas = dict.fromkeys(CELL_TYPES, (space.edges,)) if form.weighs_edges else {}
        self.gammas = _architecture(gammas)
        self._assign_candidates()

    def _assign_candidates(self) -> None:
        """The candidates for convolutions that have a choice, the exact multiplier for others."""
        for path, module in self.named_modules():
            if isinstance(module, ApproxConv2d):
                chooses = layer_kind(path, module) in self.space.approximated
                module.candidates = self.candidates if chooses else self.exact

    def forward(self, x: Tensor, choices: Mapping[str, Choices] | None = None) -> Tensor:
        """`choices` by cell type; the shares of alphas, betas and gammas where left out."""
        if choices is None:
            choices = self.all_choices()
        stem, classifier = self._end_mixtures(choices)
        before = last = self.stem[1](_applied(self.stem[0], x, stem))
        for index, cell in enumerate(self.cells):
            one = choices[self.space.places[index].cell_type].of_cell(self.space.ordinal(index))
            before, last = last, self._through(cell, before, last, one)
        return _applied(self.classifier, torch.flatten(self.pool(last), 1), classifier)

    def _end_mixtures(self, choices: Mapping[str, Choices]) -> tuple[Tensor | None, Tensor | None]:
        """Shares of the multipliers of stem and classifier; None where one is exact."""
        ends = choices[CELL_TYPES[0]].ends
        first, last = (kind in self.space.approximated for kind in ("stem", "classifier"))
        return None if ends is None or not first else ends[0], (
            None if ends is None or not last else ends[1]
        )

    def _through(self, cell: nn.Module, before: Tensor, last: Tensor, choices: Choices) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return recomputed(cell, before, last, choices)
        result: Tensor = cell(before, last, choices)
        return result

    def all_choices(self, relaxation: Relaxation | None = None) -> dict[str, Choices]:
        """The shares that alphas, betas and gammas stand for, by cell type.

        `relaxation` in place of the form's, asked once for each parameter.
        """
        relaxed = once(relaxation or self.form.relaxation)
        found = {cell_type: self._choices(cell_type, relaxed) for cell_type in CELL_TYPES}
        ends = self.grain.end_shares(self.betas, self.end_betas, relaxed)
        return {cell_type: replace(one, ends=ends) for cell_type, one in found.items()}

    def choices(self, cell_type: str) -> Choices:
        """The shares of one cell type."""
        return self.all_choices()[cell_type]

    def _choices(self, cell_type: str, relaxed: Relaxation) -> Choices:
        alphas = relaxed(self.alpha_logits(cell_type))
        betas, preprocess = self.grain.shares(
            cell_type, self.betas, self.preprocess_betas, relaxed, alphas
        )
        return Choices(alphas, betas, preprocess, self.edge_shares(cell_type))

    def alpha_logits(self, cell_type: str) -> Tensor:
        """Alphas (edges, operations), minus infinity for operations that an edge has not."""
        logits: Tensor = self.edge_operations(cell_type, self.alphas[cell_type])
        return logits

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
        """Betas of edges' operations, of the preprocessing convolutions, and of stem and
        classifier; none with a single candidate.
        """
        groups = (self.betas, self.preprocess_betas, self.end_betas)
        return [parameter for group in groups for parameter in group.parameters()]

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
        luts, exact = self.candidates.luts, self.exact.luts[0]
        return selected(self.space, luts, choices, scores, most_skips, exact)


def _applied(layer: nn.Module, x: Tensor, mixture: Tensor | None) -> Tensor:
    """A stem's convolution or a classifier, which has multipliers only where it is emulated."""
    emulated = isinstance(layer, (ApproxConv2d, ApproxLinear))
    result: Tensor = layer(x, mixture) if emulated else layer(x)
    return result


def _architecture(shapes: Mapping[str, tuple[int, ...]]) -> nn.ParameterDict:
    """Nearly uniform logits of these shapes, from torch's global generator."""
    return nn.ParameterDict(
        {name: nn.Parameter(INITIAL_SPREAD * torch.randn(shape)) for name, shape in shapes.items()}
    )
