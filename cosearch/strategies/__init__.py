"""Search strategies: how alphas, betas and weights move in one step. One file each."""

from collections.abc import Callable

from cosearch.config import Search
from hw.errors import unknown_name

from .darts import Darts
from .darts_second_order import DartsSecondOrder
from .drnas import Drnas
from .gdas import Gdas
from .pc_darts import PartialChannelDarts
from .strategy import Batch as Batch
from .strategy import Step as Step
from .strategy import Strategy as Strategy

STRATEGIES: dict[str, Callable[[Search], Strategy]] = {
    "darts": Darts,
    "darts_second_order": DartsSecondOrder,
    "pc_darts": PartialChannelDarts,
    "gdas": Gdas,
    "drnas": Drnas,
}


def strategy(name: str, settings: Search | None = None) -> Strategy:
    """The strategy `name` with its `settings` (default: those of a new configuration); InputError
    with the nearest match where there is none.
    """
    if name not in STRATEGIES:
        raise unknown_name("search strategy", name, STRATEGIES)
    return STRATEGIES[name](settings or Search())
