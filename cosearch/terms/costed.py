"""What terms are made of: the layers of a space, its multipliers' figures, and the array."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cosearch.array_model import ArrayModel
from cosearch.energy_lines import LINES
from cosearch.layer_use import LayerUse

__all__ = ["CostedSpace", "MultiplierFigures"]


@dataclass(frozen=True)
class MultiplierFigures:
    """energy_fj of a multiplication and delay_ps of a multiplier.

    by_kind: energies under the operands that layers of a kind see, where those were gathered.
    """

    energy_fj: float
    delay_ps: float
    by_kind: Mapping[str, float] = field(default_factory=dict)

    def energy(self, kind: str) -> float:
        """Of a multiplication in a layer of that kind, in fJ."""
        return self.by_kind.get(kind, self.energy_fj)


@dataclass(frozen=True, eq=False)
class CostedSpace:
    """candidates: figures of the multipliers that are searched over, in their order."""

    use: LayerUse
    candidates: tuple[MultiplierFigures, ...]
    exact: MultiplierFigures
    array: ArrayModel

    def line_fj(self, name: str) -> Tensor:
        """(L, M): energy of each layer with each candidate, in fJ; exact layers with the exact."""
        rows = [
            self._row(name, index, self.candidates if not fixed else None)
            for index, fixed in enumerate(self.use.exact)
        ]
        return self._tensor(rows)

    def exact_line_fj(self, name: str) -> Tensor:
        """(L, 1): energy of each layer with the exact multiplier, in fJ."""
        indices = range(len(self.use.layers))
        return self._tensor([self._row(name, index, (self.exact,)) for index in indices])

    def clocks(self) -> Tensor:
        """(L,): clocks of each layer."""
        return self._tensor([self.array.schedule(one.shape).clocks for one in self.use.layers])

    def _row(
        self, name: str, index: int, multipliers: Iterable[MultiplierFigures] | None
    ) -> list[float]:
        layer = self.use.layers[index]
        figures = [self.exact] * len(self.candidates) if multipliers is None else multipliers
        return [LINES[name](layer, self.array, one.energy(layer.kind)) for one in figures]

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.use.operations.device)
