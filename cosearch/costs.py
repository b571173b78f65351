"""``cosearch lut cost``: the three energies of multipliers, their delay and area, as lines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.activity import ENERGY_MODELS
from hw.cache import Cache, cached_cost
from hw.costs import Cost, Operands
from hw.errors import InputError
from hw.liberty import find_library
from hw.multipliers import build_multiplier


def cost_lines(
    names: Sequence[str], operands: Operands, *, cells: str, clock_mhz: float, circuits: Path
) -> Iterator[str]:
    """Three lines a multiplier, one an energy; the published-comparable knows no operands."""
    library = find_library(cells)
    for name in names:
        netlist = build_multiplier(name, circuits).netlist
        for model in ENERGY_MODELS:
            given = Operands() if model == "published-comparable" else operands
            cost = cached_cost(
                netlist, library, Cache.usual(), given, model=model, clock_mhz=clock_mhz
            )
            yield _line(name, cost)


def read_stream(path: Path | None) -> NDArray[Any] | None:
    """A recorded stream of operand pairs: ``.npy``, integers of shape (length, 2)."""
    if path is None:
        return None
    try:
        stream = np.load(path, allow_pickle=False)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} must be a .npy file, but there is no such file") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} must be a .npy file with operand pairs, not {error}") from None
    if not isinstance(stream, np.ndarray):
        raise InputError(f"{path} must be a .npy file with one array, not an archive")
    return stream


def _line(name: str, cost: Cost) -> str:
    return (
        f"{name}: {cost.energy_fj:.1f} fJ {cost.model} ({cost.activity}), "
        f"{cost.power_mw:.4f} mW at {cost.clock_mhz:g} MHz, {cost.delay_ps:.0f} ps, "
        f"{cost.area_um2:.1f} µm² on {cost.library}"
    )
