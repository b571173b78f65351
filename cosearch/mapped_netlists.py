"""Multipliers as the library's cells, kept in the run: energies under other operands need no
synthesis.

Written at the stage ``lut`` as ``luts/mapped.json`` where `search.operand_statistics` is gathered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosearch.config import Hardware
from hw.cache import Cache, cached_mapping, mapping_from_json, mapping_to_json
from hw.costs import Operands, mapped_cost
from hw.errors import InputError
from hw.files import read_json, write_json
from hw.liberty import CellLibrary, find_library
from hw.netlist import Netlist

__all__ = ["FILE", "MappedNetlists", "read_mapped_netlists", "write_mapped_netlists"]

FILE = "mapped.json"


@dataclass(frozen=True, eq=False)
class MappedNetlists:
    """By the multiplier's name, on the cells of `library`."""

    netlists: Mapping[str, Netlist]
    library: CellLibrary
    clock_mhz: float

    def energy_fj(
        self, name: str, activations: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> float:
        """Of a multiplication of independent operands with these histograms by bit pattern."""
        operands = Operands(activations, weights)
        netlist = self.netlists[name]
        return mapped_cost(netlist, self.library, operands, clock_mhz=self.clock_mhz).energy_fj


def write_mapped_netlists(
    names: Sequence[str], hardware: Hardware, circuits: Path, luts: Path
) -> None:
    """Of these multipliers, into the folder of the run's multipliers."""
    from hw.multipliers import build_multiplier

    library, cache = find_library(hardware.cells), Cache.usual()
    content = {}
    for name in names:
        netlist = build_multiplier(name, circuits).netlist
        content[name] = mapping_to_json(cached_mapping(netlist, library, cache))
    write_json(luts / FILE, content)


def read_mapped_netlists(names: Sequence[str], hardware: Hardware, luts: Path) -> MappedNetlists:
    """Those of the run in `luts`; InputError where they are missing or of other cells."""
    path = luts / FILE
    if not path.exists():
        raise InputError(
            f"{path} must exist for search.operand_statistics = 'gathered', it is missing; "
            "run: cosearch lut --force"
        )
    library, content = find_library(hardware.cells), read_json(path)
    try:
        netlists = {name: mapping_from_json(name, content[name], library.kinds) for name in names}
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise InputError(
            f"{path} must hold every candidate on the cells of {library.name} ({error})"
        ) from None
    return MappedNetlists(netlists, library, hardware.clock_mhz)
