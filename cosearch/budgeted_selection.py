"""Selection under a budget: the likeliest genotype whose own energy keeps it.

The energy of a genotype is that of all its multiplications, relative to the same network with the
exact multiplier, as the evaluation states it. Over all genotypes (two edges a node, one operation
an edge, one multiplier an operation) the sum of ``log alpha + log (beta / largest beta)`` is made
largest by an integer program. So where the budget does not bind, operations and edges are those of
the largest alphas, and multipliers those of the largest betas.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosearch.binary_program import FREE, Choice, Constraint, best_choice, exactly
from cosearch.choices import Choices
from cosearch.genotype import CELL_TYPES, Genotype
from cosearch.layers import layer_macs
from cosearch.selection import ANY_NUMBER, SKIP, Scores, argmax_scores, selected
from cosearch.space import SearchSpace
from cosearch.supernet import Supernet
from hw.errors import InputError

__all__ = [
    "Options",
    "budgeted_genotype",
    "cheaper_genotypes",
    "check_selection_budget",
    "dearer_genotypes",
]

SMALLEST_SHARE = 1e-30
PREPROCESS = -1  # in the place of an operation
DEARER = 0.25
"""By how much of the first one's energy one dearer genotype is dearer than the one before."""


@dataclass(frozen=True)
class Option:
    """One multiplier (and operation) that an edge or a preprocessing convolution may have.

    place: an edge, or which of the two preprocessing convolutions; operation: its index, or
    PREPROCESS; macs: of one inference, in all cells of the type.
    """

    cell_type: str
    place: int
    operation: int
    multiplier: int
    macs: int

    @property
    def slot(self) -> tuple[str, bool, int]:
        return self.cell_type, self.operation == PREPROCESS, self.place


@dataclass(frozen=True, eq=False)
class Options:
    """All options of a space; energies of a multiplication: candidates (M,) and the exact one."""

    space: SearchSpace
    options: tuple[Option, ...]
    fixed_macs: int
    energies_fj: NDArray[np.float64]
    exact_fj: float

    @classmethod
    def of(
        cls,
        supernet: Supernet,
        input_shape: tuple[int, int, int],
        energies_fj: Sequence[float],
        exact_fj: float,
    ) -> "Options":
        space, count = supernet.space, len(energies_fj)
        macs = layer_macs(_with_all_channels(supernet), input_shape)
        options: list[Option] = []
        for cell_type in CELL_TYPES:
            inside = _by_place(macs, space, cell_type)
            for place in (0, 1):
                among = inside["preprocess", str(place)]
                options += _options(cell_type, place, PREPROCESS, count, among)
            for edge, operation in _edge_choices(space, cell_type):
                among = inside["edges", str(edge), space.operations[operation]]
                options += _options(cell_type, edge, operation, count, among)
        fixed = sum(number for path, number in macs.items() if not path.startswith("cells."))
        return cls(space, tuple(options), fixed, np.asarray(energies_fj, np.float64), exact_fj)

    def relative_energy(self, choice: Choice) -> float:
        """Of the chosen options and of stem and classifier, which are exact."""
        used, exact = self._used(), self._exact()
        fixed = self.fixed_macs * self.exact_fj
        return (fixed + float(used[choice].sum())) / (fixed + float(exact[choice].sum()))

    def energy_fj(self, choice: Choice) -> float:
        """Of the chosen options and of stem and classifier: all multiplications of one inference,
        in fJ where the energies are.
        """
        return self.fixed_macs * self.exact_fj + float(self._used()[choice].sum())

    def choice_of(self, genotype: Genotype, digests: Sequence[str]) -> Choice:
        """The options that make up `genotype`; `digests` are those of the candidates' tables."""
        wanted = set()
        sources = list(self.space.edge_sources())
        for cell_type in CELL_TYPES:
            cell = genotype.cell(cell_type)
            for place, multiplier in enumerate(cell.preprocess):
                index = digests.index(multiplier.sha256)
                wanted.add((cell_type, place, PREPROCESS, index))
            for node, genes in enumerate(cell.nodes):
                for gene in genes:
                    edge = sources.index((node, gene.source))
                    operation = self.space.operations.index(gene.operation)
                    index = digests.index(gene.multiplier.sha256) if gene.multiplier else 0
                    wanted.add((cell_type, edge, operation, index))
        return np.array(
            [(o.cell_type, o.place, o.operation, o.multiplier) in wanted for o in self.options]
        )

    def constraints(self, most_skips: int) -> list[Constraint]:
        """What makes a choice a genotype."""
        found = self._two_edges_of_each_node()
        for slot in sorted({option.slot for option in self.options}):
            members = np.array([option.slot == slot for option in self.options], np.float64)
            preprocess = slot[1]
            found.append(Constraint(members, high=1, low=1 if preprocess else 0))
        if most_skips != ANY_NUMBER and SKIP in self.space.operations:
            found.append(Constraint(self._normal_skips().astype(np.float64), most_skips))
        return found

    def within(self, budget: float) -> Constraint:
        """Energy at most `budget` of the exact one: ``sum macs (energy - budget · exact) <= 0``."""
        scale = float(self._exact().max()) or 1.0
        fixed = self.fixed_macs * self.exact_fj * (1 - budget)
        return Constraint((self._used() - budget * self._exact()) / scale, -fixed / scale)

    def below(self, energy_fj: float) -> Constraint:
        """Energy at most `energy_fj`: ``sum macs energy <= energy_fj - fixed``."""
        used = self._used()
        scale = float(used.max()) or 1.0
        return Constraint(used / scale, (energy_fj - self.fixed_macs * self.exact_fj) / scale)

    def above(self, energy_fj: float) -> Constraint:
        """Energy at least `energy_fj`."""
        used = self._used()
        scale = float(used.max()) or 1.0
        low = (energy_fj - self.fixed_macs * self.exact_fj) / scale
        return Constraint(used / scale, FREE, low)

    def least_energy_fj(self, most_skips: int) -> float:
        """The least energy of all genotypes."""
        choice = best_choice(-self._used(), self.constraints(most_skips))
        assert choice is not None
        return self.energy_fj(choice)

    def least_energy(self, most_skips: int) -> float:
        """The least relative energy of all genotypes (Dinkelbach, Management Science 13, 1967)."""
        constraints, ratio = self.constraints(most_skips), 1.0
        while True:
            choice = best_choice(ratio * self._exact() - self._used(), constraints)
            assert choice is not None
            lower = self.relative_energy(choice)
            if lower >= ratio:
                return ratio
            ratio = lower

    def _two_edges_of_each_node(self) -> list[Constraint]:
        targets = [node for node, _ in self.space.edge_sources()]

        def into(option: Option) -> tuple[str, int] | None:
            edge = option.operation != PREPROCESS
            return (option.cell_type, targets[option.place]) if edge else None

        nodes = [into(option) for option in self.options]
        wanted = [(kind, node) for kind in CELL_TYPES for node in range(self.space.nodes)]
        return [exactly(2, np.array([node == one for node in nodes])) for one in wanted]

    def _normal_skips(self) -> NDArray[np.bool_]:
        skip = self.space.operations.index(SKIP)
        return np.array([o.operation == skip and o.cell_type == "normal" for o in self.options])

    def _used(self) -> NDArray[np.float64]:
        return np.array([o.macs * self.energies_fj[o.multiplier] for o in self.options])

    def _exact(self) -> NDArray[np.float64]:
        return np.array([o.macs * self.exact_fj for o in self.options])


