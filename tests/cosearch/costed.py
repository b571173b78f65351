"""The small spaces of the tests with invented figures of multipliers and of an array."""

from collections.abc import Sequence
from typing import Any

from cosearch.array_figures import Addition, ArrayFigures
from cosearch.array_model import ArrayModel
from cosearch.config import Hardware, Search
from cosearch.layer_use import LayerUse
from cosearch.objective import Objective
from cosearch.supernet import Supernet
from cosearch.terms import CostedSpace, MultiplierFigures, terms_of

from .small import SHAPE

ENERGIES = [1.0, 0.7, 0.4]
DELAYS = [1000.0, 900.0, 600.0]
ADDITIONS = {width: Addition(10.0 + width, 300.0 + width) for width in range(17, 33)}
FIGURES = ArrayFigures("example45", 500.0, ADDITIONS, 90.0)
ARRAY = ArrayModel(Hardware(array_rows=8, array_columns=8, on_chip_kib=0.5), FIGURES)


def costed(
    net: Supernet, energies: Sequence[float] = ENERGIES, array: ArrayModel = ARRAY
) -> CostedSpace:
    """The first of the candidates is the exact multiplier."""
    figures = tuple(map(MultiplierFigures, energies, DELAYS))
    return CostedSpace(LayerUse.of(net, SHAPE), figures, figures[0], array)


def objective_of(net: Supernet, energy_weight: float, **settings: Any) -> Objective:
    """With the terms of these settings."""
    space = costed(net)
    return Objective(space.use, terms_of(space, Search(energy_weight=energy_weight, **settings)))
