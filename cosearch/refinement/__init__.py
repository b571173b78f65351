"""How the multipliers of a trained network are scored layer by layer: one file a method."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosearch.progress import Progress
from hw.errors import unknown_name

from .betas import beta_scores
from .problem import Indices as Indices
from .problem import Measured as Measured
from .problem import Problem as Problem
from .sensitivity import sensitivity_scores

# Scores (layers, multipliers), the higher the better; only their sum matters. What was measured is
# kept in the folder, and not measured again.
Refinement = Callable[[Problem, Path, Progress], NDArray[np.float64]]

REFINEMENTS: dict[str, Refinement] = {"sensitivity": sensitivity_scores, "betas": beta_scores}


def refinement(name: str) -> Refinement:
    """The method of this name; InputError with the nearest one where there is none."""
    if name not in REFINEMENTS:
        raise unknown_name("refinement", name, REFINEMENTS)
    return REFINEMENTS[name]