@torch.no_grad()
def budgeted_genotype(
    supernet: Supernet, options: Options, budget: float, most_skips: int = ANY_NUMBER
) -> Genotype:
    """The genotype of the settings' argmax where it keeps `budget`, else the likeliest that does.

    InputError where none does.
    """
    likeliest = supernet.genotype(most_skips)
    chosen = options.choice_of(likeliest, [lut.digest for lut in supernet.candidates.luts])
    if options.relative_energy(chosen) <= budget:
        return likeliest
    found = _likeliest(
        supernet,
        options,
        [*options.constraints(most_skips), options.within(budget)],
        lambda choice: options.relative_energy(choice) <= budget,
    )
    if found is None:
        raise _out_of_reach(options, budget, most_skips)
    return found


@torch.no_grad()
def cheaper_genotypes(
    supernet: Supernet,
    options: Options,
    first: Genotype,
    count: int,
    most_skips: int = ANY_NUMBER,
) -> list[Genotype]:
    """At most `count` different genotypes of one supernet: `first`, of energy E, and the likeliest
    of at most E · (least / E) ** (k / count) for k = 1 … count - 1, where least is the least energy
    of all genotypes.
    """
    digests = [lut.digest for lut in supernet.candidates.luts]
    energy = options.energy_fj(options.choice_of(first, digests))
    least, found = options.least_energy_fj(most_skips), {first: None}
    for number in range(1, count):
        most = max(energy * (least / energy) ** (number / count), least)
        constraints = [*options.constraints(most_skips), options.below(most)]
        within = _likeliest(supernet, options, constraints, _at_most(options, most))
        assert within is not None, most
        found[within] = None
    return list(found)


@torch.no_grad()
def dearer_genotypes(
    supernet: Supernet,
    options: Options,
    first: Genotype,
    count: int,
    most_skips: int = ANY_NUMBER,
) -> list[Genotype]:
    """At most `count` different genotypes of one supernet, beside `first`, of energy E: the
    likeliest of at least E · (1 + k / 4) for k = 1 … count, as far as there are any.
    """
    digests = [lut.digest for lut in supernet.candidates.luts]
    energy = options.energy_fj(options.choice_of(first, digests))
    found: dict[Genotype, None] = {}
    for number in range(1, count + 1):
        least = energy * (1 + DEARER * number)
        constraints = [*options.constraints(most_skips), options.above(least)]
        dearer = _likeliest(supernet, options, constraints, _at_least(options, least))
        if dearer is None:
            break
        found[dearer] = None
    return list(found)


