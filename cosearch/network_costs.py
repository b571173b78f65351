"""What an inference of a discrete network costs: energy by line, clocks and latency, by layer.

The supernet's expectations (``cosearch.terms``) are these figures where its shares are one-hot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosearch.array_model import ArrayModel
from cosearch.energy_lines import LINES, available_lines
from cosearch.layers import LayerRecord
from cosearch.terms import MultiplierFigures
from cosearch.terms.latency import latency_ms

__all__ = ["LayerCosts", "NetworkCosts", "float_costs", "network_costs"]


@dataclass(frozen=True)
class LayerCosts:
    """Energies of one inference in nJ by line, and clocks on the array."""

    lines_nj: Mapping[str, float]
    clocks: int


@dataclass(frozen=True)
class NetworkCosts:
    """By layer, in order; period_ps of the array's clock, None where no figures say it."""

    layers: tuple[LayerCosts, ...]
    period_ps: float | None

    @property
    def lines_nj(self) -> dict[str, float]:
        """Sums over the layers."""
        names = self.layers[0].lines_nj
        return {name: sum(layer.lines_nj[name] for layer in self.layers) for name in names}

    @property
    def clocks(self) -> int:
        return sum(layer.clocks for layer in self.layers)

    @property
    def latency_ms(self) -> float | None:
        return None if self.period_ps is None else latency_ms(self.clocks, self.period_ps)


def network_costs(
    layers: Sequence[LayerRecord], multipliers: Sequence[MultiplierFigures], array: ArrayModel
) -> NetworkCosts:
    """Of a network whose layers use these multipliers, one each."""
    found = []
    for layer, multiplier in zip(layers, multipliers, strict=True):
        found.append(_layer_costs(layer, array, multiplier.energy(layer.kind)))
    known = array.figures is not None
    period = array.period_ps(max(m.delay_ps for m in multipliers)) if known else None
    return NetworkCosts(tuple(found), period)


def float_costs(layers: Sequence[LayerRecord], array: ArrayModel) -> NetworkCosts:
    """Of the network in fp32 on such an array of binary32 units; nothing says its latency."""
    wide, energy = array.in_float32(), array.known.float_multiplication_fj
    return NetworkCosts(tuple(_layer_costs(layer, wide, energy) for layer in layers), None)


def _layer_costs(layer: LayerRecord, array: ArrayModel, energy_fj: float) -> LayerCosts:
    lines = {name: LINES[name](layer, array, energy_fj) * 1e-6 for name in available_lines(array)}
    return LayerCosts(lines, array.schedule(layer.shape).clocks)
