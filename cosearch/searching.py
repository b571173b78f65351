"""The search loop: epochs of a strategy's steps, a checkpoint after each, and the genotype at the
end.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cosearch.batches import Pairs
from cosearch.budgeted_selection import Options, budgeted_genotype, check_selection_budget
from cosearch.captured import CapturedSteps
from cosearch.checkpoint import save_checkpoint
from cosearch.config import NOISE
from cosearch.device import (
    device_generator_state,
    placed,
    set_device_generator_state,
    torch_device,
)
from cosearch.distributed import same_everywhere, shared
from cosearch.eigenvalue import largest_hessian_eigenvalue
from cosearch.epoch import Pause, Tally
from cosearch.expectations import Expectations
from cosearch.genotype import Genotype
from cosearch.layer_use import LayerUse
from cosearch.mapped_netlists import read_mapped_netlists
from cosearch.memory import Memory, check_memory, measured_memory
from cosearch.metrics import record_metrics
from cosearch.mirror import mirrored
from cosearch.objective import Objective
from cosearch.operand_statistics import OperandStatistics, gathered_statistics
from cosearch.optimisers import search_optimisers, set_rate
from cosearch.perturbation import perturbation_scores
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.selection import ANY_NUMBER, normal_noise, normal_skips, selected
from cosearch.strategies import Batch, strategy
from cosearch.strategies.strategy import Step, StepResult
from cosearch.supernet import Supernet
from cosearch.task import (
    Task,
    cosine,
    interrupted_state,
    resumable_key,
)
from cosearch.terms import CostedSpace, terms_of
from cosearch.world import ALONE, World
from hw.errors import InputError
from hw.files import write_json
from lut import Candidates

__all__ = ["Search"]


@dataclass(frozen=True, eq=False)
class EpochResult:
    """Means over an epoch; accuracies are ratios."""

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Begun:
    """An epoch under way: what it began with (alphas, betas, gammas; the state of the generator of
    permutations), and its steps so far.
    """

    architecture: dict[str, Tensor]
    generator: Tensor
    tally: Tally


class Search:
    """A search that can be stopped at any time and goes on from its last checkpoint, bit for bit.

    All processes of `world` do it together: with the batches of one process, each its share.
    """

    def __init__(self, task: Task, world: World = ALONE) -> None:
        self.task, self.settings, self.world = task, task.config.search, world
        world.check_batch_size("search.batch_size", self.settings.batch_size)
        torch.manual_seed(task.config.seed)
        names = task.searched
        luts = task.library.luts(names)
        basis = task.library.basis(names) if len(names) > 1 else None
        candidates = Candidates(luts, basis, self.settings.gradient, self.settings.beta_share)
        exact = Candidates(task.library.luts([task.exact_name]))
        self.strategy = strategy(self.settings.strategy, self.settings)
        self.supernet = Supernet(
            task.space,
            candidates,
            exact,
            self.strategy.form,
            self.settings.beta_grain,
            {} if len(names) == 1 else task.config.multipliers.allowed(),
            real=self.settings.arithmetic == "real",
        )
        self.device = torch_device(task.config.device)
        self.options = self._budgeted_options()
        use = LayerUse.of(self.supernet, task.input_shape)
        placed(self.supernet, self.device)
        self.use = use.to(self.device)
        decay = torch.zeros((), device=self.device) if self.settings.beta_decay else None
        self.objective = Objective(self.use, (), decay)
        self._cost()
        self.supernet.gradient_checkpointing = self.settings.gradient_checkpointing
        shared(self.supernet, world)
        captured = self._is_capturable()
        self.optimisers = search_optimisers(self.supernet, self.settings, captured=captured)
        self.captured = CapturedSteps() if captured else None
        size, augmentation = self.settings.batch_size, task.augmentation()
        self.pairs = Pairs.of(task.data, size, self.device, augmentation, world)
        self.generator = torch.Generator().manual_seed(task.config.seed)
        self.draws = torch.Generator().manual_seed(task.config.seed)
        self.epoch = 0
        self.begun: Begun | None = None
        self.within: dict[str, Tensor] | None = None  # alphas, betas, gammas before the collapse

    def _cost(self) -> None:
        """Terms and expectations for the task's figures; multipliers of budgets stay."""
        task, before = self.task, self.objective.multipliers
        figures = tuple(task.multiplier_figures(name) for name in task.searched)
        exact = task.multiplier_figures(task.exact_name)
        space = CostedSpace(self.use, figures, exact, task.array)
        self.expectations = Expectations.of(space, self.settings.energy_lines)
        self.objective = replace(self.objective, terms=terms_of(space, self.settings))
        if before:
            self.objective.set_multipliers(before)

    def _gather_operands(self) -> None:
        """Once, after the warm-up, where the settings ask for it: energies are then those of the
        operands seen.
        """
        task = self.task
        due = self.settings.operand_statistics == "gathered" and task.operands is None
        if not due or self._warming_up(self.epoch):
            return
        assert task.luts is not None
        names = tuple(dict.fromkeys((task.exact_name, *task.searched)))
        netlists = read_mapped_netlists(names, task.config.hardware, task.luts)
        first = self._first_images("train", self.settings.operand_images)
        images = first.images.split(self.settings.batch_size)
        self._use_operands(gathered_statistics(self.supernet, self.use, images, netlists))

    def _use_operands(self, operands: OperandStatistics) -> None:
        self.task = replace(self.task, operands=operands)
        self._cost()
        if self.captured is not None:
            self.captured = CapturedSteps()

    def _budgeted_options(self) -> Options | None:
        """What the selection chooses from under a budget; InputError where that is out of reach."""
        settings, library = self.settings, self.task.library
        if not settings.selection_budget:
            return None
        energies = [library[name].cost.energy_fj for name in self.task.searched]
        exact = library[self.task.exact_name].cost.energy_fj
        options = Options.of(self.supernet, self.task.input_shape, energies, exact)
        check_selection_budget(options, settings.selection_budget, settings.most_skips)
        return options

    def _is_capturable(self) -> bool:
        """Whether steps may become CUDA graphs: nothing in them waits, or is computed twice."""
        alone = self.world.is_alone and not self.settings.gradient_checkpointing
        return self.device.type == "cuda" and alone and self.strategy.capturable

    def run(self, folder: RunFolder, progress: Progress) -> Genotype:
        """Search to the last epoch, from the checkpoint in `folder` where there is one."""
        checkpoint = folder.search_checkpoint
        state = interrupted_state(checkpoint, "search", folder)
        progress.log(f"  {self._memory_line()}")
        if state is not None:
            self.restore(state, str(checkpoint))
            progress.log(f"  goes on after epoch {self.epoch}{self._step_of_epoch()}")
        pause = Pause(self.settings.checkpoint_minutes, self.world)
        with mirrored(folder, "search", self.epoch, self.world.is_first) as mirror:
            while self.epoch < self.settings.epochs and not self.collapsed:
                row = self._epoch_of_run(folder, progress, pause)
                mirror(row)
                progress.log(_line(row, self.settings.epochs))
        if self.task.operands is not None and self.world.is_first:
            write_json(folder.search_operands, self.task.operands.to_json())
        if self.collapsed:
            progress.log(
                f"  more than {self.settings.stop_at_skips} skips: the epoch before counts"
            )
        return self.genotype()

    def _epoch_of_run(self, folder: RunFolder, progress: Progress, pause: Pause) -> dict[str, Any]:
        """One epoch, recorded and saved; its metrics."""
        begun = self._begin()
        result = self.one_epoch(progress, lambda: pause.is_due() and self._save(folder))
        row = self._metrics(result)
        self.epoch += 1
        if self._exceeds_skips(row["skips"]):
            self.within = begun.architecture
        self._check_processes()
        if self.world.is_first:
            record_metrics(folder.search_metrics, row)
        self._save(folder)
        return row

    def _memory_line(self) -> str:
        images = self.settings.batch_size // self.world.size
        return check_memory(self.memory(), "search.batch_size", images, self.device)

    def memory(self) -> Memory:
        """What a step past the warm-up takes; the search is left as it is."""
        state = copy.deepcopy(self.state())

        def step(images: int) -> None:
            train, validation = (self._first_images(n, images) for n in ("train", "validation"))
            draws = torch.Generator().manual_seed(0)
            self.strategy.step(replace(self._at(train, validation, False, 0.0), generator=draws))

        both = (self.optimisers.weights, self.optimisers.architecture)
        found = measured_memory(step, self.supernet, both)
        self.supernet.zero_grad()
        self.restore(state, "memory")
        return found

    def _begin(self) -> Begun:
        """The epoch that is under way, or a new one."""
        if self.begun is None:
            generator = self.generator.get_state()
            self.begun = Begun(self._architecture(), generator, Tally(len(COUNTED)))
        return self.begun

    def _step_of_epoch(self) -> str:
        return "" if self.begun is None else f" and {self.begun.tally.steps} steps"

    def _save(self, folder: RunFolder) -> bool:
        """Write the checkpoint; all processes take part, the first one writes."""
        state = self.state()
        if self.world.is_first:
            save_checkpoint(folder.search_checkpoint, state)
        return True

    def _check_processes(self) -> None:
        net = self.supernet
        groups: dict[str, list[Tensor]] = {
            "alphas and betas": [*net.architecture_parameters()],
            "weights": [*net.weight_parameters(), *net.buffers()],
        }
        same_everywhere(groups, self.world)

    @property
    def collapsed(self) -> bool:
        """Whether the search has stopped because of its skips."""
        return self.within is not None

    def _exceeds_skips(self, skips: int) -> bool:
        limit = self.settings.stop_at_skips
        return limit != ANY_NUMBER and skips > limit and not self._warming_up(self.epoch - 1)

    def _architecture(self) -> dict[str, Tensor]:
        architecture = {id(parameter) for parameter in self.supernet.architecture_parameters()}
        named = self.supernet.named_parameters()
        return {name: p.detach().clone() for name, p in named if id(p) in architecture}

    @torch.no_grad()
    def genotype(self) -> Genotype:
        """What the search has found, by the selection of the settings."""
        net, settings = self.supernet, self.settings
        if self.within is not None:
            net.load_state_dict(self.within, strict=False)
        if self.options is not None:
            budget, most_skips = settings.selection_budget, settings.most_skips
            return budgeted_genotype(net, self.options, budget, most_skips)
        if settings.selection == "argmax":
            return net.genotype(settings.most_skips)
        images = self._first_validation_images(settings.selection_images)
        scores = perturbation_scores(net, images)
        luts, exact = net.candidates.luts, net.exact.luts[0]
        return selected(net.space, luts, net.all_choices(), scores, settings.most_skips, exact)

    def _first_validation_images(self, count: int) -> list[Batch]:
        """The same ones every time, in batches."""
        first, size = self._first_images("validation", count), self.settings.batch_size
        pairs = zip(first.images.split(size), first.labels.split(size), strict=True)
        return [Batch(*pair) for pair in pairs]

    def _first_images(self, name: str, count: int) -> Batch:
        half = self.pairs.train if name == "train" else self.pairs.validation
        return half.first(count)

    def _warming_up(self, epoch: int) -> bool:
        return epoch < self.settings.warmup_share * self.settings.epochs

    def one_epoch(
        self, progress: Progress, after_step: Callable[[], object] | None = None
    ) -> EpochResult:
        """The rest of the epoch, in which each image of the smaller half is seen once.

        The learning rate of weights follows a cosine.
        """
        self._gather_operands()
        settings, tally = self.settings, self._begin().tally
        rate = cosine(
            self.epoch,
            settings.epochs,
            settings.weight_learning_rate,
            settings.weight_learning_rate_min,
        )
        set_rate(self.optimisers.weights, rate)
        share = self.epoch / settings.epochs
        if self.objective.decay is not None:
            self.objective.decay.fill_(settings.beta_decay * share)
        pairs, left = self._pairs_left()
        for train, validation in progress.track(pairs, f"epoch {self.epoch + 1}", left):
            tally.add(_counted(self._step(train, validation, share), train, validation))
            if after_step is not None:
                after_step()
        self.begun = None
        return _epoch_result(tally, self.world)

    def _pairs_left(self) -> tuple[Iterator[tuple[Batch, Batch]], int]:
        """Training and validation batches of the epoch that are still to come, and their number."""
        begun = self._begin()
        self.generator.set_state(begun.generator)
        done = begun.tally.steps
        return self.pairs.epoch(self.generator, done), len(self.pairs) - done

    def _step(self, train: Batch, validation: Batch, progress: float) -> StepResult:
        warming_up = self._warming_up(self.epoch)

        def work(train: Batch, validation: Batch) -> StepResult:
            result = self.strategy.step(self._at(train, validation, warming_up, progress))
            if not warming_up:
                self.objective.ascend(self.supernet)
            return result

        if self.captured is None:
            return work(train, validation)
        kind = "warming up" if warming_up else "full"
        return self.captured(kind, work, train, validation)

    def _at(self, train: Batch, validation: Batch, warming_up: bool, progress: float) -> Step:
        net, goal, precision = self.supernet, self.objective, self.task.config.precision
        return Step(
            net, goal, self.optimisers, train, validation, warming_up, progress, self.draws,
            self.world, precision,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """All that the rest of the search depends on."""
        return {
            "configuration": resumable_key(self.task.config),
            "epoch": self.epoch,
            "supernet": self.supernet.state_dict(),
            "weight_optimiser": self.optimisers.weights.state_dict(),
            "architecture_optimiser": self.optimisers.architecture.state_dict(),
            "begun": self._begun_state(),
            "generator": self.generator.get_state(),
            "draws": self.draws.get_state(),
            "multipliers": self.objective.multipliers,
            "within": self.within,
            "operands": None if self.task.operands is None else self.task.operands.to_json(),
            "global_generator": torch.get_rng_state(),
            "device_generator": device_generator_state(self.device),
        }

    def _begun_state(self) -> dict[str, Any] | None:
        begun = self.begun
        if begun is None:
            return None
        return {
            "architecture": begun.architecture,
            "generator": begun.generator,
            "tally": begun.tally.state(self.world),
        }

    def restore(self, state: dict[str, Any], source: str) -> None:
        """Go on from `state`; InputError that names `source` when it is not this search's."""
        if state.get("configuration") != resumable_key(self.task.config):
            raise InputError(f"{source} must be a checkpoint of this configuration, not of another")
        try:
            if self.captured is not None:
                self.captured = CapturedSteps()
            self.supernet.load_state_dict(state["supernet"])
            self.optimisers.weights.load_state_dict(state["weight_optimiser"])
            self.optimisers.architecture.load_state_dict(state["architecture_optimiser"])
            self.generator.set_state(state["generator"])
            self.draws.set_state(state["draws"])
            torch.set_rng_state(state["global_generator"])
            set_device_generator_state(self.device, state["device_generator"])
            if state["operands"] is not None:
                self._use_operands(OperandStatistics.from_json(state["operands"], source))
            self.objective.set_multipliers(state["multipliers"])
            self.within = state["within"]
            self.begun = self._begun_of(state["begun"])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{source} must be a checkpoint of this search ({reason})") from None

    def _begun_of(self, state: dict[str, Any] | None) -> Begun | None:
        if state is None:
            return None
        tally = Tally.of(state["tally"], self.world)
        return Begun(state["architecture"], state["generator"], tally)

    def _guards(self) -> dict[str, Any]:
        """What is recorded where the settings ask for it."""
        every = self.settings.hessian_every
        multipliers = self.objective.multipliers
        guards: dict[str, Any] = {f"{name}_multiplier": mu for name, mu in multipliers.items()}
        if every and (self.epoch + 1) % every == 0:
            batch = self._first_validation_images(self.settings.batch_size)[0]
            value = largest_hessian_eigenvalue(self.supernet, batch)
            guards["hessian_eigenvalue"] = value
        if NOISE in self.supernet.space.operations:
            guards["noise"] = normal_noise(self.supernet.genotype())
        return guards

    def _metrics(self, result: EpochResult) -> dict[str, Any]:
        with torch.no_grad():
            by_type = self.supernet.all_choices()
            expected = self.expectations(self.use(by_type))
            choices = by_type.values()
        return {
            "epoch": self.epoch + 1,
            "train_loss": result.train_loss,
            "train_accuracy": result.train_accuracy,
            "validation_loss": result.validation_loss,
            "validation_accuracy": result.validation_accuracy,
            **expected,
            "alpha_entropy": _entropy([choice.alphas for choice in choices]),
            "beta_entropy": _entropy([choice.betas for choice in choices]),
            "skips": normal_skips(self.supernet.genotype()),
            **self._guards(),
            "seconds": result.seconds,
        }


# What is added up over the steps of an epoch.
COUNTED = (
    "train_loss",
    "train_right",
    "train_images",
    "validation_loss",
    "validation_right",
    "validation_images",
)


def _counted(result: StepResult, train: Batch, validation: Batch) -> list[float | Tensor]:
    return [
        result.train_loss,
        _right(result.train_logits, train),
        len(train.labels),
        result.validation_loss,
        _right(result.validation_logits, validation),
        len(validation.labels),
    ]


def _right(logits: Tensor, batch: Batch) -> Tensor:
    """How many images are classified right, on the device they are on."""
    return (logits.argmax(1) == batch.labels).sum()


def _epoch_result(tally: Tally, world: World) -> EpochResult:
    totals = dict(zip(COUNTED, tally.totals(world), strict=True))
    steps = tally.steps * world.size
    return EpochResult(
        totals["train_loss"] / steps,
        totals["train_right"] / totals["train_images"],
        totals["validation_loss"] / steps,
        totals["validation_right"] / totals["validation_images"],
        tally.seconds,
    )


def _entropy(probabilities: list[Tensor]) -> float:
    """Mean entropy of the last axis as a share of the largest possible, 0 … 1; 0 for a single
    choice.
    """
    if probabilities[0].shape[-1] == 1:
        return 0.0
    rows = torch.cat([tensor.flatten(0, -2) for tensor in probabilities])
    entropies = torch.special.entr(rows).sum(-1)
    return float(entropies.mean() / torch.log(torch.tensor(float(rows.shape[-1]))))


def _line(row: dict[str, Any], epochs: int) -> str:
    return (
        f"  epoch {row['epoch']}/{epochs}: validation accuracy {row['validation_accuracy']:.3f}, "
        f"expected energy {row['expected_energy']:.3f} of exact int8, {row['seconds']:.1f} s"
    )
