"""The configuration of a run: frozen, documented field by field, in TOML and out again.

Every field carries in its metadata what it means, its unit and its range; values are checked when
an object is made, so a ``Config`` in hand is a valid one. Reading one does not load torch.
"""

import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hw.errors import InputError, unknown_name

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""Those of DARTS."""
NOISE = "noise"
KNOWN_OPERATIONS = (*OPERATIONS, NOISE)
CELL_TYPES = ("normal", "reduction")
BETA_GRAINS = ("network", "cell_type", "edge_operation", "layer")
OPERAND_STATISTICS = ("uniform", "gathered")
STRATEGIES = ("darts", "darts_second_order", "pc_darts", "gdas", "drnas")
SELECTIONS = ("argmax", "perturbation")
ARITHMETICS = ("emulated", "real")
GRADIENTS = ("straight_through", "difference", "fitted")
DATA_SETS = ("digits", "cifar10", "image_folder")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "bf16")
EXACT_MULTIPLIER = "mul8s_array"
LAYER_KINDS = ("stem", "preprocess", "depthwise", "pointwise", "classifier")
INSIDE_CELLS = ("preprocess", "depthwise", "pointwise")
ENERGY_LINES = (
    "multiplications",
    "accumulators",
    "registers",
    "on_chip_memory",
    "off_chip_memory",
)


def _setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its meaning, unit and range: closed at minimum and maximum, else open."""
    return field(
        default=default,
        metadata={
            "meaning": meaning,
            "unit": unit,
            "minimum": minimum,
            "maximum": maximum,
            "above": above,
            "below": below,
            "choices": choices,
        },
    )


