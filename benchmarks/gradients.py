"""Which gradient of approximate products trains best, multiplier by multiplier.

``python -m benchmarks.gradients RUN [--epochs N] [--seeds N]``: the network that the run found is
trained from the beginning with one multiplier everywhere, once for each gradient and seed; printed
is the mean accuracy of the integer network on the test images.

``python -m benchmarks.gradients --images ZIP [--epochs N] [--seeds N] [--multipliers NAME …]``: a
residual network on photographs, its convolutions emulated, in two regimes: ``scratch``, trained
from initial weights, and ``retrained``, half as many epochs from weights trained in fp32. Of one
seed all trainings of a regime share the initial weights and the order of images, so gradients are
compared in pairs: printed is the accuracy on test images, and that minus ``straight_through``'s,
each with its mean, lowest and highest over seeds. For exact multipliers the three gradients differ
by rounding only: their differences show what a pair differs by without a cause.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.images import PIXEL_SCALE, read_splits
from benchmarks.measurement import Measurement, print_machine, print_measurement
from benchmarks.networks import CLASSES, IMAGE_CHANNELS, Residual, Subsample
from cosearch.batches import Batches
from cosearch.config import GRADIENTS
from cosearch.data import Split
from cosearch.genotype import MultiplierChoice
from cosearch.run_folder import RunFolder
from cosearch.task import Task, read_genotype
from cosearch.training import Training
from export import integerise
from hw import build_multiplier
from hw.errors import InputError
from lut import LUT, ApproxConv2d, Candidates, approximate, calibrate

MULTIPLIERS = (
    "mul8s_array",
    "mul8s_truncated_k7",
    "mul8s_truncated_k10",
    "mul8s_perforated_f2_r2",
    "mul8s_drum_k3",
    "mul8s_iterative_log_i0",
)
CHANNELS = 12
BATCH = 64
MOMENTUM, WEIGHT_DECAY, GRADIENT_CLIP = 0.9, 5e-4, 5.0
SCRATCH_RATE, RETRAINING_RATE = 0.05, 0.01
CALIBRATION_IMAGES = 512


def accuracy(task: Task, run: RunFolder, multiplier: str) -> float:
    """Test accuracy after training with `multiplier` everywhere."""
    choice = MultiplierChoice(multiplier, task.library[multiplier].digest)
    training = Training("approximate", task, read_genotype(run).with_multiplier(choice))
    for training.epoch in range(task.config.train.epochs):
        training.one_epoch()
    network = integerise(training.network, task.input_shape, task.data.pixel_scale)
    test = task.data.splits["test"]
    return float((network(test.images).argmax(1) == test.labels).double().mean())


def compare_on_run(run: RunFolder, epochs: int, seeds: int) -> None:
    """Print the mean accuracy of each of the run's candidates with each gradient."""
    task = Task.of(run)
    for multiplier in task.config.multipliers.candidates:
        for gradient in GRADIENTS:
            settings = replace(task.config.train, epochs=epochs, gradient=gradient)
            accuracies = [
                accuracy(
                    replace(task, config=replace(task.config, train=settings, seed=seed)),
                    run,
                    multiplier,
                )
                for seed in range(seeds)
            ]
            mean = sum(accuracies) / len(accuracies)
            print_measurement(
                Measurement(f"accuracy_{multiplier}_{gradient}", round(mean, 4), "ratio")
            )


def residual_network() -> nn.Module:
    """A block each of 12, 24 and 48 channels behind a stem of stride 2; 7 convolutions."""
    layers: list[nn.Module] = [nn.BatchNorm2d(IMAGE_CHANNELS, affine=False)]
    layers += [*_convolution(IMAGE_CHANNELS, CHANNELS, stride=2), nn.ReLU()]
    before = CHANNELS
    for channels in (CHANNELS, 2 * CHANNELS, 4 * CHANNELS):
        layers.append(_block(before, channels))
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


def _block(before: int, channels: int) -> nn.Module:
    """Two convolutions; of stride 2 where the channels double."""
    doubles = channels != before
    body = [*_convolution(before, channels, stride=2 if doubles else 1), nn.ReLU()]
    body += _convolution(channels, channels, stride=1)
    return Residual(nn.Sequential(*body), Subsample() if doubles else nn.Identity(), nn.ReLU())


