"""Approximate multipliers evolved from exact ones: Cartesian genetic programming, (1 + λ).

A generation makes λ mutated copies of the parent; the cheapest one whose errors are in bounds, and
that is no dearer than the parent, becomes the next parent, so that the search drifts over circuits
of equal cost. Several such lines are searched side by side for the first half of the evaluations;
the one of least cost goes on alone. The cost in the loop is the area of the primitives' cells,
adders being primitives; where it has fallen, the circuit is synthesised, and the one of least
energy is the result.
The method: Z. Vašíček, L. Sekanina, IEEE Trans. Evol. Comput. 19 (2015) 432, and EvoApproxLib.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .costs import Cost, multiplier_cost
from .errors import InputError
from .evolution_genome import COST_UNIT, Genome, function_costs, genome_of, netlist_of
from .files import read_json, write_json
from .liberty import CellLibrary, default_library
from .multipliers import Multiplier, build_multiplier
from .multipliers.saved import named_by_digest
from .simulation import Words, counter_bit, truth_table

Array = npt.NDArray[np.float64]

FORMAT = 1
FAMILY = "evolved"
CHUNK = 100_000
"""Evaluations between two looks at clock, energy and checkpoint."""
WEIGHT_BITS = 16
"""Operand pairs' weights in the loop are rounded up to whole multiples of the largest / 2^16."""
MIN_BITS, MAX_BITS = 6, 20


