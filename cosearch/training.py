"""Training of a discrete network: SGD on training and validation images, a checkpoint after each
epoch.
"""

import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cosearch.assignment import Assignment, assigned
from cosearch.checkpoint import load_checkpoint, save_checkpoint
from cosearch.data import Split
from cosearch.device import computing, placed, torch_device
from cosearch.genotype import Genotype
from cosearch.metrics import record_metrics
from cosearch.network import Network, emulated_arithmetic, float_arithmetic
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.task import Task, batches, cosine, interrupted_state, resumable_key
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


class Training:
    """One training that goes on from its checkpoint, bit for bit. All roles share seed and
    schedule. `images`: all but those of the test where left out.
    """

    def __init__(
        self, role: str, task: Task, genotype: Genotype, images: Split | None = None
    ) -> None:
        self.role, self.task, self.settings = role, task, task.config.train
        torch.manual_seed(task.config.seed)
        self.device = torch_device(task.config.device)
        self.network = network_for(role, task, genotype)
        placed(self.network, self.device)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            self.settings.learning_rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
            nesterov=self.settings.momentum > 0,
        )
        self.generator = torch.Generator().manual_seed(task.config.seed)
        self.images = _all_but_test(task) if images is None else images
        self.genotype = genotype
        self.epoch = 0

    def run(self, folder: RunFolder, progress: Progress) -> nn.Module:
        """Train to the last epoch, from the checkpoint in `folder` where there is one."""
        checkpoint = folder.train_checkpoint(self.role)
        state = interrupted_state(checkpoint, "train", folder)
        if state is not None:
            self.restore(state, str(checkpoint))
            progress.log(f"  {self.role}: goes on after epoch {self.epoch}")
        epochs = range(self.epoch, self.settings.epochs)
        for _ in progress.track(epochs, f"{self.role}, epochs"):
            row = self.one_epoch()
            self.epoch += 1
            record_metrics(folder.train_metrics, {"network": self.role, "epoch": self.epoch, **row})
            save_checkpoint(checkpoint, self.state())
        save_checkpoint(folder.weights(self.role), self.network.state_dict())
        return self.network

    def one_epoch(self) -> dict[str, float]:
        """Loss and accuracy over the epoch's batches, and its seconds."""
        start, settings = time.perf_counter(), self.settings
        rate = cosine(self.epoch, settings.epochs, settings.learning_rate, 0.0)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        loss_sum, correct, count, steps = 0.0, 0, 0, 0
        for batch in batches(
            self.images, self.task.data.pixel_scale, settings.batch_size, self.generator
        ):
            images, labels = batch.images.to(self.device), batch.labels.to(self.device)
            with computing(self.device, self.task.config.precision):
                logits = self.network(images)
                loss = functional.cross_entropy(logits, labels)
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.gradient_clip)
            self.optimiser.step()
            loss_sum, steps = loss_sum + float(loss.detach()), steps + 1
            correct += int((logits.argmax(1) == labels).sum())
            count += len(labels)
        seconds = time.perf_counter() - start
        return {"loss": loss_sum / steps, "accuracy": correct / count, "seconds": seconds}

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on."""
        return {
            "configuration": self._key,
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "global_generator": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any], source: str) -> None:
        """Go on from `state`; InputError that names `source` when it is not this training's."""
        if state.get("configuration") != self._key:
            raise InputError(f"{source} must be a checkpoint of this configuration, not of another")
        try:
            self.network.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["global_generator"])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{source} must be a checkpoint of this training ({reason})") from None

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
