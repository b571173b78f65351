"""The best choice of yes and no under linear constraints: an integer program for HiGHS.

Source of the solver: Huangfu and Hall, Parallelizing the dual revised simplex method, Mathematical
Programming Computation 10 (2018); here through scipy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

__all__ = ["Constraint", "best_choice", "exactly", "one_of_each"]

Choice = NDArray[np.bool_]
INFEASIBLE = 2
FREE = float("inf")


@dataclass(frozen=True, eq=False)
class Constraint:
    """``low <= coefficients @ choice <= high``; coefficients (n,)."""

    coefficients: NDArray[np.float64]
    high: float
    low: float = -FREE


def exactly(number: int, members: NDArray[np.bool_]) -> Constraint:
    """So many of `members` (n,) are chosen."""
    return Constraint(members.astype(np.float64), number, number)


def one_of_each(groups: Sequence[int]) -> list[Constraint]:
    """One of each group is chosen; `groups` says of every variable which it belongs to."""
    numbers = np.asarray(groups)
    return [exactly(1, numbers == group) for group in sorted(set(groups))]


def best_choice(
    scores: NDArray[np.float64],
    constraints: Sequence[Constraint],
    accepted: Callable[[Choice], bool] = lambda choice: True,
) -> Choice | None:
    """The choice (n,) of the highest sum of scores; None where no choice keeps the constraints.

    The solver keeps constraints up to a tolerance. What `accepted` then refuses is cut off by a
    constraint of its own (at least one of its members is not chosen), and the next best is taken.
    """
    kept = list(constraints)
    scale = float(np.abs(scores).max()) or 1.0
    while True:
        choice = _solved(-scores / scale, kept)
        if choice is None or accepted(choice):
            return choice
        kept.append(Constraint(choice.astype(np.float64), int(choice.sum()) - 1))


def _solved(costs: NDArray[np.float64], constraints: Sequence[Constraint]) -> Choice | None:
    rows = np.stack([constraint.coefficients for constraint in constraints])
    limits = LinearConstraint(
        rows, [one.low for one in constraints], [one.high for one in constraints]
    )
    found = milp(
        costs,
        integrality=np.ones_like(costs),
        bounds=Bounds(0, 1),
        constraints=limits,
        options={"mip_rel_gap": 0.0},
    )
    if found.status == INFEASIBLE:
        return None
    assert found.x is not None, found.message
    return np.asarray(found.x > 0.5)
