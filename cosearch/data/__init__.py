"""Labelled images by name: a data set is one file here and one line in ``DATA_SETS``."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hw.errors import unknown_name

from .cifar10 import cifar10, place
from .data_set import DataSet as DataSet
from .data_set import Split as Split
from .digits import digits
from .image_folder import image_folder, source

if TYPE_CHECKING:
    from cosearch.config import Data

DATA_SETS: "dict[str, Callable[[int, Data], DataSet]]" = {
    "digits": digits,
    "cifar10": cifar10,
    "image_folder": image_folder,
}
# What finds the images that ``data.path`` names.
PLACES: dict[str, Callable[[str], object]] = {"cifar10": place, "image_folder": source}


def check_data_set(settings: "Data") -> None:
    """InputError where the images are not there; they are not read yet."""
    if settings.name in PLACES:
        PLACES[settings.name](settings.path)


def load_data_set(name: str, seed: int, settings: "Data | None" = None) -> DataSet:
    """The data set ``name``, divided into its splits by ``seed``; `settings` default to those of
    ``[data]``."""
    from cosearch.config import Data

    if name not in DATA_SETS:
        raise unknown_name("data set", name, DATA_SETS)
    return DATA_SETS[name](seed, settings or Data())
