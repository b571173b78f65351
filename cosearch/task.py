"""What a search, a training or an evaluation works on: images, space and multipliers of one run."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cosearch.array_figures import ArrayFigures, read_array_figures
from cosearch.array_model import ArrayModel
from cosearch.assignment import Assignment
from cosearch.checkpoint import load_checkpoint
from cosearch.config import Config
from cosearch.data import DataSet, load_data_set
from cosearch.data.augmentation import Augmentation
from cosearch.genotype import Genotype, MultiplierChoice
from cosearch.operand_statistics import OperandStatistics
from cosearch.run_folder import RunFolder
from cosearch.space import SearchSpace
from cosearch.terms import MultiplierFigures
from hw.errors import InputError
from hw.files import read_json
from lut import MultiplierLibrary

__all__ = [
    "Task",
    "cosine",
    "interrupted_state",
    "read_genotype",
    "resumable_key",
]


@dataclass(frozen=True)
class Task:
    """Data, space, the library of multipliers, whose first entry is the exact one, and the figures
    of the array, None in runs of before there were any. operands: statistics that the search has
    gathered; luts: the folder of the multipliers.
    """

    config: Config
    data: DataSet
    space: SearchSpace
    library: MultiplierLibrary
    figures: ArrayFigures | None = None
    operands: OperandStatistics | None = None
    luts: Path | None = None
    assignment: Assignment | None = None  # where the run is a refined one

    @classmethod
    def of(cls, run: RunFolder) -> "Task":
        config = run.config
        data = load_data_set(config.data.name, config.seed, config.data)
        space = SearchSpace(
            channels=config.space.channels,
            cells=config.space.cells,
            nodes=config.space.nodes,
            operations=config.space.operations,
            image_channels=data.channels,
            classes=data.classes,
            approximated=config.space.approximated,
            by_edge=config.space.edge_operations(),
        )
        library, figures = MultiplierLibrary.load(run.luts), read_array_figures(run.luts)
        return cls(
            config, data, space, library, figures, _operands(run), run.luts, _assignment(run)
        )

    @property
    def found_space(self) -> SearchSpace:
        """The macro structure of the found network: `train.channels` and `train.cells` of it."""
        train, space = self.config.train, self.space
        return replace(
            space,
            channels=train.channels or space.channels,
            cells=train.cells or space.cells,
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.data.channels, self.data.size, self.data.size

    def augmentation(self, cutout: int = 0) -> Augmentation:
        """Of the images of a search, or with `cutout` of a training."""
        padding, size = self.config.data.crop_padding, self.data.size
        if padding >= size:
            raise InputError(
                f"data.crop_padding must be less than the images' size ({size}), not {padding}"
            )
        return Augmentation(padding, self.config.data.flip, cutout)

    @property
    def array(self) -> ArrayModel:
        """The hardware that networks are costed on."""
        return ArrayModel(self.config.hardware, self.figures)

    def multiplier_figures(self, name: str) -> MultiplierFigures:
        """Energy and delay of a multiplier of the library, under the operands gathered."""
        cost = self.library[name].cost
        by_kind = {} if self.operands is None else self.operands.of_multiplier(name)
        return MultiplierFigures(cost.energy_fj, cost.delay_ps, by_kind)

    @property
    def searched(self) -> tuple[str, ...]:
        """The multipliers that betas weigh: the candidates, or the one that is fixed."""
        fixed = self.config.search.fixed_multiplier
        return (fixed,) if fixed else self.config.multipliers.candidates

    @property
    def exact_name(self) -> str:
        return self.config.multipliers.candidates[0]

    @property
    def exact(self) -> MultiplierChoice:
        entry = self.library[self.exact_name]
        return MultiplierChoice(entry.name, entry.digest)


def _operands(run: RunFolder) -> OperandStatistics | None:
    """What a finished search has gathered."""
    path = run.search_operands
    if not path.exists() or not run.finished("search"):
        return None
    return OperandStatistics.from_json(read_json(path), str(path))


def read_genotype(run: RunFolder) -> Genotype:
    """The genotype of a run whose search is finished."""
    return Genotype.from_json(read_json(run.genotype), str(run.genotype))


def _assignment(run: RunFolder) -> Assignment | None:
    path = run.assignment
    return Assignment.from_json(read_json(path), str(path)) if path.exists() else None


def interrupted_state(path: Path, stage: str, run: RunFolder) -> dict[str, Any] | None:
    """The checkpoint at `path` that an interrupted stage left, or None; InputError when damaged."""
    if not path.exists():
        return None
    try:
        return load_checkpoint(path)
    except InputError as error:
        raise InputError(f"{error}; do it anew with: cosearch {stage} --force {run.path}") from None


def cosine(epoch: int, epochs: int, highest: float, lowest: float) -> float:
    """Learning rate of `epoch`: from `highest` along half a cosine towards `lowest`."""
    phase = torch.tensor(epoch / epochs, dtype=torch.float64) * torch.pi
    return lowest + (highest - lowest) * float(1 + torch.cos(phase)) / 2


def resumable_key(config: Config) -> str:
    """SHA-256 of the configuration; a checkpoint belongs to one."""
    return hashlib.sha256(config.to_toml().encode()).hexdigest()
