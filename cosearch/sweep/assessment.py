"""What a genotype is worth in a sweep: accuracy after a short training from scratch, energy and
parameters. Searches and baselines are judged by this one function.

Trained on the training split, judged on the validation split; the test split stays unseen.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from cosearch.data import Split
from cosearch.genotype import Genotype
from cosearch.layers import layer_macs
from cosearch.network import Network
from cosearch.sweep.encoding import Encoding
from cosearch.task import Task
from cosearch.training import Training, network_for
from lut import ApproxConv2d, ApproxLinear

__all__ = [
    "Assessment",
    "Limits",
    "assess",
    "epoch_images",
    "inference_energy_nj",
    "limits",
    "parameter_count",
    "search_images",
]


@dataclass(frozen=True)
class Assessment:
    """accuracy: ratio of validation images; energy_nj: multiplications of one inference; images:
    training images that it took to say so; seconds: likewise.
    """

    accuracy: float
    energy_nj: float
    parameters: int
    images: int
    seconds: float

    @property
    def objectives(self) -> tuple[float, float, float]:
        """What is minimised: error, energy and parameters."""
        return 1 - self.accuracy, self.energy_nj, float(self.parameters)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Assessment":
        """Raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            float(data["accuracy"]),
            float(data["energy_nj"]),
            int(data["parameters"]),
            int(data["images"]),
            float(data["seconds"]),
        )


@dataclass(frozen=True)
class Limits:
    """The reference point of a space: chance, and the most that one operation everywhere, with the
    exact multiplier, takes in energy and in parameters.
    """

    error: float
    energy_nj: float
    parameters: float

    def relative(self, objectives: tuple[float, float, float]) -> tuple[float, float, float]:
        """Objectives as shares of the limits: the reference point is (1, 1, 1)."""
        error, energy, parameters = objectives
        return error / self.error, energy / self.energy_nj, parameters / self.parameters


def assess(task: Task, genotype: Genotype, epochs: int) -> Assessment:
    """Train the network of `genotype` from scratch for so many epochs, by the settings of
    `task.config.train` and its seed: the same task and genotype give the same figures.
    """
    start = time.perf_counter()
    brief = replace(
        task, config=replace(task.config, train=replace(task.config.train, epochs=epochs))
    )
    split = task.data.splits["train"]
    training = Training("approximate", brief, genotype, split)
    for _ in range(epochs):
        training.one_epoch()
        training.epoch += 1
    accuracy = _accuracy(training.network, task, task.data.splits["validation"])
    return Assessment(
        accuracy,
        inference_energy_nj(training.network, task),
        parameter_count(training.network),
        epochs * epoch_images(split, task.config.train.batch_size),
        time.perf_counter() - start,
    )


def inference_energy_nj(network: Network, task: Task) -> float:
    """Energy of all multiplications of one inference, padding included, as `cosearch evaluate`
    counts it.
    """
    total_fj = 0.0
    for name, macs in layer_macs(network, task.input_shape).items():
        layer = network.get_submodule(name)
        if isinstance(layer, ApproxLinear):
            layer = layer.convolution
        assert isinstance(layer, ApproxConv2d), name
        (lut,) = layer.candidates.luts
        total_fj += macs * task.library[lut.name].cost.energy_fj
    return total_fj * 1e-6


def parameter_count(network: nn.Module) -> int:
    """The numbers that training moves."""
    return sum(parameter.numel() for parameter in network.parameters())


def limits(task: Task) -> Limits:
    """Of the task's space."""
    networks = [network_for("exact", task, uniform) for uniform in _uniform_genotypes(task)]
    return Limits(
        1 - 1 / task.data.classes,
        max(inference_energy_nj(network, task) for network in networks),
        float(max(parameter_count(network) for network in networks)),
    )


def epoch_images(split: Split, batch_size: int) -> int:
    """Images that one pass in batches takes: an incomplete last batch is left out."""
    return len(split) if len(split) < batch_size else len(split) // batch_size * batch_size


def search_images(task: Task, epochs: int) -> int:
    """Images of so many epochs of a search: the training and the validation batch of every step.
    How many passes a strategy makes over a batch does not count.
    """
    size = task.config.search.batch_size
    halves = [task.data.splits[name] for name in ("train", "validation")]
    steps = min(max(1, len(half) // size) for half in halves)
    return epochs * steps * sum(min(size, len(half)) for half in halves)


def _uniform_genotypes(task: Task) -> list[Genotype]:
    """One operation on every edge, for each operation."""
    encoding = Encoding.of(task)
    found = []
    for number in range(len(encoding.operations)):
        choices = {
            name: number if name.endswith(".operation") else 0 for name in encoding.alternatives
        }
        found.append(encoding.genotype(choices))
    return found


@torch.no_grad()
def _accuracy(network: nn.Module, task: Task, split: Split) -> float:
    """Share of images that are classified right, in eval mode."""
    network.eval()
    device, size = next(network.parameters()).device, task.config.train.batch_size
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in zip(split.images.split(size), split.labels.split(size), strict=True):
        logits = network(images.to(device, torch.float32) * task.data.pixel_scale)
        correct += (logits.argmax(1) == labels.to(device)).sum()
    return int(correct) / len(split)
