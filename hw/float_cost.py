"""What a floating-point multiplication costs, from gates and under sampled operands.

Operands of 16 or 32 bits cannot all be enumerated. The circuit works through a stream of operand
pairs: given ones, or independent draws from the standard normal distribution, of a fixed seed.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .activity import stream_activity
from .costs import CLOCK_MHZ, Cost, netlist_cost
from .errors import InputError
from .liberty import CellLibrary, default_library
from .multipliers.floating_point import FLOAT_FORMATS, float_multiplier
from .synthesis import synthesise

PAIRS = 4096
"""Operand pairs drawn: the energy's standard error is then below half a percent."""


def float_multiplier_cost(
    name: str,
    library: CellLibrary | None = None,
    *,
    clock_mhz: float = CLOCK_MHZ,
    values: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Cost:
    """The cost of one multiplication in format ``float32`` or ``bfloat16``, at zero delay.

    ``values``: numbers of shape (length, 2), one operand pair after the other, rounded to the
    format; without them ``PAIRS`` pairs are drawn, standard normal, with ``seed``.
    """
    cells = library or default_library()
    mapped = synthesise(float_multiplier(name), cells)
    if values is None:
        drawn = np.random.default_rng(seed).standard_normal((PAIRS, 2))
        source = f"{PAIRS} pairs of independent standard normal operands, seed {seed}"
    else:
        drawn = np.asarray(values, np.float64)
        source = f"recorded stream of {len(drawn)} operand pairs"
    if drawn.ndim != 2 or drawn.shape[1] != 2 or len(drawn) < 2:
        raise InputError(f"operands must be of shape (at least 2, 2), not {drawn.shape}")
    activity = stream_activity(mapped, float_patterns(name, drawn))
    named = replace(activity, name=f"{source}, in {name}, zero delay")
    return netlist_cost(mapped, cells, named, clock_mhz=clock_mhz)


def float_patterns(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The bit patterns of numbers rounded to the format, to nearest, ties to even."""
    single = np.asarray(values, np.float64).astype(np.float32).view(np.uint32).astype(np.int64)
    dropped = FLOAT_FORMATS["float32"].width - FLOAT_FORMATS[name].width
    if dropped == 0:
        return single
    rounded = single + (1 << dropped - 1) - 1 + (single >> dropped & 1)
    return rounded >> dropped
