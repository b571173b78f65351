"""Emulated convolutions on the CPU against torch's own fp32 convolution of the same shape.

``python -m benchmarks.emulation [--threads N]``. The layer: 16×64×32×32, 64 filters 3×3, padding 1.
Each figure is fp32 time ÷ emulated time (1: as fast as fp32), both from one run, after the emulated
result was compared with a sum over the table in numpy.
"""

import argparse

import numpy as np
import torch
from torch import Tensor

from benchmarks.measurement import Measurement, print_machine, print_measurement, ratio
from lut import LUT, approx_conv2d
from lut.backends.int8 import int8_units_are_exact
from lut.table import operand_values

SHAPE, FILTERS = (16, 64, 32, 32), 64
# Least speeds: with exact int8 units in the processor, and without.
RANKS = {
    "rank_1": (2.0, 0.9),
    "rank_5": (0.7, 0.18),
    "rank_8": (None, None),
    "table": (0.07, 0.07),
}


def truncated(columns: int) -> LUT:
    """Signed products without the partial products below column `columns`."""
    patterns, weights = np.arange(256), operand_values(8, signed=True)
    rows = [
        (-1 if bit == 7 else 1)
        * np.outer(patterns >> bit & 1, _kept(weights, columns - bit) << bit)
        for bit in range(8)
    ]
    table = np.sum(rows, axis=0).astype(np.int32)
    return LUT(table, a_signed=True, b_signed=True, name=f"truncated_{columns}")


def _kept(weights: np.ndarray, columns: int) -> np.ndarray:
    """The weights without their lowest `columns` bits; only the sign bit is left from 7 on."""
    return weights if columns <= 0 else weights >> min(columns, 8) << min(columns, 8)


def tables() -> dict[str, LUT]:
    random = np.random.default_rng(0).integers(-(1 << 14), 1 << 14, (256, 256))
    return {
        "rank_1": LUT.exact(a_signed=True, b_signed=True),
        "rank_5": truncated(4),
        "rank_8": truncated(7),
        "table": LUT(random.astype(np.int32), a_signed=True, b_signed=True, name="random"),
    }


def check(x: Tensor, w: Tensor, lut: LUT, backend: str | None) -> None:
    """One output row of one image against the definition, in numpy."""
    result = approx_conv2d(x[:1], w, lut, padding=1, backend=backend)[0, :, 5].numpy()
    images = np.pad(x[0].numpy().astype(int), [(0, 0), (1, 1), (1, 1)])
    windows = np.stack([images[:, 5:8, j : j + 3] for j in range(SHAPE[3])]) & 255
    products = lut.table[windows[None], w.numpy().astype(int)[:, None] & 255]
    assert np.array_equal(result, products.sum(axis=(2, 3, 4)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    print_machine()
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-127, 128, SHAPE, generator=generator).to(torch.int8)
    w = torch.randint(-127, 128, (FILTERS, SHAPE[1], 3, 3), generator=generator).to(torch.int8)
    units = int8_units_are_exact()
    for name, lut in tables().items():
        measure(name, x, w, lut, None, RANKS[name][0 if units else 1])
        if units and lut.rank <= 5:  # what a processor without int8 units computes with
            measure(f"{name}_in_fp32", x, w, lut, "float32", RANKS[name][1])


def measure(
    name: str, x: Tensor, w: Tensor, lut: LUT, backend: str | None, target: float | None
) -> None:
    """Print fp32 time ÷ emulated time."""
    check(x, w, lut, backend)
    real_x, real_w = x.to(torch.float32), w.to(torch.float32)
    speed = 1 / ratio(
        lambda: approx_conv2d(x, w, lut, padding=1, backend=backend),
        lambda: torch.nn.functional.conv2d(real_x, real_w, padding=1),
        repetitions=3 if name == "table" else 9,
    )
    metric = f"speed_vs_fp32_{name}_{torch.get_num_threads()}_threads"
    print_measurement(Measurement(metric, round(speed, 4), "ratio", target, "higher"))


if __name__ == "__main__":
    main()