@dataclass(frozen=True)
class Section:
    """A table of the configuration; its class name in lower case is the table's name."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            key = f"{type(self).__name__.lower()}.{setting.name}"
            value = checked_value(key, getattr(self, setting.name), setting)
            object.__setattr__(self, setting.name, value)


@dataclass(frozen=True)
class Hardware(Section):
    """What the multipliers are made of."""

    cells: str = _setting(
        "",
        "cell library: Liberty file, several by commas or their folder, or osu018, osu035, osu050 "
        "where Debian installed them; empty: the embedded default",
    )
    clock_mhz: float = _setting(500.0, "clock the energy is stated at", unit="MHz", above=0.0)
    array_rows: int = _setting(16, "rows of the weight-stationary array", minimum=1, maximum=1024)
    array_columns: int = _setting(16, "columns of the array", minimum=1, maximum=1024)
    accumulator_width: int = _setting(
        32, "partial sums of the array", unit="bits", minimum=17, maximum=64
    )
    product_register: int = _setting(
        0,
        "1: a register between multiplier and adder: the clock's period is the longer of their "
        "delays; 0: none, it is their sum",
        minimum=0,
        maximum=1,
    )
    register_clock_fj: float = _setting(
        26.3,
        "a clock of a register whose bit rests; DFFPOSX1 of OSU's cells for FreePDK45",
        unit="fJ per bit",
        minimum=0.0,
    )
    register_edge_fj: float = _setting(
        16.3,
        "what an edge of its bit adds; DFFPOSX1 of OSU's cells for FreePDK45",
        unit="fJ per bit",
        minimum=0.0,
    )
    on_chip_kib: float = _setting(
        32.0, "on-chip memory for a layer's input and output", unit="KiB", minimum=0.0
    )
    on_chip_pj: float = _setting(
        2.5,
        "on-chip memory, written or read; 20 pJ per 64 bits of 32 KB (Horowitz, ISSCC 2014)",
        unit="pJ per byte",
        minimum=0.0,
    )
    off_chip_pj: float = _setting(
        162.5,
        "off-chip memory; 1.3 nJ per 64 bits of DRAM, the least of Horowitz, ISSCC 2014",
        unit="pJ per byte",
        minimum=0.0,
    )


@dataclass(frozen=True)
class Multipliers(Section):
    """Which multipliers are built, and which of them the search may choose."""

    candidates: tuple[str, ...] = _setting(
        (
            EXACT_MULTIPLIER,
            "mul8s_truncated_k5",
            "mul8s_truncated_k7",
            "mul8s_truncated_k8",
            "mul8s_truncated_k9",
            "mul8s_broken_array_h2_v7",
        ),
        "signed 8-bit multipliers that are searched over; the first is the exact one",
    )
    built_also: tuple[str, ...] = _setting(
        ("mul8u_array", "mul8u_truncated_k7", "mul8u_broken_array_h2_v7"),
        "multipliers that are built and characterised, too",
    )
    circuits: str = _setting(
        "circuits", "folder of the circuits that `cosearch lut evolve` wrote, named by their digest"
    )

    by_operation: tuple[str, ...] = _setting(
        (),
        'candidates of one operation, "sep_conv_3x3: mul8s_array mul8s_truncated_k5", or of stem, '
        "preprocess or classifier; all the others may use any",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_list("multipliers.candidates", self.candidates)
        _check_list("multipliers.built_also", self.built_also, may_be_empty=True)
        if self.candidates[0] != EXACT_MULTIPLIER:
            raise InputError(
                "multipliers.candidates must begin with the exact multiplier "
                f"{EXACT_MULTIPLIER!r}, not {self.candidates[0]!r}"
            )
        for name in self.built_also:
            if name in self.candidates:
                raise InputError(
                    "multipliers.built_also must name multipliers beside the candidates, "
                    f"not {name!r}"
                )
        self._check_by_operation()

    def allowed(self) -> dict[str, tuple[int, ...]]:
        """By operation or kind of layer: the numbers of the candidates it may use."""
        entries = [entry.partition(":") for entry in self.by_operation]
        numbers = {name: number for number, name in enumerate(self.candidates)}
        return {
            key.strip(): tuple(sorted(numbers[name] for name in names.split()))
            for key, _, names in entries
        }

    def _check_by_operation(self) -> None:
        outside = ("stem", "preprocess", "classifier")
        known = [name for name in OPERATIONS if "conv" in name or name == "skip_connect"]
        keys = tuple(entry.partition(":")[0].strip() for entry in self.by_operation)
        _check_list("multipliers.by_operation", keys, may_be_empty=True)
        for key, entry in zip(keys, self.by_operation, strict=True):
            if key not in (*known, *outside):
                raise unknown_name("operation of multipliers.by_operation", key, (*known, *outside))
            names = entry.partition(":")[2].split()
            _check_list(f"multipliers.by_operation of {key}", tuple(names))
            for name in names:
                if name not in self.candidates:
                    raise unknown_name(
                        f"multiplier of {key} in multipliers.by_operation", name, self.candidates
                    )


@dataclass(frozen=True)
class Data(Section):
    """The images."""

    name: str = _setting("digits", "data set", choices=DATA_SETS)
    path: str = _setting(
        "",
        "of cifar10: its published archive, or the folder it is in; of image_folder: folder or ZIP "
        "with train/<class>/*.png or *.jpg",
    )
    validation_share: float = _setting(
        0.4, "of image_folder: share of the images for alphas and betas", above=0.0, below=1.0
    )
    test_share: float = _setting(
        0.2, "of image_folder: share of the images for the test", above=0.0, below=1.0
    )
    most_images: int = _setting(0, "images of each split that are used; 0: all", minimum=0)
    crop_padding: int = _setting(
        0,
        "zeros around an image, of which search and training cut a random window of its size; "
        "0: no crops",
        unit="pixels",
        minimum=0,
        maximum=1024,
    )
    flip: bool = _setting(
        False, "whether search and training mirror images, each by chance of one half"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_share + self.test_share >= 1:
            raise InputError(
                "data.validation_share and data.test_share must leave images for training, "
                f"not be {self.validation_share} and {self.test_share}"
            )

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the splits of an image_folder."""
        train = 1 - self.validation_share - self.test_share
        return {"train": train, "validation": self.validation_share, "test": self.test_share}


@dataclass(frozen=True)
class EdgeOperations:
    """The operations of one edge, a row of alphas, in all cells of a type."""

    cell_type: str
    edge: int
    operations: tuple[str, ...]


