"""A mirror of metrics for TensorBoard; ``metrics.jsonl`` stays the source of truth.

The numbers of each row become scalars by their names, in ``tensorboard/<loop>`` of the run folder.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from cosearch.config import Config
from cosearch.run_folder import RunFolder
from hw.errors import InputError

__all__ = ["check_mirror", "mirrored"]

NOT_SCALARS = ("epoch",)


def check_mirror(config: Config) -> None:
    """InputError where a mirror is asked for and TensorBoard is not installed."""
    if config.tensorboard and find_spec("tensorboard") is None:
        raise InputError(
            "tensorboard must be false where TensorBoard is not installed, not true; "
            "install it with: pip install 'cosearch[tensorboard]'"
        )


@contextlib.contextmanager
def mirrored(
    run: RunFolder, loop: str, epoch: int, wanted: bool = True
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What to call with every row after `epoch`; it does nothing where no mirror is `wanted`.

    Rows after `epoch` that an interrupted loop left are hidden.
    """
    if not (wanted and run.config.tensorboard):
        yield lambda row: None
        return
    check_mirror(run.config)
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.path / "tensorboard" / loop), purge_step=epoch + 1)

    def mirror(row: Mapping[str, Any]) -> None:
        for name, value in _scalars(row):
            writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    try:
        yield mirror
    finally:
        writer.close()


def _scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers by name, those inside tables and lists by path."""
    for name, value in row.items():
        if name not in NOT_SCALARS:
            yield from _numbers(name, value)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(f"{name}/{index}", inner)
    elif isinstance(value, (int, float)) and math.isfinite(value):
        yield name, float(value)