def _convolution(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


def emulated(network: nn.Module, lut: LUT, gradient: str) -> nn.Module:
    """A copy of `network` whose convolutions multiply by `lut` and train with `gradient`."""
    result = approximate(network, lambda _, layer: lut if isinstance(layer, nn.Conv2d) else None)
    candidates = Candidates([lut], gradient=gradient)
    for layer in result.modules():
        if isinstance(layer, ApproxConv2d):
            layer.candidates = candidates
    return result


def train(network: nn.Module, images: Split, epochs: int, rate: float, seed: int) -> None:
    """SGD, its rate falling from `rate` to 0 along a cosine; `seed` gives the images' order."""
    optimiser = torch.optim.SGD(
        network.parameters(), rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    steps = epochs * max(1, len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator, batches = torch.Generator().manual_seed(seed), Batches(images, PIXEL_SCALE, BATCH)
    network.train()
    for _ in range(epochs):
        for batch in batches.epoch(generator):
            optimiser.zero_grad()
            functional.cross_entropy(network(batch.images), batch.labels).backward()
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
            optimiser.step()
            schedule.step()


@torch.no_grad()
def share_right(network: nn.Module, images: Split) -> float:
    """Accuracy in evaluation mode."""
    network.eval()
    right = 0
    for pixels, labels in zip(images.images.split(250), images.labels.split(250), strict=True):
        right += int((network(pixels * PIXEL_SCALE).argmax(1) == labels).sum())
    return right / len(images)


@dataclass(frozen=True)
class Study:
    """Trainings on `training` images, judged on `test` images; `epochs` from scratch."""

    training: Split
    test: Split
    epochs: int
    seeds: int

    def pretrained(self, seed: int) -> nn.Module:
        """An fp32 network, trained twice as long as emulated ones are: its epochs cost little."""
        network = initial_network(seed)
        train(network, self.training, 2 * self.epochs, SCRATCH_RATE, seed)
        return network

    def scratch(self, network: nn.Module, seed: int) -> float:
        train(network, self.training, self.epochs, SCRATCH_RATE, seed)
        return share_right(network, self.test)

    def retrained(self, network: nn.Module, seed: int) -> float:
        epochs = max(1, self.epochs // 2)
        train(network, self.training, epochs, RETRAINING_RATE, seed)
        return share_right(network, self.test)

    def before_retraining(self, network: nn.Module, lut: LUT) -> float:
        """Accuracy of the fp32 weights with `lut`, ranges calibrated."""
        copy = emulated(network, lut, "straight_through")
        calibrate(copy, [self.training.images[:CALIBRATION_IMAGES] * PIXEL_SCALE])
        return share_right(copy, self.test)


def initial_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return residual_network()


def compare_on_images(study: Study, luts: Sequence[LUT]) -> None:
    """Print accuracies and paired differences, by multiplier, regime and gradient."""
    seeds = range(study.seeds)
    initial = [initial_network(seed) for seed in seeds]
    pretrained = [study.pretrained(seed) for seed in seeds]
    _print_spread("accuracy_fp32", [share_right(network, study.test) for network in pretrained])
    for lut in luts:
        before = [study.before_retraining(network, lut) for network in pretrained]
        _print_spread(f"accuracy_not_retrained_{lut.name}", before)
        _compare_gradients(f"scratch_{lut.name}", lut, initial, study.scratch)
        _compare_gradients(f"retrained_{lut.name}", lut, pretrained, study.retrained)


def _compare_gradients(
    name: str, lut: LUT, starts: Sequence[nn.Module], run: Callable[[nn.Module, int], float]
) -> None:
    """`run` trains a copy of each start, in place of the seed, and tells its accuracy."""
    reference: list[float] = []
    for gradient in GRADIENTS:
        begin = time.process_time()
        accuracies = [
            run(emulated(start, lut, gradient), seed) for seed, start in enumerate(starts)
        ]
        spent = (time.process_time() - begin) / len(starts)
        reference = reference or accuracies
        _print_spread(f"accuracy_{name}_{gradient}", accuracies)
        if gradient != GRADIENTS[0]:
            pairs = zip(accuracies, reference, strict=True)
            _print_spread(f"difference_{name}_{gradient}", [one - other for one, other in pairs])
        print_measurement(Measurement(f"cpu_time_{name}_{gradient}", round(spent, 1), "s"))


def _print_spread(metric: str, values: Sequence[float]) -> None:
    """Mean, lowest and highest."""
    mean = sum(values) / len(values)
    for which, value in (("mean", mean), ("lowest", min(values)), ("highest", max(values))):
        print_measurement(Measurement(f"{metric}_{which}", round(value, 4), "ratio"))


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__)
    result.add_argument("run", type=Path, nargs="?", help="folder of a finished run")
    result.add_argument("--images", type=Path, metavar="ZIP", help="…/<class>/<name>.jpg")
    result.add_argument("--epochs", type=int, help="20 for a run, 4 for images")
    result.add_argument("--seeds", type=int, help="3 for a run, 2 for images")
    result.add_argument("--multipliers", nargs="+", default=MULTIPLIERS, metavar="NAME")
    result.add_argument("--training-images", type=int, default=6000, metavar="N")
    result.add_argument("--test-images", type=int, default=4000, metavar="N")
    return result


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """With the defaults of what was asked for; ends the process unless that is one thing."""
    result = parser().parse_args(arguments)
    if (result.run is None) == (result.images is None):
        parser().error("give either the folder of a run or --images")
    epochs, seeds = (20, 3) if result.images is None else (4, 2)
    result.epochs = epochs if result.epochs is None else result.epochs
    result.seeds = seeds if result.seeds is None else result.seeds
    if min(result.epochs, result.seeds, result.training_images, result.test_images) < 1:
        parser().error("epochs, seeds and numbers of images must be at least 1")
    return result


def main() -> None:
    arguments = parsed()
    try:
        if arguments.images is None:
            run = RunFolder.open(arguments.run)
            print_machine()
            compare_on_run(run, arguments.epochs, arguments.seeds)
            return
        luts = [LUT.of(build_multiplier(name)) for name in arguments.multipliers]
        splits = read_splits(arguments.images, arguments.training_images, arguments.test_images)
    except InputError as error:
        parser().error(str(error))
    torch.set_num_threads(1)
    print_machine()
    compare_on_images(Study(*splits, arguments.epochs, arguments.seeds), luts)


if __name__ == "__main__":
    main()