@dataclass(frozen=True)
class Space(Section):
    """The search space: DARTS's, at the size of the images."""

    channels: int = _setting(8, "channels of the first cell", minimum=1, maximum=1024)
    cells: int = _setting(3, "cells of the network", minimum=1, maximum=64)
    nodes: int = _setting(2, "intermediate nodes of a cell", minimum=1, maximum=8)
    operations: tuple[str, ...] = _setting(
        OPERATIONS, "operations an edge may choose", choices=KNOWN_OPERATIONS
    )
    approximated: tuple[str, ...] = _setting(
        INSIDE_CELLS,
        "convolutions that have a choice of multipliers; the others use the exact one",
        choices=LAYER_KINDS,
    )
    by_edge: tuple[str, ...] = _setting(
        (),
        'operations of one edge, "normal.0: skip_connect dil_conv_5x5", or "reduction.0: ..."; '
        "edges of a cell are numbered node by node, then by what they read; all the others may "
        "choose any",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_list("space.operations", self.operations)
        if self.operations == ("none",):
            raise InputError("space.operations must hold an operation beside 'none', not it alone")
        if set(self.operations) <= {"none", NOISE}:
            raise InputError(
                "space.operations must hold an operation that passes something on, not "
                f"{' and '.join(map(repr, self.operations))} alone"
            )
        _check_list("space.approximated", self.approximated, may_be_empty=True)
        self._check_by_edge()

    def edge_operations(self) -> tuple[EdgeOperations, ...]:
        """`by_edge`, parsed."""
        found = []
        for entry in self.by_edge:
            key, _, names = entry.partition(":")
            cell_type, _, edge = key.strip().partition(".")
            found.append(EdgeOperations(cell_type, int(edge), tuple(names.split())))
        return tuple(found)

    def _check_by_edge(self) -> None:
        keys = tuple(entry.partition(":")[0].strip() for entry in self.by_edge)
        _check_list("space.by_edge", keys, may_be_empty=True)
        edges = range(self.nodes * (self.nodes + 3) // 2)
        known = [f"{cell_type}.{edge}" for cell_type in CELL_TYPES for edge in edges]
        for key, entry in zip(keys, self.by_edge, strict=True):
            if key not in known:
                raise InputError(
                    f"edge of space.by_edge must be normal.0 to normal.{edges[-1]} or reduction.0 "
                    f"to reduction.{edges[-1]} with {self.nodes} nodes, not {key!r}"
                )
            names = tuple(entry.partition(":")[2].split())
            _check_list(f"space.by_edge of {key}", names)
            for name in names:
                if name not in self.operations:
                    raise unknown_name(
                        f"operation of {key} in space.by_edge", name, self.operations
                    )
            if names == ("none",):
                raise InputError(
                    f"space.by_edge of {key} must hold an operation beside 'none', not it alone"
                )


@dataclass(frozen=True)
class Search(Section):
    """The search: alphas and betas on the validation split, weights on the training split."""

    strategy: str = _setting("darts", "how alphas and betas move", choices=STRATEGIES)
    epochs: int = _setting(15, "passes over the training split", minimum=1, maximum=100_000)
    batch_size: int = _setting(64, "images of a step", unit="images", minimum=2, maximum=65_536)
    energy_weight: float = _setting(
        0.1,
        "lambda: loss = cross-entropy + lambda * energy relative to exact int8",
        minimum=0.0,
        maximum=1e6,
    )
    weight_learning_rate: float = _setting(0.025, "of the weights, at the start", above=0.0)
    weight_learning_rate_min: float = _setting(0.001, "of the weights, at the end", minimum=0.0)
    momentum: float = _setting(0.9, "of the weights' SGD", minimum=0.0, below=1.0)
    weight_decay: float = _setting(3e-4, "of the weights", minimum=0.0)
    gradient_clip: float = _setting(5.0, "largest norm of the weights' gradient", above=0.0)
    alpha_learning_rate: float = _setting(0.05, "of alphas and betas (Adam)", above=0.0)
    alpha_weight_decay: float = _setting(1e-3, "of alphas; betas have none", minimum=0.0)
    gradient: str = _setting(
        "straight_through", "of approximate products, for weights", choices=GRADIENTS
    )
    warmup_share: float = _setting(
        0.2,
        "share of the epochs, at the start, in which alphas and betas rest",
        minimum=0.0,
        below=1.0,
    )
    unrolled_share: float = _setting(
        1.0,
        "xi of darts_second_order, as a share of the weights' learning rate; 0: first order",
        minimum=0.0,
    )
    partial_channels: int = _setting(
        4,
        "of pc_darts: operations see one channel in so many; divides space.channels",
        minimum=1,
        maximum=1024,
    )
    temperature: float = _setting(10.0, "of gdas's samples, at the start", above=0.0)
    temperature_end: float = _setting(0.1, "of gdas's samples, at the end", above=0.0)
    kl_weight: float = _setting(
        1e-3, "of drnas: of the divergence from uniform distributions", minimum=0.0
    )
    beta_decay: float = _setting(
        0.0,
        "of the mean logsumexp of alphas (Beta-DARTS), at the end; grows linearly; 0: off",
        minimum=0.0,
    )
    energy_budget: float = _setting(
        0.0,
        "largest expected energy relative to exact int8, kept by a multiplier that adapts and "
        "takes the place of energy_weight; 0: none",
        minimum=0.0,
        maximum=1e6,
    )
    budget_rate: float = _setting(
        1.0, "by how much the budget's multiplier grows a step and unit of excess", above=0.0
    )
    selection: str = _setting("argmax", "how operations are chosen at the end", choices=SELECTIONS)
    selection_images: int = _setting(
        256, "validation images of selection by perturbation", unit="images", minimum=2
    )
    most_skips: int = _setting(
        -1, "skips that the chosen normal cell may have; -1: any number", minimum=-1, maximum=16
    )
    stop_at_skips: int = _setting(
        -1,
        "the search stops, and keeps the epoch before, where the normal cell has more skips after "
        "the warm-up; -1: never",
        minimum=-1,
        maximum=16,
    )
    hessian_every: int = _setting(
        0,
        "epochs between two records of the largest eigenvalue of the Hessian in alphas; 0: none",
        minimum=0,
    )
    energy_lines: tuple[str, ...] = _setting(
        ("multiplications",), "lines of energy that are minimised", choices=ENERGY_LINES
    )
    latency_weight: float = _setting(
        0.0,
        "of the latency relative to exact int8, as energy_weight",
        minimum=0.0,
        maximum=1e6,
    )
    latency_budget: float = _setting(
        0.0,
        "largest expected latency relative to exact int8, as energy_budget; 0: none",
        minimum=0.0,
        maximum=1e6,
    )
    beta_grain: str = _setting(
        "edge_operation", "what shares one choice of a multiplier", choices=BETA_GRAINS
    )
    fixed_multiplier: str = _setting(
        "", "candidate that all approximated convolutions use, without betas; empty: none"
    )
    operand_statistics: str = _setting(
        "uniform",
        "operands that the energies of multiplications are for: uniform ones, or those gathered in "
        "the supernet after the warm-up",
        choices=OPERAND_STATISTICS,
    )
    operand_images: int = _setting(
        256, "training images whose operands are gathered", unit="images", minimum=1
    )
    selection_budget: float = _setting(
        0.0,
        "largest energy of the chosen network relative to the same with the exact multiplier; "
        "0: none",
        minimum=0.0,
        maximum=1.0,
    )
    checkpoint_minutes: float = _setting(
        10.0,
        "time between checkpoints inside an epoch; 0: only after epochs",
        unit="min",
        minimum=0.0,
    )
    gradient_checkpointing: bool = _setting(
        False, "cells are computed twice instead of keeping their activations: less memory, slower"
    )
    arithmetic: str = _setting(
        "emulated",
        "of the supernet's convolutions; real: in real numbers, as in DARTS, for a single "
        "multiplier, of which the energy alone is known",
        choices=ARITHMETICS,
    )
    beta_share: float = _setting(
        1.0,
        "of a step's images: by so many betas learn; fewer are faster, without bias",
        above=0.0,
        maximum=1.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_list("search.energy_lines", self.energy_lines)
        if self.weight_learning_rate_min > self.weight_learning_rate:
            raise InputError(
                "search.weight_learning_rate_min must be at most search.weight_learning_rate "
                f"({self.weight_learning_rate}), not {self.weight_learning_rate_min}"
            )
        if self.temperature_end > self.temperature:
            raise InputError(
                f"search.temperature_end must be at most search.temperature ({self.temperature}), "
                f"not {self.temperature_end}"
            )
        if self.selection_budget and self.selection != "argmax":
            raise InputError(
                f"search.selection must be 'argmax' with search.selection_budget, not "
                f"{self.selection!r}"
            )


@dataclass(frozen=True)
class Train(Section):
    """The training of the found network."""

    epochs: int = _setting(40, "passes over the training images", minimum=1, maximum=100_000)
    batch_size: int = _setting(64, "images of a step", unit="images", minimum=2, maximum=65_536)
    learning_rate: float = _setting(0.025, "at the start; falls to zero as a cosine", above=0.0)
    momentum: float = _setting(0.9, "of SGD", minimum=0.0, below=1.0)
    weight_decay: float = _setting(3e-4, "of the weights", minimum=0.0)
    gradient_clip: float = _setting(5.0, "largest norm of the gradient", above=0.0)
    gradient: str = _setting("straight_through", "of approximate products", choices=GRADIENTS)
    channels: int = _setting(
        0, "of the found network's first cell; 0: space.channels", minimum=0, maximum=1024
    )
    cells: int = _setting(0, "of the found network; 0: space.cells", minimum=0, maximum=64)
    checkpoint_minutes: float = _setting(
        10.0,
        "time between checkpoints inside an epoch; 0: only after epochs",
        unit="min",
        minimum=0.0,
    )
    cutout: int = _setting(
        0,
        "side of a square at a random place of each image that becomes zero; 0: none",
        unit="pixels",
        minimum=0,
        maximum=1024,
    )
    auxiliary_weight: float = _setting(
        0.0,
        "of the loss of a second classifier after two thirds of the cells; 0: none",
        minimum=0.0,
    )
    drop_path: float = _setting(
        0.0,
        "share of images for which an operation's result is left out; grows linearly from 0 to "
        "this at the end",
        minimum=0.0,
        below=1.0,
    )


@dataclass(frozen=True)
class Config:
    """All that decides a run's result."""

    name: str = _setting("digits", "names the run's folder")
    seed: int = _setting(0, "of every random choice", minimum=0, maximum=2**32 - 1)
    threads: int = _setting(
        0, "processor threads; 0: all cores, and the number is written", minimum=0, maximum=4096
    )
    device: str = _setting(
        "cpu",
        "where networks are searched and trained; auto: cuda where there is one, and the run "
        "keeps it",
        choices=DEVICES,
    )
    precision: str = _setting(
        "fp32", "of networks' passes; bf16: autocast, weights stay fp32", choices=PRECISIONS
    )
    tensorboard: bool = _setting(
        False, "whether metrics are mirrored for TensorBoard, which is an extra"
    )
    hardware: Hardware = field(default_factory=Hardware)
    multipliers: Multipliers = field(default_factory=Multipliers)
    data: Data = field(default_factory=Data)
    space: Space = field(default_factory=Space)
    search: Search = field(default_factory=Search)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        for setting in _plain_fields(self):
            value = checked_value(setting.name, getattr(self, setting.name), setting)
            object.__setattr__(self, setting.name, value)
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", self.name):
            raise InputError(
                "name must be 1 to 64 letters, digits, '.', '_' or '-', beginning with none of "
                f"'.' and '-', not {self.name!r}"
            )
        self._check_partial_channels()
        self._check_skips()
        self._check_selection_budget()
        self._check_fixed_multiplier()
        self._check_arithmetic()
        self._check_by_operation()
        self._check_by_edge()

    def _check_partial_channels(self) -> None:
        share, channels = self.search.partial_channels, self.space.channels
        if self.search.strategy == "pc_darts" and channels % share:
            raise InputError(
                f"search.partial_channels must divide space.channels ({channels}), not {share}"
            )

    def _check_selection_budget(self) -> None:
        """What the integer program of the selection knows."""
        if not self.search.selection_budget:
            return
        if self.search.beta_grain != "edge_operation":
            raise InputError(
                "search.beta_grain must be 'edge_operation' with search.selection_budget, "
                f"not {self.search.beta_grain!r}"
            )
        if self.space.approximated != Space().approximated or self.multipliers.by_operation:
            raise InputError(
                "search.selection_budget must be 0 where space.approximated or "
                f"multipliers.by_operation are set, not {self.search.selection_budget}"
            )

    def _check_skips(self) -> None:
        others = set(self.space.operations) - {"none", "skip_connect"}
        if self.search.most_skips >= 0 and not others:
            raise InputError(
                "search.most_skips must be -1 where space.operations holds nothing to replace a "
                f"skip with, not {self.search.most_skips}"
            )

    def _check_fixed_multiplier(self) -> None:
        name = self.search.fixed_multiplier
        if name and name not in self.multipliers.candidates:
            raise unknown_name("search.fixed_multiplier", name, self.multipliers.candidates)

    def _check_arithmetic(self) -> None:
        if self.search.arithmetic != "real":
            return
        if not self.search.fixed_multiplier and len(self.multipliers.candidates) > 1:
            raise InputError(
                "search.arithmetic must be 'emulated' where there are multipliers to choose from, "
                "not 'real'; or set search.fixed_multiplier"
            )
        if self.search.operand_statistics == "gathered":
            raise InputError(
                "search.operand_statistics must be 'uniform' with search.arithmetic=real, "
                "not 'gathered'"
            )

    def _check_by_operation(self) -> None:
        if not self.multipliers.by_operation:
            return
        if self.search.beta_grain in ("network", "cell_type"):
            raise InputError(
                "search.beta_grain must be edge_operation or layer with multipliers.by_operation, "
                f"not {self.search.beta_grain}"
            )
        if self.search.strategy == "drnas":
            raise InputError(
                "search.strategy must be another than drnas with multipliers.by_operation: "
                "a Dirichlet distribution knows no share of zero"
            )

    def _check_by_edge(self) -> None:
        if self.space.by_edge and self.search.strategy == "drnas":
            raise InputError(
                "search.strategy must be another than drnas with space.by_edge: "
                "a Dirichlet distribution knows no share of zero"
            )
        for entry in self.space.edge_operations() if self.search.most_skips >= 0 else ():
            if set(entry.operations) <= {"none", "skip_connect"} and entry.cell_type == "normal":
                raise InputError(
                    f"search.most_skips must be -1 where normal.{entry.edge} of space.by_edge "
                    f"holds nothing to replace a skip with, not {self.search.most_skips}"
                )

    def to_toml(self) -> str:
        """The configuration as TOML, each key with its meaning; ``parse_config`` reads it back."""
        lines = [line for setting in _plain_fields(self) for line in _toml_lines(self, setting)]
        for section in _section_fields(self):
            table = getattr(self, section.name)
            lines += ["", f"[{section.name}]  # {_meaning_of(table)}"]
            lines += [line for setting in fields(table) for line in _toml_lines(table, setting)]
        return "\n".join(lines) + "\n"

    def values(self) -> dict[str, Any]:
        """Every setting by its dotted key, in the order of the file."""
        flat = {setting.name: getattr(self, setting.name) for setting in _plain_fields(self)}
        for section in _section_fields(self):
            table = getattr(self, section.name)
            flat |= {f"{section.name}.{s.name}": getattr(table, s.name) for s in fields(table)}
        return flat

    def resolved(self) -> "Config":
        """The same with ``threads`` and ``device`` as what they stand for on this machine.

        InputError where ``device`` is not there.
        """
        device = self.device
        if device == "auto":
            from cosearch.device import available_device  # loads torch

            device = available_device()
        elif device == "cuda":
            from cosearch.device import torch_device

            torch_device(device)  # refuses where there is none
        return replace(self, threads=self.threads or available_cores(), device=device)


def load_config(
    path: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    *,
    name: str | None = None,
) -> Config:
    """The defaults, then the TOML file, then overrides (``"search.epochs=3"``), seed and name.

    Paths in ``hardware.cells`` become absolute: relative to the file's folder when the file names
    them, to the working directory when an override does. Multiplier names are checked against
    ``hw``.
    """
    table = {} if path is None else _read_toml(Path(path))
    cells = table.get("hardware", {}).get("cells", "") if _is_table(table, "hardware") else ""
    if path is not None and isinstance(cells, str) and cells:
        table["hardware"]["cells"] = _absolute_cells(cells, Path(path).resolve().parent)
    images = table.get("data", {}).get("path", "") if _is_table(table, "data") else ""
    if path is not None and isinstance(images, str) and images:
        table["data"]["path"] = str(Path(path).resolve().parent / images)
    config = overridden(config_from_table(table), overrides, seed=seed, name=name)
    _check_cells(config.hardware.cells)
    return config


def _absolute_cells(cells: str, folder: Path) -> str:
    """Paths separated by commas, each made absolute; the name of an installed library stays."""
    from hw.liberty import INSTALLED

    parts = [part.strip() for part in cells.split(",")]
    return ",".join(part if part in INSTALLED else str(folder / part) for part in parts)


def _check_cells(cells: str) -> None:
    from hw.liberty import INSTALLED

    for part in cells.split(",") if cells else ():
        if not INSTALLED.get(part, Path(part)).exists():
            raise InputError(
                f"hardware.cells must be a Liberty file, but there is none at {part!r}"
            )


def overridden(
    config: Config,
    overrides: Sequence[str],
    *,
    seed: int | None = None,
    name: str | None = None,
) -> Config:
    """``config`` with some settings replaced; all replacements take effect at once."""
    table = _nested(config.values())
    for override in overrides:
        key, value = _parsed_override(override)
        _put(table, key, value)
    table |= {k: v for k, v in (("seed", seed), ("name", name)) if v is not None}
    changed = config_from_table(table)
    check_multipliers(changed)
    return changed


def parse_config(text: str, source: str = "configuration") -> Config:
    """The configuration in TOML ``text``; keys that are left out have their defaults."""
    return config_from_table(_parse_toml(text, source))


def config_from_table(table: Mapping[str, Any]) -> Config:
    """The configuration of a parsed TOML document."""
    sections = {section.name: section for section in _section_fields(Config())}
    known = [setting.name for setting in _plain_fields(Config())] + list(sections)
    arguments: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise unknown_name("configuration key", key, known)
        arguments[key] = _section(sections[key], value) if key in sections else value
    return Config(**arguments)


def check_multipliers(config: Config) -> None:
    """``InputError`` unless ``hw`` knows every multiplier and every candidate is signed 8×8."""
    from hw.multipliers import multiplier_shape  # Amaranth: not for `cosearch --help`

    for name in config.multipliers.candidates + config.multipliers.built_also:
        shape = multiplier_shape(name)
        if (shape.a_width, shape.b_width) != (8, 8):
            raise InputError(
                "multipliers must have operands of 8 bits, "
                f"not of {shape.a_width} and {shape.b_width} as {name!r}"
            )
        if name in config.multipliers.candidates and not shape.signed:
            raise InputError(f"multipliers.candidates must be signed, not unsigned as {name!r}")


def differing_keys(one: Config, other: Config) -> tuple[str, ...]:
    """The dotted keys in which two configurations differ."""
    left, right = one.values(), other.values()
    return tuple(key for key in left if left[key] != right[key])


def available_cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_value(key: str, value: Any, setting: "Field[Any]") -> Any:
    """``value`` in the type of ``setting``; ``InputError`` where type, range or choice is wrong."""
    if setting.type is bool:
        return _truth(key, value)
    if setting.type is int:
        return _in_range(key, _integer(key, value), setting)
    if setting.type is float:
        return _in_range(key, _number(key, value), setting)
    if setting.type is str:
        return _chosen(key, _text(key, value), setting)
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{key} must be a list of names, not {value!r}")
    return tuple(_chosen(key, _text(key, item), setting) for item in value)


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false, not {value!r}")
    return value


def _integer(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{key} must be a whole number, not {value!r}")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise InputError(f"{key} must be a finite number, not {value!r}")
    return float(value)


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{key} must be text, not {value!r}")
    if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 or ord(c) == 127 for c in value):
        raise InputError(f"{key} must be printable text, not {value!r}")
    return value


def _chosen(key: str, value: str, setting: "Field[Any]") -> str:
    choices = setting.metadata["choices"]
    if choices and value not in choices:
        raise unknown_name(key, value, choices)
    return value


def _in_range(key: str, value: Any, setting: "Field[Any]") -> Any:
    bounds = setting.metadata
    too_low = (bounds["minimum"] is not None and value < bounds["minimum"]) or (
        bounds["above"] is not None and value <= bounds["above"]
    )
    too_high = (bounds["maximum"] is not None and value > bounds["maximum"]) or (
        bounds["below"] is not None and value >= bounds["below"]
    )
    if too_low or too_high:
        raise InputError(f"{key} must be {range_text(setting)}, not {value}")
    return value


def range_text(setting: "Field[Any]") -> str:
    """The allowed values of a number in words: ``"at least 1 and at most 64"``."""
    words = (("minimum", "at least"), ("above", "more than"), ("maximum", "at most"))
    parts = [
        f"{text} {setting.metadata[bound]:.10g}"
        for bound, text in (*words, ("below", "less than"))
        if setting.metadata[bound] is not None
    ]
    return " and ".join(parts)


def _check_list(key: str, names: tuple[str, ...], *, may_be_empty: bool = False) -> None:
    if not names and not may_be_empty:
        raise InputError(f"{key} must hold at least one name, not an empty list")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{key} must name each once, not {name!r} {names.count(name)} times")


def _plain_fields(config: Config) -> Iterator["Field[Any]"]:
    return (f for f in fields(config) if not is_dataclass(f.type))


def _section_fields(config: Config) -> Iterator["Field[Any]"]:
    return (f for f in fields(config) if is_dataclass(f.type))


def _section(section: "Field[Any]", value: Any) -> Section:
    if not isinstance(value, Mapping):
        raise InputError(f"{section.name} must be a table, [{section.name}], not {value!r}")
    assert isinstance(section.type, type)
    known = [setting.name for setting in fields(section.type)]
    for key in value:
        if key not in known:
            raise unknown_name(f"key of [{section.name}]", key, known)
    made: Section = section.type(**value)
    return made


def _is_table(table: Mapping[str, Any], key: str) -> bool:
    return isinstance(table.get(key), dict)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(
            f"configuration must be a TOML file, but there is none at {str(path)!r}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be a TOML file in UTF-8 ({error})") from None
    return _parse_toml(text, str(path))


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source} must be valid TOML: {error}") from None


def _parsed_override(override: str) -> tuple[str, Any]:
    """Key and value of ``key=value``; the value is read as the type of the key."""
    key, equals, text = override.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not key:
        raise InputError(f"override must be key=value, not {override!r}")
    known = Config().values()
    if key not in known:
        raise _unknown_key(key)
    value = _value_as(known[key], text)
    if key == "hardware.cells" and value:
        value = _absolute_cells(value, Path.cwd())
    if key == "data.path" and value:
        value = str(Path.cwd() / value)
    return key, value


def _unknown_key(key: str) -> InputError:
    """The error for a dotted key: of its section where that is known, else of all."""
    known = list(Config().values())
    section, dot, _ = key.partition(".")
    inside = [name for name in known if dot and name.startswith(f"{section}.")]
    return unknown_name("configuration key", key, inside or known)


def _value_as(example: Any, text: str) -> Any:
    """``text`` in the type of ``example``, or as it stands where it is not of that type."""
    if isinstance(example, tuple):
        return _list_of_names(text)
    if isinstance(example, str):
        return text
    if isinstance(example, bool):
        return {"true": True, "false": False}.get(text, text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _list_of_names(text: str) -> Any:
    """A TOML array, or names between commas."""
    if text.startswith("["):
        return _parse_toml(f"value = {text}", f"override {text!r}")["value"]
    return [name.strip() for name in text.split(",")] if text else []


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in flat.items():
        _put(table, key, value)
    return table


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    section, dot, name = key.rpartition(".")
    (table.setdefault(section, {}) if dot else table)[name] = value


def _meaning_of(section: Section) -> str:
    return (type(section).__doc__ or "").strip()


def _toml_lines(owner: Config | Section, setting: "Field[Any]") -> Iterator[str]:
    notes = [setting.metadata["meaning"], setting.metadata["unit"]]
    if setting.type in (int, float):
        notes.append(range_text(setting))
    elif setting.metadata["choices"]:
        notes.append("of " + ", ".join(setting.metadata["choices"]))
    yield "# " + "; ".join(note for note in notes if note)
    yield f"{setting.name} = {_toml_value(getattr(owner, setting.name))}"


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        items = ", ".join(_toml_value(item) for item in value)
        return f"[{items}]" if len(items) < 80 else "[\n" + _toml_items(value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _toml_items(values: tuple[str, ...]) -> str:
    return "".join(f"    {_toml_value(value)},\n" for value in values)
