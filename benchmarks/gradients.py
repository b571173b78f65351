"""Which gradient of approximate products trains best, multiplier by multiplier.

``python -m benchmarks.gradients RUN [--epochs N] [--seeds N]``: the network that the run found is
trained from the beginning with one multiplier everywhere, once for each gradient and seed; printed
is the mean accuracy of the integer network on the test images.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.measurement import Measurement, print_machine, print_measurement
from cosearch.config import GRADIENTS
from cosearch.genotype import MultiplierChoice
from cosearch.run_folder import RunFolder
from cosearch.task import Task, read_genotype
from cosearch.training import Training
from export import integerise


def accuracy(task: Task, run: RunFolder, multiplier: str) -> float:
    """Test accuracy after training with `multiplier` everywhere."""
    choice = MultiplierChoice(multiplier, task.library[multiplier].digest)
    training = Training("approximate", task, read_genotype(run).with_multiplier(choice))
    for training.epoch in range(task.config.train.epochs):
        training.one_epoch()
    network = integerise(training.network, task.input_shape, task.data.pixel_scale)
    test = task.data.splits["test"]
    return float((network(test.images).argmax(1) == test.labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    run = RunFolder.open(arguments.run)
    task = Task.of(run)
    print_machine()
    for multiplier in task.config.multipliers.candidates:
        for gradient in GRADIENTS:
            settings = replace(task.config.train, epochs=arguments.epochs, gradient=gradient)
            accuracies = [
                accuracy(
                    replace(task, config=replace(task.config, train=settings, seed=seed)),
                    run,
                    multiplier,
                )
                for seed in range(arguments.seeds)
            ]
            mean = sum(accuracies) / len(accuracies)
            print_measurement(
                Measurement(f"accuracy_{multiplier}_{gradient}", round(mean, 4), "ratio")
            )


if __name__ == "__main__":
    main()
