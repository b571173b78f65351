"""The search loop: epochs of a strategy's steps, a checkpoint after each, and the genotype at the
end.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cosearch.budgeted_selection import Options, budgeted_genotype, check_selection_budget
from cosearch.checkpoint import save_checkpoint
from cosearch.eigenvalue import largest_hessian_eigenvalue
from cosearch.expectations import Expectations
from cosearch.genotype import Genotype
from cosearch.layer_use import LayerUse
from cosearch.mapped_netlists import read_mapped_netlists
from cosearch.metrics import record_metrics
from cosearch.objective import Objective
from cosearch.operand_statistics import OperandStatistics, gathered_statistics
from cosearch.perturbation import perturbation_scores
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.selection import ANY_NUMBER, normal_skips, selected
from cosearch.strategies import Batch, strategy
from cosearch.strategies.strategy import Optimisers, Step, StepResult
from cosearch.supernet import Supernet
from cosearch.task import Task, batches, cosine, interrupted_state, resumable_key
from cosearch.terms import CostedSpace, terms_of
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


class Search:
    """A search that can be stopped after any epoch and goes on from its checkpoint, bit for bit."""

    def __init__(self, task: Task) -> None:
        self.task, self.settings = task, task.config.search
        torch.manual_seed(task.config.seed)
        names = task.searched
        luts = task.library.luts(names)
        basis = task.library.basis(names) if len(names) > 1 else None
        candidates = Candidates(luts, basis, self.settings.gradient)
        exact = Candidates(task.library.luts([task.exact_name]))
        self.strategy = strategy(self.settings.strategy, self.settings)
        self.supernet = Supernet(
            task.space,
            candidates,
            exact,
            self.strategy.form,
            self.settings.beta_grain,
            {} if len(names) == 1 else task.config.multipliers.allowed(),
        )
        self.use = LayerUse.of(self.supernet, task.input_shape)
        self.objective = Objective(self.use, ())
        self._cost()
        self.options = self._budgeted_options()
        self.optimisers = self._optimisers()
        self.generator = torch.Generator().manual_seed(task.config.seed)
        self.draws = torch.Generator().manual_seed(task.config.seed)
        self.epoch = 0
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
            self.objective = self.objective.with_multipliers(before)

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
        images = [batch.images for batch in first]
        self._use_operands(gathered_statistics(self.supernet, self.use, images, netlists))

    def _use_operands(self, operands: OperandStatistics) -> None:
        self.task = replace(self.task, operands=operands)
        self._cost()

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

    def _optimisers(self) -> Optimisers:
        settings = self.settings
        return Optimisers(
            torch.optim.SGD(
                self.supernet.weight_parameters(),
                settings.weight_learning_rate,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
            ),
            torch.optim.Adam(
                self._architecture_groups(), settings.alpha_learning_rate, betas=(0.5, 0.999)
            ),
            settings.gradient_clip,
        )

    def _architecture_groups(self) -> list[dict[str, Any]]:
        """Alphas with decay, betas without.

        Gradients of betas are far smaller; Adam's decay, which is added to the gradient, would
        hold them at zero.
        """
        decay = self.settings.alpha_weight_decay
        return [
            {"params": self.supernet.alpha_parameters(), "weight_decay": decay},
            {"params": self.supernet.beta_parameters(), "weight_decay": 0.0},
        ]

    def run(self, folder: RunFolder, progress: Progress) -> Genotype:
        """Search to the last epoch, from the checkpoint in `folder` where there is one."""
        checkpoint = folder.search_checkpoint
        state = interrupted_state(checkpoint, "search", folder)
        if state is not None:
            self.restore(state, str(checkpoint))
            progress.log(f"  goes on after epoch {self.epoch}")
        while self.epoch < self.settings.epochs and not self.collapsed:
            start, before = time.perf_counter(), self._architecture()
            result = self.one_epoch(progress)
            row = self._metrics(result, time.perf_counter() - start)
            self.epoch += 1
            if self._exceeds_skips(row["skips"]):
                self.within = before
            record_metrics(folder.search_metrics, row)
            save_checkpoint(checkpoint, self.state())
            progress.log(_line(row, self.settings.epochs))
        if self.task.operands is not None:
            write_json(folder.search_operands, self.task.operands.to_json())
        if self.collapsed:
            progress.log(
                f"  more than {self.settings.stop_at_skips} skips: the epoch before counts"
            )
        return self.genotype()

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
        return self._first_images("validation", count)

    def _first_images(self, name: str, count: int) -> list[Batch]:
        data, size = self.task.data, self.settings.batch_size
        split = data.splits[name]
        images = split.images[:count].to(torch.float32) * data.pixel_scale
        pairs = zip(images.split(size), split.labels[:count].split(size), strict=True)
        return [Batch(*pair) for pair in pairs]

    def _warming_up(self, epoch: int) -> bool:
        return epoch < self.settings.warmup_share * self.settings.epochs

    def one_epoch(self, progress: Progress) -> EpochResult:
        """Each image of the smaller half once; the learning rate of weights follows a cosine."""
        self._gather_operands()
        settings, data = self.settings, self.task.data
        rate = cosine(
            self.epoch,
            settings.epochs,
            settings.weight_learning_rate,
            settings.weight_learning_rate_min,
        )
        for group in self.optimisers.weights.param_groups:
            group["lr"] = rate
        pairs = list(
            zip(
                batches(
                    data.splits["train"], data.pixel_scale, settings.batch_size, self.generator
                ),
                batches(
                    data.splits["validation"], data.pixel_scale, settings.batch_size, self.generator
                ),
                strict=False,
            )
        )
        share = self.epoch / settings.epochs
        self.objective = replace(self.objective, beta_decay=settings.beta_decay * share)
        results = [
            self._step(train, validation, share)
            for train, validation in progress.track(pairs, f"epoch {self.epoch + 1}")
        ]
        return _epoch_result(results, [(t.labels, v.labels) for t, v in pairs])

    def _step(self, train: Batch, validation: Batch, progress: float) -> StepResult:
        warming_up = self._warming_up(self.epoch)
        step = Step(
            self.supernet,
            self.objective,
            self.optimisers,
            train,
            validation,
            warming_up,
            progress,
            self.draws,
        )
        result = self.strategy.step(step)
        if not warming_up:
            self.objective = self.objective.ascended(self.supernet)
        return result

    def state(self) -> dict[str, Any]:
        """All that the rest of the search depends on."""
        return {
            "configuration": resumable_key(self.task.config),
            "epoch": self.epoch,
            "supernet": self.supernet.state_dict(),
            "weight_optimiser": self.optimisers.weights.state_dict(),
            "architecture_optimiser": self.optimisers.architecture.state_dict(),
            "generator": self.generator.get_state(),
            "draws": self.draws.get_state(),
            "multipliers": self.objective.multipliers,
            "within": self.within,
            "operands": None if self.task.operands is None else self.task.operands.to_json(),
            "global_generator": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any], source: str) -> None:
        """Go on from `state`; InputError that names `source` when it is not this search's."""
        if state.get("configuration") != resumable_key(self.task.config):
            raise InputError(f"{source} must be a checkpoint of this configuration, not of another")
        try:
            self.supernet.load_state_dict(state["supernet"])
            self.optimisers.weights.load_state_dict(state["weight_optimiser"])
            self.optimisers.architecture.load_state_dict(state["architecture_optimiser"])
            self.generator.set_state(state["generator"])
            self.draws.set_state(state["draws"])
            torch.set_rng_state(state["global_generator"])
            if state["operands"] is not None:
                self._use_operands(OperandStatistics.from_json(state["operands"], source))
            self.objective = self.objective.with_multipliers(state["multipliers"])
            self.within = state["within"]
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{source} must be a checkpoint of this search ({reason})") from None

    def _guards(self) -> dict[str, Any]:
        """What is recorded where the settings ask for it."""
        every = self.settings.hessian_every
        multipliers = self.objective.multipliers
        guards: dict[str, Any] = {f"{name}_multiplier": mu for name, mu in multipliers.items()}
        if every and (self.epoch + 1) % every == 0:
            batch = self._first_validation_images(self.settings.batch_size)[0]
            value = largest_hessian_eigenvalue(self.supernet, batch)
            guards["hessian_eigenvalue"] = value
        return guards

    def _metrics(self, result: EpochResult, seconds: float) -> dict[str, Any]:
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
            "seconds": seconds,
        }


def _epoch_result(results: list[StepResult], labels: list[tuple[Tensor, Tensor]]) -> EpochResult:
    train = [(r.train_logits, labels[i][0]) for i, r in enumerate(results)]
    validation = [(r.validation_logits, labels[i][1]) for i, r in enumerate(results)]
    return EpochResult(
        sum(r.train_loss for r in results) / len(results),
        _accuracy(train),
        sum(r.validation_loss for r in results) / len(results),
        _accuracy(validation),
    )


def _accuracy(pairs: list[tuple[Tensor, Tensor]]) -> float:
    correct = sum(int((logits.argmax(1) == labels).sum()) for logits, labels in pairs)
    return correct / sum(len(labels) for _, labels in pairs)


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
