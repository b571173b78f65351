"""The grain of betas: what shares one choice of a multiplier.

| grain | one row of betas for |
| --- | --- |
| ``network`` | everything |
| ``cell_type`` | all cells of a type; stem and classifier have a row each |
| ``edge_operation`` | an operation of an edge, in all cells of a type; preprocessing has rows too |
| ``layer`` | a convolution of a cell |
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cosearch.choices import Relaxation
from cosearch.genotype import CELL_TYPES
from cosearch.operations import operation_kinds
from cosearch.space import SearchSpace

__all__ = ["Grain", "once"]

WHOLE = "network"
ENDS = ("stem", "classifier")
Shape = tuple[int, ...]


class Grain(nn.Module):
    """`name` of the grain for `count` candidates; with one candidate there are no betas.

    allowed: by operation, or by kind of a layer outside of operations, which candidates it may use
    (their numbers); all where it is left out. Not for the two coarse grains. It has no parameters;
    its buffers, 0 where a candidate is allowed, else minus infinity, are in no state.
    """

    operations_mask: Tensor | None
    preprocess_mask: Tensor | None
    ends_mask: Tensor | None

    def __init__(
        self, space: SearchSpace, count: int, name: str, allowed: Mapping[str, tuple[int, ...]]
    ) -> None:
        super().__init__()
        self.space, self.count, self.name = space, count, name
        masked = {"operations": space.operations, "preprocess": ("preprocess",), "ends": ENDS}
        for place, names in masked.items():
            mask = _mask(names, count, allowed)
            self.register_buffer(f"{place}_mask", mask, persistent=False)

    def betas(self) -> dict[str, Shape]:
        """Shapes of the logits of operations, by the name of the parameter."""
        edges, operations = self.space.edges, len(self.space.operations)
        if self.count == 1:
            return {}
        if self.name == "network":
            return {WHOLE: (self.count,)}
        if self.name == "cell_type":
            return dict.fromkeys(CELL_TYPES, (self.count,))
        if self.name == "edge_operation":
            return dict.fromkeys(CELL_TYPES, (edges, operations, self.count))
        most = self._most_convolutions
        return {
            cell_type: (self._cells(cell_type), edges, operations, most, self.count)
            for cell_type in CELL_TYPES
        }

    def preprocess(self) -> dict[str, Shape]:
        """Shapes of the logits of preprocessing convolutions that have their own."""
        if self.count == 1 or self.name in ("network", "cell_type"):
            return {}
        if self.name == "edge_operation":
            return dict.fromkeys(CELL_TYPES, (2, self.count))
        return {cell_type: (self._cells(cell_type), 2, 2, self.count) for cell_type in CELL_TYPES}

    def ends(self) -> dict[str, Shape]:
        """Shapes of the logits of stem and classifier, where one of them has a choice."""
        if self.count == 1 or self.name == "network" or not self.has_ends:
            return {}
        return {WHOLE: (2, self.count)}

    @property
    def has_ends(self) -> bool:
        """Whether stem or classifier may be approximate."""
        return any(kind in self.space.approximated for kind in ENDS)

    def shares(
        self,
        cell_type: str,
        betas: nn.ParameterDict,
        preprocess: nn.ParameterDict,
        relaxed: Relaxation,
        alphas: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """``Choices.betas`` and ``Choices.preprocess`` of these logits.

        `relaxed` is asked once for each; `alphas` tell device and type where there are none.
        """
        grid = *alphas.shape, self.count
        if self.count == 1:
            return alphas.new_ones(grid), alphas.new_ones(2, 1)
        if not preprocess:
            row = relaxed(betas[WHOLE if self.name == "network" else cell_type])
            return row.expand(grid), row.expand(2, self.count)
        inside, first = betas[cell_type], preprocess[cell_type]
        if self.operations_mask is not None:
            mask = self.operations_mask
            inside = inside + (mask if inside.dim() == 3 else mask[:, None])
        if self.preprocess_mask is not None:
            first = first + self.preprocess_mask
        return relaxed(inside), relaxed(first)

    def end_shares(
        self, betas: nn.ParameterDict, ends: nn.ParameterDict, relaxed: Relaxation
    ) -> Tensor | None:
        """``Choices.ends``."""
        if self.count == 1 or not self.has_ends:
            return None
        if self.name == "network":
            return relaxed(betas[WHOLE]).expand(2, self.count)
        logits = ends[WHOLE]
        return relaxed(logits if self.ends_mask is None else logits + self.ends_mask)

    def _cells(self, cell_type: str) -> int:
        return sum(place.cell_type == cell_type for place in self.space.places)

    @property
    def _most_convolutions(self) -> int:
        names = [name for name in self.space.operations if name != "none"]
        return max(1, *(len(operation_kinds(name, 2)) for name in names))


def _mask(
    names: Sequence[str], count: int, allowed: Mapping[str, tuple[int, ...]]
) -> Tensor | None:
    """(names, M); None where all are allowed."""
    if not any(name in allowed for name in names):
        return None
    mask = torch.full((len(names), count), -torch.inf)
    for row, name in enumerate(names):
        mask[row, list(allowed.get(name, range(count)))] = 0.0
    return mask


def once(relaxed: Relaxation) -> Relaxation:
    """The same shares for the same parameter, also where they are drawn."""
    known: dict[int, Tensor] = {}

    def shares(logits: Tensor) -> Tensor:
        if not isinstance(logits, nn.Parameter):
            return relaxed(logits)
        if id(logits) not in known:
            known[id(logits)] = relaxed(logits)
        return known[id(logits)]

    return shares