def _at_most(options: Options, energy_fj: float) -> Callable[[Choice], bool]:
    return lambda choice: options.energy_fj(choice) <= energy_fj


def _at_least(options: Options, energy_fj: float) -> Callable[[Choice], bool]:
    return lambda choice: options.energy_fj(choice) >= energy_fj


def _likeliest(
    supernet: Supernet,
    options: Options,
    constraints: Sequence[Constraint],
    accepted: Callable[[Choice], bool],
) -> Genotype | None:
    """The genotype of the highest score that keeps the constraints and is accepted."""
    choices = supernet.all_choices()
    choice = best_choice(_scores(options, choices), constraints, accepted)
    if choice is None:
        return None
    picked = [option for option, taken in zip(options.options, choice, strict=True) if taken]
    one_hot = {kind: _one_hot(choices[kind], kind, picked) for kind in CELL_TYPES}
    scores = {kind: Scores(one.alphas, one.alphas.amax(1)) for kind, one in one_hot.items()}
    return selected(supernet.space, supernet.candidates.luts, one_hot, scores)


def check_selection_budget(options: Options, budget: float, most_skips: int) -> None:
    """InputError where no genotype keeps `budget`."""
    if options.least_energy(most_skips) > budget:
        raise _out_of_reach(options, budget, most_skips)


def _out_of_reach(options: Options, budget: float, most_skips: int) -> InputError:
    least = math.ceil(options.least_energy(most_skips) * 1e4) / 1e4
    return InputError(
        f"search.selection_budget must be at least {least}, the least relative energy of this "
        f"space with its multipliers, not {budget}"
    )


def _with_all_channels(supernet: Supernet) -> Supernet:
    """Another of its space, whatever the strategy's form."""
    with torch.random.fork_rng(devices=[]):
        return Supernet(supernet.space, supernet.candidates, supernet.exact)


def _edge_choices(space: SearchSpace, cell_type: str) -> list[tuple[int, int]]:
    """(edge, operation) of all that an edge may have in the end."""
    names = enumerate(space.operations)
    inside = [(index, name) for index, name in names if name != "none"]
    return [
        (edge, index)
        for edge in range(space.edges)
        for index, name in inside
        if name in space.edge_operations(cell_type, edge)
    ]


def _by_place(
    macs: Mapping[str, int], space: SearchSpace, cell_type: str
) -> Counter[tuple[str, ...]]:
    """Multiplications in all cells of the type, by ("preprocess", place) and ("edges", edge,
    operation).
    """
    found: Counter[tuple[str, ...]] = Counter()
    for path, number in macs.items():
        parts = path.split(".")
        if parts[0] == "cells" and space.places[int(parts[1])].cell_type == cell_type:
            kind, place = parts[2], parts[3]
            found[(kind, place) if kind == "preprocess" else (kind, place, parts[5])] += number
    return found


def _options(
    cell_type: str, place: int, operation: int, multipliers: int, macs: int
) -> list[Option]:
    """One a multiplier; what multiplies nothing has one option, with the first."""
    count = multipliers if macs else 1
    return [Option(cell_type, place, operation, index, macs) for index in range(count)]


def _scores(options: Options, choices: Mapping[str, Choices]) -> NDArray[np.float64]:
    operations, betas, preprocess = {}, {}, {}
    for kind, choice in choices.items():
        operations[kind] = _logarithms(argmax_scores(choice, options.space).operations)
        betas[kind] = _behind_the_likeliest(choice.betas)
        preprocess[kind] = _behind_the_likeliest(choice.preprocess)

    def score(option: Option) -> float:
        kind, place = option.cell_type, option.place
        if option.operation == PREPROCESS:
            return float(preprocess[kind][place, option.multiplier])
        share = float(operations[kind][place, option.operation])
        if not option.macs:
            return share
        return share + float(betas[kind][place, option.operation, option.multiplier])

    return np.array([score(option) for option in options.options])


def _logarithms(shares: Tensor) -> NDArray[np.float64]:
    logarithms: NDArray[np.float64] = (
        shares.detach().cpu().double().clamp(min=SMALLEST_SHARE).log().numpy()
    )
    return logarithms


def _behind_the_likeliest(shares: Tensor) -> NDArray[np.float64]:
    """Logarithms minus the largest of each row: zero or less."""
    logarithms = _logarithms(shares)
    return logarithms - logarithms.max(-1, keepdims=True)


def _one_hot(choices: Choices, cell_type: str, picked: Sequence[Option]) -> Choices:
    """Shares of one for what is picked, of zero for the rest."""
    alphas, betas = torch.zeros_like(choices.alphas), torch.zeros_like(choices.betas)
    preprocess = torch.zeros_like(choices.preprocess)
    for option in picked:
        if option.cell_type != cell_type:
            continue
        if option.operation == PREPROCESS:
            preprocess[option.place, option.multiplier] = 1
        else:
            alphas[option.place, option.operation] = 1
            betas[option.place, option.operation, option.multiplier] = 1
    return replace(choices, alphas=alphas, betas=betas, preprocess=preprocess, edges=None)
