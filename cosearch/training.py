"""Training of a discrete network: SGD on training and validation images, a checkpoint after each
epoch.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosearch.assignment import Assignment, assigned
from cosearch.auxiliary import auxiliary_head, auxiliary_place
from cosearch.batches import Batches
from cosearch.captured import CapturedSteps
from cosearch.checkpoint import load_checkpoint, save_checkpoint
from cosearch.data import Split
from cosearch.device import (
    computing,
    device_generator_state,
    placed,
    set_device_generator_state,
    torch_device,
)
from cosearch.distributed import averaged, same_everywhere, shared
from cosearch.drop_path import DropPath
from cosearch.epoch import Pause, Tally
from cosearch.genotype import Genotype
from cosearch.memory import Memory, check_memory, measured_memory
from cosearch.metrics import record_metrics
from cosearch.mirror import mirrored
from cosearch.network import Network, emulated_arithmetic, float_arithmetic
from cosearch.optimisers import descent, set_rate
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.strategies import Batch
from cosearch.task import Task, cosine, interrupted_state, resumable_key
from cosearch.world import ALONE, World
from hw.errors import InputError

__all__ = ["Training", "network_for", "trained_network"]


def network_for(role: str, task: Task, genotype: Genotype) -> Network:
    """The network of `genotype` with its own multipliers (those of the assignment in a refined
    run), with the exact one everywhere, or in fp32.
    """
    if role == "fp32":
        return Network(task.found_space, genotype, float_arithmetic)
    if role == "exact":
        genotype = genotype.with_multiplier(task.exact)
    gradient = task.config.train.gradient
    network = Network(task.found_space, genotype, emulated_arithmetic(task.library, gradient))
    if role == "approximate" and task.assignment is not None:
        assigned(network, _checked(task.assignment, genotype), task.library, gradient)
    return network


def _checked(assignment: Assignment, genotype: Genotype) -> Assignment:
    if assignment.genotype != genotype.digest:
        raise InputError(
            "refine/assignment.json must be of the genotype of its run, "
            f"{genotype.digest[:12]}…, not of {assignment.genotype[:12]}…"
        )
    return assignment


def trained_network(role: str, task: Task, genotype: Genotype, run: RunFolder) -> Network:
    """The network of `role` with the weights that its training left in `run`, in eval mode."""
    network = network_for(role, task, genotype)
    path = run.weights(role)
    try:
        network.load_state_dict(load_checkpoint(path))
    except RuntimeError:
        raise InputError(
            f"{path} must hold weights of this genotype's network, not of another; "
            f"run: cosearch train --force {run.path}"
        ) from None
    return network.eval()


# What is added up over the steps of an epoch.
COUNTED = ("loss", "right", "images")


@dataclass(frozen=True, eq=False)
class Begun:
    """An epoch under way: the state of the generator of permutations at its start, and its steps
    so far.
    """

    generator: Tensor
    tally: Tally


class Training:
    """One training that goes on from its checkpoint, bit for bit. All roles share seed and
    schedule. `images`: all but those of the test where left out.

    All processes of `world` do it together: with the batches of one process, each its share.
    """

    def __init__(
        self,
        role: str,
        task: Task,
        genotype: Genotype,
        images: Split | None = None,
        world: World = ALONE,
    ) -> None:
        self.role, self.task, self.settings, self.world = role, task, task.config.train, world
        world.check_batch_size("train.batch_size", self.settings.batch_size)
        torch.manual_seed(task.config.seed)
        self.device = torch_device(task.config.device)
        self.network = network_for(role, task, genotype)
        placed(self.network, self.device)
        shared(self.network, world)
        self.auxiliary = self._auxiliary()
        self.drop = DropPath(self.device) if self.settings.drop_path else None
        captured = self.device.type == "cuda" and world.is_alone
        self.captured = CapturedSteps() if captured else None
        self.optimiser = descent(
            self.parameters,
            self.settings.learning_rate,
            self.settings.momentum,
            self.settings.weight_decay,
            nesterov=self.settings.momentum > 0,
            captured=captured,
        )
        self.generator = torch.Generator().manual_seed(task.config.seed)
        self.images = _all_but_test(task) if images is None else images
        self.batches = Batches(
            self.images,
            task.data.pixel_scale,
            self.settings.batch_size,
            self.device,
            task.augmentation(self.settings.cutout),
            world,
        )
        self.genotype = genotype
        self.epoch = 0
        self.begun: Begun | None = None

    def _auxiliary(self) -> nn.Module | None:
        if not self.settings.auxiliary_weight:
            return None
        head = placed(auxiliary_head(self.task.found_space), self.device)
        shared(head, self.world)
        return head

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of the network, and of the auxiliary head where there is one."""
        beside = [] if self.auxiliary is None else list(self.auxiliary.parameters())
        return [*self.network.parameters(), *beside]

    def run(self, folder: RunFolder, progress: Progress) -> nn.Module:
        """Train to the last epoch, from the checkpoint in `folder` where there is one."""
        checkpoint = folder.train_checkpoint(self.role)
        state = interrupted_state(checkpoint, "train", folder)
        progress.log(f"  {self.role}: {self._memory_line()}")
        if state is not None:
            self.restore(state, str(checkpoint))
            progress.log(f"  {self.role}: goes on after epoch {self.epoch}{self._step_of_epoch()}")
        pause = Pause(self.settings.checkpoint_minutes, self.world)
        epochs = range(self.epoch, self.settings.epochs)
        with mirrored(folder, f"train-{self.role}", self.epoch, self.world.is_first) as mirror:
            for _ in progress.track(epochs, f"{self.role}, epochs"):
                mirror(self._epoch_of_run(folder, pause))
        if self.world.is_first:
            save_checkpoint(folder.weights(self.role), self.network.state_dict())
        return self.network

    def _epoch_of_run(self, folder: RunFolder, pause: Pause) -> dict[str, Any]:
        """One epoch, recorded and saved; its metrics."""
        numbers = self.one_epoch(lambda: pause.is_due() and self._save(folder))
        self.epoch += 1
        self._check_processes()
        row = {"network": self.role, "epoch": self.epoch, **numbers}
        if self.world.is_first:
            record_metrics(folder.train_metrics, row)
        self._save(folder)
        return row

    def _memory_line(self) -> str:
        images = self.settings.batch_size // self.world.size
        device = next(self.network.parameters()).device
        return check_memory(self.memory(), "train.batch_size", images, device)

    def memory(self) -> Memory:
        """What a step takes; the training is left as it is."""
        state = copy.deepcopy(self.state())

        def step(images: int) -> None:
            self._ordinary_step(self.batches.first(images))

        training = self.network.training
        found = measured_memory(step, self.network.train(), [self.optimiser])
        self.network.train(training).zero_grad()
        self.restore(state, "memory")
        return found

    def _begin(self) -> Begun:
        """The epoch that is under way, or a new one."""
        if self.begun is None:
            self.begun = Begun(self.generator.get_state(), Tally(len(COUNTED)))
        return self.begun

    def _step_of_epoch(self) -> str:
        return "" if self.begun is None else f" and {self.begun.tally.steps} steps"

    def _save(self, folder: RunFolder) -> bool:
        """Write the checkpoint; all processes take part, the first one writes."""
        state = self.state()
        if self.world.is_first:
            save_checkpoint(folder.train_checkpoint(self.role), state)
        return True

    def _check_processes(self) -> None:
        beside = [] if self.auxiliary is None else list(self.auxiliary.buffers())
        weights = [*self.parameters, *self.network.buffers(), *beside]
        same_everywhere({f"weights ({self.role})": weights}, self.world)

    def one_epoch(self, after_step: Callable[[], object] | None = None) -> dict[str, Any]:
        """Loss and accuracy over the epoch's batches, and its seconds."""
        tally, settings = self._begin().tally, self.settings
        rate = cosine(self.epoch, settings.epochs, settings.learning_rate, 0.0)
        set_rate(self.optimiser, rate)
        if self.drop is not None:
            self.drop.set(settings.drop_path * self.epoch / settings.epochs)
        self.network.train()
        for batch in self._batches_left():
            tally.add(self._step(batch))
            if after_step is not None:
                after_step()
        self.begun = None
        loss, right, images = tally.totals(self.world)
        steps = tally.steps * self.world.size
        return {"loss": loss / steps, "accuracy": right / images, "seconds": tally.seconds}

    def _batches_left(self) -> Iterator[Batch]:
        """Those of the epoch that are still to come."""
        begun = self._begin()
        self.generator.set_state(begun.generator)
        return self.batches.epoch(self.generator, begun.tally.steps)

    def _step(self, batch: Batch) -> list[float | Tensor]:
        """What ``COUNTED`` names, of this batch before the step."""
        if self.captured is None:
            return self._ordinary_step(batch)
        return self.captured("training", self._ordinary_step, batch)

    def _ordinary_step(self, batch: Batch) -> list[float | Tensor]:
        place, weight = auxiliary_place(self.task.found_space), self.settings.auxiliary_weight
        with computing(self.device, self.task.config.precision):
            logits, beside = self.network.training_logits(
                batch.images, self.drop, self.auxiliary, place
            )
            loss = functional.cross_entropy(logits, batch.labels)
            total = loss
            if beside is not None:
                total = loss + weight * functional.cross_entropy(beside, batch.labels)
        self.optimiser.zero_grad()
        total.backward()
        parameters = self.parameters
        means = averaged([parameter.grad for parameter in parameters], self.world)
        for parameter, gradient in zip(parameters, means, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        self.optimiser.step()
        right = (logits.detach().argmax(1) == batch.labels).sum()
        return [loss.detach(), right, len(batch.labels)]

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on."""
        return {
            "configuration": self._key,
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "auxiliary": None if self.auxiliary is None else self.auxiliary.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "begun": self._begun_state(),
            "generator": self.generator.get_state(),
            "global_generator": torch.get_rng_state(),
            "device_generator": device_generator_state(self.device),
        }

    def _begun_state(self) -> dict[str, Any] | None:
        if self.begun is None:
            return None
        return {"generator": self.begun.generator, "tally": self.begun.tally.state(self.world)}

    def restore(self, state: dict[str, Any], source: str) -> None:
        """Go on from `state`; InputError that names `source` when it is not this training's."""
        if state.get("configuration") != self._key:
            raise InputError(f"{source} must be a checkpoint of this configuration, not of another")
        try:
            if self.captured is not None:
                self.captured = CapturedSteps()
            self.network.load_state_dict(state["network"])
            if self.auxiliary is not None:
                self.auxiliary.load_state_dict(state["auxiliary"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["global_generator"])
            set_device_generator_state(self.device, state["device_generator"])
            self.begun = self._begun_of(state["begun"])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{source} must be a checkpoint of this training ({reason})") from None

    def _begun_of(self, state: dict[str, Any] | None) -> Begun | None:
        if state is None:
            return None
        return Begun(state["generator"], Tally.of(state["tally"], self.world))

    @property
    def _key(self) -> str:
        assignment = self.task.assignment
        refined = f" {assignment.digest}" if assignment else ""
        return f"{resumable_key(self.task.config)} {self.role} {self.genotype.digest}{refined}"


def _all_but_test(task: Task) -> Split:
    """Training and validation images together; the search is over."""
    parts = [task.data.splits[name] for name in ("train", "validation")]
    images = torch.cat([part.images for part in parts])
    return Split(images, torch.cat([part.labels for part in parts]))
