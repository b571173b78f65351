"""Speed of exported models: the time of one image in onnxruntime, on one thread, ÷ that of the same
network with plain fp32 convolutions, exported by the same writer; and that both know what they
compute.

``python -m benchmarks.export_speed`` for ResNet-20 and the DARTS network of 20 cells, every
convolution with one multiplier of rank 1, 2 or 5. Weights are random: times do not depend on them.
"""

import argparse

import numpy as np
import torch

from benchmarks.export import plain, session
from benchmarks.measurement import Measurement, print_machine, print_measurement, ratio, seconds
from benchmarks.networks import NETWORKS
from export import IntegerNetwork, ModelMetadata, integerise, onnx_model
from lut import LUT, MultiplierLibrary, approximate, calibrate

# By multiplier: the rank of its table, and the ratio that it shall not exceed.
MULTIPLIERS = {
    "mul8s_array": (1, 6.0),
    "mul8s_truncated_k1": (2, 6.0),
    "mul8s_truncated_k4": (5, 15.0),
}
SHAPE = (3, 32, 32)


def integer_network(name: str, lut: LUT) -> IntegerNetwork:
    """A network of ``benchmarks.networks`` with one multiplier in all layers."""
    torch.manual_seed(0)
    network = approximate(NETWORKS[name]().eval(), lut)
    calibrate(network, [torch.rand(2, *SHAPE)])
    return integerise(network.eval(), SHAPE, 1 / 255)


def measure(name: str, multiplier: str, lut: LUT, repetitions: int) -> None:
    """Print equality, both times and their ratio."""
    rank, target = MULTIPLIERS[multiplier]
    assert lut.rank == rank
    network = integer_network(name, lut)
    model = onnx_model(network, ModelMetadata())
    images = torch.randint(0, 256, (1, *SHAPE)).to(torch.uint8)
    feed = {network.input_name: images.numpy()}
    emulated, exact = session(model), session(plain(model))
    assert np.array_equal(emulated.run(None, feed)[0], network(images).numpy())
    metric = f"{name}_rank_{rank}_onnxruntime"
    for kind, one in (("emulated", emulated), ("fp32", exact)):
        milliseconds = 1e3 * seconds(lambda one=one: one.run(None, feed), repetitions)  # type: ignore[misc]
        print_measurement(Measurement(f"{metric}_{kind}", round(milliseconds, 3), "ms"))
    slower = ratio(lambda: emulated.run(None, feed), lambda: exact.run(None, feed), repetitions)
    print_measurement(Measurement(f"{metric}_time_vs_fp32", round(slower, 3), "ratio", target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "darts"], choices=NETWORKS)
    parser.add_argument("--repetitions", type=int, default=31)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_machine()
    library = MultiplierLibrary.build(list(MULTIPLIERS))
    for name in arguments.networks:
        for multiplier in MULTIPLIERS:
            lut = library[multiplier].lut
            measure(name, multiplier, lut, arguments.repetitions)


if __name__ == "__main__":
    main()
