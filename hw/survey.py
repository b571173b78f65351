"""The figures of many multipliers, computed in parallel processes and remembered."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from .activity import ENERGY_MODELS, EnergyModel
from .cache import Cache, Unknown, cached_cost, cached_netlist
from .costs import CLOCK_MHZ, Cost
from .liberty import CellLibrary, find_library
from .multipliers.catalogue import CIRCUITS
from .multipliers.saved import find_multiplier, parse_saved_name


@dataclass(frozen=True)
class Survey:
    """What is to be computed of each multiplier; ``cells`` as for ``find_library``.

    ``circuits``: the folder of saved circuits.
    """

    cells: str = ""
    models: tuple[EnergyModel, ...] = ENERGY_MODELS
    clock_mhz: float = CLOCK_MHZ
    circuits: Path = CIRCUITS
    cache: Cache | None = None


def survey(
    names: Sequence[str], what: Survey, processes: int = 0
) -> Iterator[tuple[str, Mapping[EnergyModel, Cost]]]:
    """Name and costs by energy model, in the order of the names.

    ``processes``: 0 for as many as this process has cores. They are spawned, so a script that calls
    this must guard its own work with ``if __name__ == "__main__"``.
    """
    known = {name: _known(name, what) for name in names}
    unknown = [name for name in names if known[name] is None]
    found = iter(_computed(unknown, what, processes))
    for name in names:
        remembered = known[name]
        yield name, next(found) if remembered is None else remembered


def _known(name: str, what: Survey) -> Mapping[EnergyModel, Cost] | None:
    cache = replace(what.cache or Cache.usual(), only_known=True)
    try:
        return costs(name, replace(what, cache=cache))
    except Unknown:
        return None


def _computed(
    names: Sequence[str], what: Survey, processes: int
) -> Iterator[Mapping[EnergyModel, Cost]]:
    count = min(processes or len(os.sched_getaffinity(0)), len(names))
    if count < 2:
        yield from (costs(name, what) for name in names)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield from pool.map(costs, names, [what] * len(names))


def costs(name: str, what: Survey) -> dict[EnergyModel, Cost]:
    """The costs of one multiplier, by energy model."""
    cache = what.cache or Cache.usual()
    library = _library(what.cells)
    if parse_saved_name(name) is None:
        netlist = cached_netlist(name, cache)
    else:
        netlist = find_multiplier(name, what.circuits).netlist
    return {
        model: cached_cost(netlist, library, cache, model=model, clock_mhz=what.clock_mhz)
        for model in what.models
    }


_libraries: dict[tuple[str, float], CellLibrary] = {}


def _library(cells: str) -> CellLibrary:
    """Read once a process, and again when the file has changed."""
    path = Path(cells)
    key = cells, path.stat().st_mtime if cells and path.exists() else 0.0
    if key not in _libraries:
        _libraries[key] = find_library(cells)
    return _libraries[key]