@dataclass(frozen=True)
class EvolutionTask:
    """What is searched for. Errors are in percent of 2^p_width, as EvoApproxLib states them.

    ``mae`` and ``bias`` (its magnitude) are means over the operands' distribution: histograms by
    bit pattern, uniform where empty. ``wce`` holds for every pair. ``offspring`` is λ, and a child
    has up to ``mutations`` genes changed. The result depends on nothing but this.
    """

    start: str = "mul8s_array"
    mae: float = 0.2
    wce: float | None = None
    bias: float | None = None
    keep_zero: bool = True
    seed: int = 0
    evaluations: int = 1_000_000
    lines: int = 4
    offspring: int = 1
    mutations: int = 3
    a_probabilities: tuple[float, ...] = field(default=(), repr=False)
    b_probabilities: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name in ("mae", "wce", "bias"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise InputError(f"{name} must be 0 to 100 percent, not {value}")
        for name in ("evaluations", "lines", "offspring", "mutations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, not {self.seed}")

    def digest(self) -> str:
        """SHA-256 of all of it."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_histogram(path: Path | None) -> tuple[float, ...]:
    """The numbers in a ``.npy`` file or a text file; none for no file."""
    if path is None:
        return ()
    try:
        array = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
    except FileNotFoundError:
        raise InputError(f"{path} must be a histogram, but there is no such file") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} must be a histogram, not {error}") from None
    return tuple(float(number) for number in np.ravel(array))


@dataclass(frozen=True)
class ErrorFigures:
    """MAE, WCE and bias (mean signed error), in units of the product's last bit."""

    mae: float
    wce: int
    bias: float


@dataclass(frozen=True)
class Line:
    """A parent, what its cells take, and the state of its random numbers."""

    genome: Genome
    area_um2: float
    random: int


@dataclass(frozen=True)
class EvolutionState:
    """Where a search stands: its lines, and the circuit of least energy so far.

    ``measured_um2`` is the least area of which the energy is known.
    """

    lines: tuple[Line, ...]
    evaluations: int
    measured_um2: float
    best: Genome
    best_cost: Cost

    @property
    def leader(self) -> Line:
        """The line of least area."""
        return min(self.lines, key=lambda line: line.area_um2)


@dataclass(frozen=True)
class EvolutionStep:
    """A progress report: the least area of a parent, its errors, and the least energy so far."""

    evaluations: int
    seconds: float
    area_um2: float
    errors: ErrorFigures
    best_energy_fj: float

    def __str__(self) -> str:
        return (
            f"{self.evaluations:>9} evaluations, {self.seconds:5.0f} s: "
            f"area {self.area_um2:6.1f} µm², MAE {self.errors.mae:8.2f}, "
            f"WCE {self.errors.wce:5}, best {self.best_energy_fj:6.1f} fJ"
        )


@dataclass(frozen=True)
class Evolved:
    """The circuit of least energy, its figures, and how many evaluations were made."""

    multiplier: Multiplier
    errors: ErrorFigures
    cost: Cost
    evaluations: int


@dataclass(frozen=True)
class _Problem:
    """A task in the kernel's terms (all_pairs bit planes) and in integers."""

    start: Multiplier
    exact_table: npt.NDArray[np.int64]
    probabilities: Array
    stimuli: Words
    exact: Words
    weights: Words
    zeros: Words
    bounds: npt.NDArray[np.int64]
    costs: npt.NDArray[np.int64]


def evolve_multiplier(
    task: EvolutionTask,
    library: CellLibrary | None = None,
    *,
    progress: Callable[[EvolutionStep], None] = lambda step: None,
    checkpoint: Path | None = None,
    seconds: float | None = None,
) -> Evolved:
    """Search until the evaluations are used up, or for ``seconds``.

    ``checkpoint`` is written after every chunk, and gone on from where it exists: the result of
    an interrupted search is that of one that was not.
    """
    cells = library or default_library()
    search = _Search(task, cells)
    state = search.read(checkpoint) if checkpoint and checkpoint.exists() else search.first()
    began = time.monotonic()
    while state.evaluations < task.evaluations:
        if seconds is not None and time.monotonic() - began >= seconds:
            break
        state = search.advanced(state)
        if checkpoint is not None:
            search.write(checkpoint, state)
        progress(search.step(state, time.monotonic() - began))
    multiplier = search.multiplier(state.best)
    return Evolved(multiplier, search.errors(state.best), state.best_cost, state.evaluations)


class _Search:
    """A task with what it takes to advance it."""

    def __init__(self, task: EvolutionTask, library: CellLibrary) -> None:
        self.task, self.library = task, library
        self.problem = _problem(task, library)
        self._check_start()

    def _check_start(self) -> None:
        """``InputError`` unless the circuit to start from is in bounds: an exact one always is."""
        task, start = self.task, self.problem.start
        table = truth_table(start.netlist, start.signed)
        errors = self._figures(table)
        unit = (1 << start.a_width + start.b_width) / 100
        figures = {"mae": errors.mae, "wce": errors.wce, "bias": abs(errors.bias)}
        for name, figure in figures.items():
            bound = getattr(task, name)
            if bound is not None and figure > bound * unit:
                raise InputError(
                    f"{name} must be at least that of {task.start}, from which the search starts, "
                    f"{figure / unit:.4g} percent, not {bound:g}"
                )
        if task.keep_zero and (table[0].any() or table[:, 0].any()):
            raise InputError(f"the circuit to start from must keep 0·x = 0, not be {task.start}")

    def first(self) -> EvolutionState:
        genome = genome_of(self.problem.start.netlist)
        area = self._area(genome)
        seeds = np.random.SeedSequence(self.task.seed).generate_state(self.task.lines, np.uint64)
        lines = tuple(Line(genome, area, int(seed) | 1) for seed in seeds)
        return EvolutionState(lines, 0, area, genome, self._cost(genome))

    def advanced(self, state: EvolutionState) -> EvolutionState:
        """A chunk of generations later; the energy is measured where the area has fallen.

        Always where operands are not uniform: area then says less about energy.
        """
        alone = 2 * state.evaluations >= self.task.evaluations
        lines = (state.leader,) if alone else state.lines
        left = self.task.evaluations - state.evaluations
        generations = max(1, min(CHUNK, left) // (len(lines) * self.task.offspring))
        evaluations = state.evaluations + generations * self.task.offspring * len(lines)
        lines = tuple(self._advanced(line, generations) for line in lines)
        state = replace(state, lines=lines, evaluations=evaluations)
        fallen = state.leader.area_um2 < state.measured_um2
        last = evaluations >= self.task.evaluations
        return self._measured(state) if fallen or last or self._weighted else state

    @property
    def _weighted(self) -> bool:
        return bool(self.task.a_probabilities or self.task.b_probabilities)

    def _advanced(self, line: Line, generations: int) -> Line:
        genome, random = line.genome.copy(), np.array([line.random], np.uint64)
        area = self._run(genome, random, generations)
        return Line(genome, area, int(random[0]))

    def _measured(self, state: EvolutionState) -> EvolutionState:
        """With the leader as the best circuit, if it takes less energy."""
        leader = state.leader
        cost = self._cost(leader.genome)
        state = replace(state, measured_um2=leader.area_um2)
        better = cost.energy_fj < state.best_cost.energy_fj
        return replace(state, best=leader.genome, best_cost=cost) if better else state

    def step(self, state: EvolutionState, elapsed_s: float) -> EvolutionStep:
        leader, energy = state.leader, state.best_cost.energy_fj
        errors = self.errors(leader.genome)
        return EvolutionStep(state.evaluations, elapsed_s, leader.area_um2, errors, energy)

    def multiplier(self, genome: Genome) -> Multiplier:
        task, signed = self.task, self.problem.start.signed
        origin = (
            f"evolved from {task.start} by cosearch, MAE at most {task.mae:g} %, seed {task.seed}"
        )
        return named_by_digest(FAMILY, netlist_of(genome, FAMILY), signed, origin)

    def errors(self, genome: Genome) -> ErrorFigures:
        return self._figures(truth_table(netlist_of(genome, FAMILY), self.problem.start.signed))

    def _figures(self, table: npt.NDArray[np.int32]) -> ErrorFigures:
        errors = table - self.problem.exact_table
        weights = self.problem.probabilities
        mae, bias = float((abs(errors) * weights).sum()), float((errors * weights).sum())
        return ErrorFigures(mae, int(abs(errors).max()), bias)

    def write(self, path: Path, state: EvolutionState) -> None:
        write_json(
            path,
            {
                "format": FORMAT,
                "task": self.task.digest(),
                "library": self.library.name,
                "evaluations": state.evaluations,
                "measured_um2": state.measured_um2,
                "lines": [{"random": line.random, **_genes(line.genome)} for line in state.lines],
                "best": _genes(state.best),
                "best_cost": state.best_cost.to_json(),
            },
        )

    def read(self, path: Path) -> EvolutionState:
        """The state in a checkpoint of the same task; ``InputError`` for any other file."""
        stored = read_json(path)
        try:
            if (stored["format"], stored["task"]) != (FORMAT, self.task.digest()):
                raise InputError(f"{path} must be the checkpoint of this search, not of another")
            if stored["library"] != self.library.name:
                raise InputError(
                    f"{path} must be of cell library {self.library.name}, not {stored['library']}"
                )
            lines = tuple(self._line(line) for line in stored["lines"])
            best, cost = self._genome(stored["best"]), Cost.from_json(stored["best_cost"])
            evaluations, measured = int(stored["evaluations"]), float(stored["measured_um2"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} must be a checkpoint of evolution, not lack {error}"
            ) from None
        return EvolutionState(lines, evaluations, measured, best, cost)

    def _line(self, stored: dict[str, Any]) -> Line:
        genome = self._genome(stored)
        return Line(genome, self._area(genome), int(stored["random"]))

    def _genome(self, genes: dict[str, Any]) -> Genome:
        start = self.problem.start
        arrays = (np.array(genes[key], np.int64) for key in ("functions", "inputs", "outputs"))
        return Genome(start.a_width, start.b_width, *arrays)

    def _cost(self, genome: Genome) -> Cost:
        """The real one: synthesised, under the task's operands."""
        return multiplier_cost(
            self.multiplier(genome),
            self.library,
            a_probabilities=self.task.a_probabilities or None,
            b_probabilities=self.task.b_probabilities or None,
        )

    def _area(self, genome: Genome) -> float:
        return self._run(genome.copy(), np.ones(1, np.uint64), 0)

    def _run(self, genome: Genome, random: Words, generations: int) -> float:
        """Run the kernel on the genome in place; the area it ends with, in µm²."""
        from .evolution_kernel import evolve  # compiled: seconds where nothing is cached

        problem, task = self.problem, self.task
        cost = evolve(
            genome.functions,
            genome.inputs,
            genome.outputs,
            genome.first_node_net,
            problem.costs,
            problem.stimuli,
            problem.exact,
            problem.weights,
            problem.zeros,
            problem.bounds,
            problem.start.signed,
            random,
            task.offspring,
            task.mutations,
            generations,
        )
        return cost / COST_UNIT


def _genes(genome: Genome) -> dict[str, Any]:
    return {
        "functions": genome.functions.tolist(),
        "inputs": genome.inputs.tolist(),
        "outputs": genome.outputs.tolist(),
    }


def _problem(task: EvolutionTask, library: CellLibrary) -> _Problem:
    start = build_multiplier(task.start)
    bits = start.a_width + start.b_width
    if not MIN_BITS <= bits <= MAX_BITS:
        raise InputError(
            f"operands of {task.start} must have {MIN_BITS} to {MAX_BITS} bits together to be "
            f"evolved, not {bits}"
        )
    a, b = (_operand_values(width, start.signed) for width in (start.a_width, start.b_width))
    exact_table = np.outer(a, b)
    probabilities = np.outer(
        _probabilities(task.a_probabilities, start.a_width, "a"),
        _probabilities(task.b_probabilities, start.b_width, "b"),
    )
    weights, scale = _weights(probabilities)
    return _Problem(
        start=start,
        exact_table=exact_table,
        probabilities=probabilities,
        stimuli=_filled([counter_bit(place, bits) for place in _places(start)]),
        exact=_filled([_packed(exact_table >> place & 1) for place in range(bits)]),
        weights=_filled([_packed(weights >> level & 1) for level in range(_levels(weights))]),
        zeros=_filled([_packed(np.add.outer(a == 0, b == 0) & task.keep_zero)])[0],
        bounds=_bounds(task, bits, scale),
        costs=function_costs(library),
    )


def _places(start: Multiplier) -> list[int]:
    """The operands' bits in the number of a pair: the first operand in its upper bits."""
    return [*range(start.b_width, start.b_width + start.a_width), *range(start.b_width)]


def _operand_values(width: int, signed: bool) -> npt.NDArray[np.int64]:
    patterns = np.arange(1 << width, dtype=np.int64)
    half = np.int64(1 << (width - 1))
    return (patterns ^ half) - half if signed else patterns


def _probabilities(histogram: tuple[float, ...], width: int, operand: str) -> Array:
    size = 1 << width
    array = np.asarray(histogram or [1.0] * size, np.float64)
    if array.shape != (size,) or not np.isfinite(array).all() or (array < 0).any():
        raise InputError(
            f"histogram of operand {operand!r} must be {size} numbers not below zero, "
            f"not {array.size}"
        )
    if array.sum() == 0:
        raise InputError(f"histogram of operand {operand!r} must not be all zero")
    normalised: Array = array / array.sum()
    return normalised


def _weights(probabilities: Array) -> tuple[npt.NDArray[np.int64], float]:
    """Whole weights of the pairs and what a probability of one comes to.

    Rounded up: a weighted error is never taken for smaller than it is.
    """
    if np.ptp(probabilities) == 0:
        return np.ones(probabilities.shape, np.int64), float(probabilities.size)
    scale = ((1 << WEIGHT_BITS) - 1) / probabilities.max()
    return np.ceil(probabilities * scale - 1e-9).astype(np.int64), float(scale)


def _levels(weights: npt.NDArray[np.int64]) -> int:
    return int(weights.max()).bit_length()


def _bounds(task: EvolutionTask, bits: int, scale: float) -> npt.NDArray[np.int64]:
    from .evolution_kernel import NO_BOUND

    def bound(percent: float | None, factor: float) -> int:
        return NO_BOUND if percent is None else int(np.floor(percent / 100 * 2**bits * factor))

    return np.array([bound(task.mae, scale), bound(task.wce, 1), bound(task.bias, scale)], np.int64)


def _packed(bits: npt.NDArray[Any]) -> Words:
    """The bits of a table in the order of the pairs, 64 to a word, lowest first."""
    return np.packbits(bits.astype(np.uint8).ravel(), bitorder="little").view(np.uint64)


def _filled(rows: list[Words]) -> Words:
    """Rows of words, zeros behind them up to a whole block of the kernel."""
    from .evolution_kernel import BLOCK

    words = np.stack(rows)
    return np.ascontiguousarray(np.pad(words, ((0, 0), (0, -words.shape[1] % BLOCK))))
