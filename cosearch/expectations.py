"""What a search records of its supernet: expected energy, each line of it, and latency."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cosearch.layer_use import LayerShares
from cosearch.terms import CostedSpace, EnergyMeasure, LatencyMeasure
from cosearch.terms.energy import expected_lines_fj

__all__ = ["Expectations"]


@dataclass(frozen=True, eq=False)
class Expectations:
    """energy: of the lines that are minimised; lines: each alone; latency: None where the run has
    no figures of an array.
    """

    energy: EnergyMeasure
    lines: Mapping[str, EnergyMeasure]
    latency: LatencyMeasure | None

    @classmethod
    def of(cls, space: CostedSpace, minimised: Iterable[str]) -> "Expectations":
        latency = None if space.array.figures is None else LatencyMeasure.of(space)
        return cls(EnergyMeasure.of(space, minimised), expected_lines_fj(space), latency)

    def __call__(self, shares: LayerShares) -> dict[str, Any]:
        """A row's entries: energy and latency relative to exact int8, lines in nJ, latency in
        ms.
        """
        row: dict[str, Any] = {
            "expected_energy": float(self.energy.relative(shares)),
            "expected_lines_nj": {
                name: float(line.expected_fj(shares)) * 1e-6 for name, line in self.lines.items()
            },
        }
        if self.latency is not None:
            row["expected_latency"] = float(self.latency.relative(shares))
            row["expected_latency_ms"] = float(self.latency.expected_ms(shares))
        return row
