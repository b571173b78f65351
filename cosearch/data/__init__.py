"""Labelled images by name: a data set is one file here and one line in ``DATA_SETS``."""

from collections.abc import Callable

from hw.errors import unknown_name

from .data_set import DataSet as DataSet
from .data_set import Split as Split
from .digits import digits

DATA_SETS: dict[str, Callable[[int], DataSet]] = {
    "digits": digits,
}


def load_data_set(name: str, seed: int) -> DataSet:
    """The data set ``name``, divided into its splits by ``seed``."""
    if name not in DATA_SETS:
        raise unknown_name("data set", name, DATA_SETS)
    return DATA_SETS[name](seed)
