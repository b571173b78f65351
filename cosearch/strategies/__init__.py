"""Search strategies: how alphas, betas and weights move in one step. One file each."""

from hw.errors import unknown_name

from .darts import Darts
from .strategy import Batch as Batch
from .strategy import Strategy as Strategy

STRATEGIES: dict[str, Strategy] = {
    "darts": Darts(),
}


def strategy(name: str) -> Strategy:
    """The strategy `name`; InputError with the nearest match where there is none."""
    if name not in STRATEGIES:
        raise unknown_name("search strategy", name, STRATEGIES)
    return STRATEGIES[name]
