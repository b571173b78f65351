"""What a sweep consists of: its members, how they are judged, and the configuration of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cosearch.config import STRATEGIES, Config
from hw.errors import InputError, unknown_name

__all__ = ["BASELINES", "METHODS", "Member", "Plan", "parsed_plan"]

FORMAT = 1
BASELINES = ("random", "nsga2")
METHODS = (*STRATEGIES, *BASELINES)
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Member:
    """One search with one energy weight, or one baseline (which has none), from one seed."""

    method: str
    seed: int
    weight: float | None = None

    @property
    def name(self) -> str:
        """Names its folder."""
        weight = "" if self.weight is None else f"-{self.weight:g}"
        return f"{self.method}{weight}-seed{self.seed}"

    @property
    def is_baseline(self) -> bool:
        return self.method in BASELINES

    def config(self, base: Config) -> Config:
        """That of the sweep with the member's own seed, strategy and energy weight."""
        search = base.search
        if self.weight is not None:
            search = replace(search, strategy=self.method, energy_weight=self.weight)
        return replace(base, seed=self.seed, search=search)


@dataclass(frozen=True)
class Plan:
    """Settings of a sweep.

    budget_images: training images of a baseline member, 0: as many as the searches of one strategy
    see with all weights; epochs: of the training that judges a genotype; population: of NSGA-II;
    finals: networks of a method that are trained in full, of each seed; selections: genotypes of
    one search that are judged, its own and cheaper ones; dearer: likewise, besides, dearer ones.
    """

    methods: tuple[str, ...]
    weights: tuple[float, ...]
    seeds: tuple[int, ...]
    budget_images: int = 0
    epochs: int = 5
    population: int = 10
    finals: int = 3
    selections: int = 1
    dearer: int = 0

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise unknown_name("method", method, METHODS)
        for weight in self.weights:
            if not math.isfinite(weight) or weight < 0:
                raise InputError(f"weights must be at least 0, not {weight}")
        _check_list("methods", self.methods)
        _check_list("weights", [f"{weight:g}" for weight in self.weights])
        _check_list("seeds", self.seeds)
        least = {
            "budget_images": 0, "epochs": 1, "population": 2, "finals": 1, "selections": 1,
            "dearer": 0,
        }  # fmt: skip
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise InputError(
                    f"{name.replace('_', ' ')} must be at least {minimum}, "
                    f"not {getattr(self, name)}"
                )

    @property
    def members(self) -> tuple[Member, ...]:
        """In the order in which they are worked on: seed by seed."""
        return tuple(
            member
            for seed in self.seeds
            for method in self.methods
            for member in self.members_of(method, seed)
        )

    def members_of(self, method: str, seed: int) -> tuple[Member, ...]:
        """One for each weight, or the baseline."""
        if method in BASELINES:
            return (Member(method, seed),)
        return tuple(Member(method, seed, weight) for weight in self.weights)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **vars(self)}

    @classmethod
    def from_json(cls, data: Any, source: str) -> "Plan":
        """Raises InputError that names `source` when the data is no plan."""
        try:
            if data["format"] != FORMAT:
                raise InputError(f"{source} must be of format {FORMAT}, not {data['format']!r}")
            return cls(
                tuple(str(method) for method in data["methods"]),
                tuple(float(weight) for weight in data["weights"]),
                tuple(int(seed) for seed in data["seeds"]),
                *_numbers(data),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{source} must be the plan of a sweep, not data with a fault at {error}"
            ) from None


def parsed_plan(
    methods: str, weights: str, seeds: int, first_seed: int, numbers: tuple[int, ...]
) -> Plan:
    """The plan of lists written with commas; `numbers` are the fields from `budget_images` on."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"seeds must be a number from 1 to {MOST_SEEDS}, not {seeds}")
    return Plan(
        tuple(_parts(methods)),
        tuple(_weight(part) for part in _parts(weights)),
        tuple(range(first_seed, first_seed + seeds)),
        *numbers,
    )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"weights must be numbers between commas, not {text!r}") from None


def _numbers(data: Mapping[str, Any]) -> tuple[int, ...]:
    """The fields from `budget_images` on; sweeps of before there were selections have one."""
    names = ("budget_images", "epochs", "population", "finals")
    later = (int(data.get("selections", 1)), int(data.get("dearer", 0)))
    return *(int(data[name]) for name in names), *later


def _check_list(what: str, values: Sequence[object]) -> None:
    if not values:
        raise InputError(f"{what} must be at least one, not none")
    for value in values:
        if values.count(value) > 1:
            raise InputError(f"{what} must differ, not be {value} {values.count(value)} times")
