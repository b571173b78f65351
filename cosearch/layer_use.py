"""How much of each layer and multiplier of a supernet is used, as its shares say.

One row for each convolution of the whole space, with all channels: the share of its operation, and
those of its multipliers. All expectations of energy and latency are sums over these rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cosearch.choices import Choices
from cosearch.genotype import CELL_TYPES
from cosearch.layers import LayerRecord, layer_records
from cosearch.space import SearchSpace
from cosearch.supernet import Supernet

__all__ = ["LayerShares", "LayerUse"]


@dataclass(frozen=True, eq=False)
class LayerShares:
    """operations (L,): of each layer's operation; multipliers (L, M): of each layer's multipliers;
    uses (U, M): how likely each choice of a multiplier falls on it, for layers that have a choice.
    """

    operations: Tensor
    multipliers: Tensor
    uses: Tensor


@dataclass(frozen=True, eq=False)
class LayerUse:
    """The layers, and where their shares stand among those of a supernet's choices.

    exact (L,): layers that have no choice; their row of multipliers is one-hot at the first, which
    stands for the exact one.
    """

    layers: tuple[LayerRecord, ...]
    exact: tuple[bool, ...]
    operations: Tensor
    multipliers: Tensor
    uses: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, supernet: Supernet, input_shape: tuple[int, int, int]) -> "LayerUse":
        layers = layer_records(with_all_channels(supernet), input_shape)
        with torch.no_grad():
            index = _Index(supernet, supernet.all_choices())
        places = [index.place(layer) for layer in layers]
        exact = tuple(row == index.no_choice for _, row in places)
        device = next(supernet.parameters()).device
        uses = sorted({p for p, fixed in zip(places, exact, strict=True) if not fixed})
        uniform = [index.uniform[alpha] for alpha, _ in places]
        return cls(
            layers,
            exact,
            torch.tensor([alpha for alpha, _ in places], device=device),
            torch.tensor([row for _, row in places], device=device),
            torch.tensor(uses, dtype=torch.int64, device=device).view(-1, 2),
            torch.tensor(uniform, device=device),
        )

    def to(self, device: torch.device) -> "LayerUse":
        """On another device."""
        operations, multipliers = self.operations.to(device), self.multipliers.to(device)
        uses, uniform = self.uses.to(device), self.uniform.to(device)
        return replace(
            self, operations=operations, multipliers=multipliers, uses=uses, uniform=uniform
        )

    def __call__(self, choices: Mapping[str, Choices]) -> LayerShares:
        """The shares that these choices stand for; gradients pass."""
        alphas, rows = flat_alphas(choices), flat_rows(choices)
        uses = alphas[self.uses[:, 0], None] * rows[self.uses[:, 1]]
        return LayerShares(alphas[self.operations], rows[self.multipliers], uses)

    def uniform_shares(self) -> LayerShares:
        """Uniform alphas, the exact multiplier everywhere: what energy and latency are relative to.

        One column, the exact multiplier's.
        """
        return LayerShares(
            self.uniform,
            torch.ones_like(self.uniform)[:, None],
            torch.ones_like(self.uniform)[:, None],
        )


def flat_alphas(choices: Mapping[str, Choices]) -> Tensor:
    """Those of all cell types in one row, and a 1 for layers that are always there."""
    parts = [choices[cell_type].alphas.flatten() for cell_type in CELL_TYPES]
    return torch.cat([*parts, torch.ones_like(parts[0][:1])])


def flat_rows(choices: Mapping[str, Choices]) -> Tensor:
    """All shares of multipliers, (rows, M), and a last row that is one-hot at the first."""
    parts = [part for cell_type in CELL_TYPES for part in _row_parts(choices[cell_type])]
    ends = choices[CELL_TYPES[0]].ends
    parts += [] if ends is None else [ends]
    first = torch.zeros_like(choices[CELL_TYPES[0]].preprocess.flatten(0, -2)[:1])
    first[:, 0] = 1
    return torch.cat([*(part.flatten(0, -2) for part in parts), first])


def _row_parts(choices: Choices) -> Sequence[Tensor]:
    return choices.betas, choices.preprocess


class _Index:
    """Positions in ``flat_alphas`` and ``flat_rows``; uniform: shares of uniform alphas, as
    ``flat_alphas`` has them.
    """

    def __init__(self, supernet: Supernet, choices: Mapping[str, Choices]) -> None:
        self.space = supernet.space
        self._alphas: dict[str, Tensor] = {}
        self._rows: dict[str, list[Tensor]] = {}
        alphas, rows = 0, 0
        for cell_type in CELL_TYPES:
            shape = choices[cell_type].alphas.shape
            self._alphas[cell_type] = alphas + torch.arange(shape.numel()).view(shape)
            alphas += shape.numel()
            self._rows[cell_type] = []
            for part in _row_parts(choices[cell_type]):
                places = part.shape[:-1]
                self._rows[cell_type].append(rows + torch.arange(places.numel()).view(places))
                rows += places.numel()
        self._ends = rows
        self.always = alphas
        self.uniform = [*_uniform_shares(self.space), 1.0]
        self.no_choice = rows + (0 if choices[CELL_TYPES[0]].ends is None else 2)
        self._seen: dict[str, int] = {}

    def place(self, layer: LayerRecord) -> tuple[int, int]:
        """Where the layer's operation and its multipliers stand; layers come in order."""
        alpha, row = self._place(layer)
        return alpha, row if layer.kind in self.space.approximated else self.no_choice

    def _place(self, layer: LayerRecord) -> tuple[int, int]:
        parts = layer.path.split(".")
        if parts[0] != "cells":
            return self.always, self._ends + (parts[0] == "classifier")
        cell_type = self.space.places[int(parts[1])].cell_type
        betas, preprocess = self._rows[cell_type]
        if parts[2] == "preprocess":
            number = self._number(".".join(parts[:4]))
            where: tuple[int, ...] = (int(parts[3]),)
            return self.always, self._row(preprocess, where, int(parts[1]), number)
        where = int(parts[3]), self.space.operations.index(parts[5])
        row = self._row(betas, where, int(parts[1]), self._number(".".join(parts[:6])))
        return int(self._alphas[cell_type][where]), row

    def _row(self, rows: Tensor, where: tuple[int, ...], cell: int, number: int) -> int:
        """Of a grid over edges and operations, or over cells and convolutions too."""
        if rows.dim() > len(where):
            where = (self.space.ordinal(cell), *where, number)
        return int(rows[where])

    def _number(self, prefix: str) -> int:
        """The how manieth convolution of its operation."""
        self._seen[prefix] = self._seen.get(prefix, -1) + 1
        return self._seen[prefix]


def _uniform_shares(space: SearchSpace) -> Sequence[float]:
    """Of each edge's own operations, over all edges and operations of all cell types."""
    edges = [(cell_type, edge) for cell_type in CELL_TYPES for edge in range(space.edges)]
    shares = [1 / len(space.edge_operations(*edge)) for edge in edges]
    return [share for share in shares for _ in space.operations]


def with_all_channels(supernet: Supernet) -> Supernet:
    """Another of its space whose operations see every channel, as in the network that is found."""
    if supernet.form.partial_channels == 1:
        return supernet
    with torch.random.fork_rng(devices=[]):
        return Supernet(supernet.space, supernet.candidates, supernet.exact)
