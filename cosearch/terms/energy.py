"""Expected energy: ``E = sum over layers l of alpha_l · sum over m of beta_lm · energy_lm``.

A sum of lines (``cosearch.energy_lines``). Divided by that of the same supernet with uniform alphas
and the exact multiplier everywhere, a constant: cheap operations win as well as cheap multipliers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from cosearch.energy_lines import available_lines
from cosearch.layer_use import LayerShares

from .costed import CostedSpace

__all__ = ["EnergyMeasure", "expected_lines_fj"]


@dataclass(frozen=True, eq=False)
class EnergyMeasure:
    """energies_fj (L, M): of each layer with each multiplier; reference_fj: what they are relative
    to.
    """

    energies_fj: Tensor
    reference_fj: float

    @classmethod
    def of(cls, space: CostedSpace, lines: Iterable[str]) -> "EnergyMeasure":
        """The sum of these lines."""
        names = list(lines)
        energies = sum(space.line_fj(name) for name in names)
        exact = sum(space.exact_line_fj(name) for name in names)
        assert isinstance(energies, Tensor) and isinstance(exact, Tensor)
        return cls(energies, float(_expected(exact, space.use.uniform_shares())))

    def relative(self, shares: LayerShares) -> Tensor:
        return self.expected_fj(shares) / self.reference_fj

    def expected_fj(self, shares: LayerShares) -> Tensor:
        """Expected energy of one inference in fJ, a scalar."""
        return _expected(self.energies_fj, shares)


def expected_lines_fj(space: CostedSpace) -> Mapping[str, EnergyMeasure]:
    """Each line alone, those that can be computed."""
    return {name: EnergyMeasure.of(space, [name]) for name in available_lines(space.array)}


def _expected(energies_fj: Tensor, shares: LayerShares) -> Tensor:
    return (shares.operations[:, None] * shares.multipliers * energies_fj).sum()
