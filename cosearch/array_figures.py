"""What the units of an array cost beside their multipliers, synthesised once and kept in the run.

Written at the stage ``lut`` as ``luts/array.json``: later stages read it and synthesise nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosearch.config import Hardware
from hw.errors import InputError
from hw.files import read_json, write_json

__all__ = [
    "FILE",
    "Addition",
    "ArrayFigures",
    "build_array_figures",
    "read_array_figures",
    "write_array_figures",
]

FORMAT = 1
FILE = "array.json"
NARROWEST = 17  # bits of a sum of one product


@dataclass(frozen=True)
class Addition:
    """One addition of a product to a partial sum: energy in fJ, delay in ps."""

    energy_fj: float
    delay_ps: float


@dataclass(frozen=True)
class ArrayFigures:
    """Additions by width in bits, and the energy of a multiplication in float32."""

    library: str
    clock_mhz: float
    additions: Mapping[int, Addition]
    float_multiplication_fj: float

    def addition(self, width: int) -> Addition:
        """Of `width` bits; the widest there is for sums that are wider."""
        return self.additions[min(max(width, NARROWEST), max(self.additions))]


def build_array_figures(
    hardware: Hardware, progress: Callable[[Sequence[str]], Iterator[str]] = iter
) -> ArrayFigures:
    """By synthesis, for all widths of sums up to `hardware.accumulator_width`; `progress` wraps
    their names.
    """
    from hw.accumulator import accumulator_cost
    from hw.cache import Cache, cached_float_cost
    from hw.liberty import find_library

    library, cache, clock = find_library(hardware.cells), Cache.usual(), hardware.clock_mhz
    widths = {f"{n} bits": n for n in range(NARROWEST, hardware.accumulator_width + 1)}
    additions = {}
    for name in progress(list(widths)):
        cost = accumulator_cost(widths[name], library, cache, clock_mhz=clock)
        additions[widths[name]] = Addition(cost.energy_fj, cost.delay_ps)
    multiplication = cached_float_cost("float32", library, cache, clock_mhz=clock)
    return ArrayFigures(library.name, clock, additions, multiplication.energy_fj)


def write_array_figures(figures: ArrayFigures, luts: Path) -> None:
    """Into the folder of the run's multipliers."""
    additions = {str(width): vars(one) for width, one in figures.additions.items()}
    content = {"format": FORMAT, **vars(figures), "additions": additions}
    write_json(luts / FILE, content)


def read_array_figures(luts: Path) -> ArrayFigures | None:
    """None in a run whose multipliers were built before there were such figures."""
    path = luts / FILE
    if not path.exists():
        return None
    data = read_json(path)
    try:
        if data["format"] != FORMAT:
            raise InputError(f"{path} must be of format {FORMAT}, not {data['format']!r}")
        additions = {
            int(width): Addition(float(one["energy_fj"]), float(one["delay_ps"]))
            for width, one in data["additions"].items()
        }
        floats = float(data["float_multiplication_fj"])
        return ArrayFigures(str(data["library"]), float(data["clock_mhz"]), additions, floats)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} must hold the figures of an array, not lack {error}") from None
