"""Writing and verifying the bundle of the DARTS network of 20 cells, and what its model takes.

``python -m benchmarks.bundle``: every convolution approximate, four multipliers in turn, 20 cells,
C = 36, random weights; written, verified by two readers and once more, in a process that builds and
characterises the multipliers beforehand.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.measurement import Measurement, print_machine, print_measurement
from benchmarks.networks import NETWORKS
from export import Bundle, integerise, verify, write_bundle
from lut import MultiplierLibrary, approximate, calibrate

MULTIPLIERS = (
    "mul8s_array",
    "mul8s_truncated_k5",
    "mul8s_truncated_k7",
    "mul8s_broken_array_h2_v7",
)
SHAPE = (3, 32, 32)
LAYERS = (nn.Conv2d, nn.Linear)
SECONDS, EXTRA_MB = 60.0, 2.0


def bundle(images: int) -> Bundle:
    """The network with the multipliers in turn, layer by layer."""
    library = MultiplierLibrary.build(list(MULTIPLIERS))
    torch.manual_seed(0)
    exact = NETWORKS["darts"]().eval()
    layers = [name for name, module in exact.named_modules() if isinstance(module, LAYERS)]
    luts = itertools.cycle(library.luts(list(MULTIPLIERS)))
    network = approximate(exact, dict(zip(layers, luts, strict=False)))
    calibrate(network, [torch.rand(2, *SHAPE)])
    pixels = torch.randint(0, 256, (images, *SHAPE)).to(torch.uint8)
    integers = integerise(network.eval(), SHAPE, 1 / 255)
    return Bundle("darts_20_cells", integers, tuple(library), pixels, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16, help="golden images")
    images = parser.parse_args().images
    print_machine()
    made = bundle(images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        start = time.perf_counter()
        found = write_bundle(made, path)
        written = time.perf_counter() - start
        start = time.perf_counter()
        assert verify(path) == found and len(found.readers) == 2, found
        verified = time.perf_counter() - start
        weights = sum(node.weight.numel() for node in made.network.convolutions)
        extra = ((path / "model.onnx").stat().st_size - weights) / 1e6
    print_measurement(Measurement("bundle_written_and_verified", round(written, 1), "s", SECONDS))
    print_measurement(Measurement("bundle_verified_again", round(verified, 1), "s"))
    print_measurement(Measurement("model_beyond_int8_weights", round(extra, 2), "MB", EXTRA_MB))


if __name__ == "__main__":
    main()
