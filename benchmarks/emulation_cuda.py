"""Emulated convolutions on a GPU against cuDNN's bf16 convolution of the same shape, channels last.

``python -m benchmarks.emulation_cuda [--layers PREFIX] [--ranks 1 5 full] [--backend NAME]``. Each
figure is the emulated time ÷ the bf16 time, everything of `approx_conv2d` included, from CUDA
graphs replayed in turn over several inputs. Before a layer is timed, its result for three images is
compared with the `table` backend on the GPU, and for one image of a small layer on the CPU.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks.measurement import Measurement, print_machine, print_measurement
from lut import LUT, Factors, approx_conv2d
from lut.table import operand_values

INPUTS = 8
CPU_PRODUCTS = 1 << 25


@dataclass(frozen=True)
class Layer:
    """A convolution; `pixels` on each side, padding that keeps the size at stride 1."""

    batch: int
    channels: int
    outputs: int
    pixels: int
    kernel: int = 1
    groups: int = 1
    dilation: int = 1

    @property
    def padding(self) -> int:
        return self.dilation * (self.kernel // 2)

    def emulated(self, x: Tensor, w: Tensor, lut: LUT, backend: str | None = None) -> Tensor:
        return approx_conv2d(
            x, w, lut, padding=self.padding, dilation=self.dilation, groups=self.groups,
            backend=backend,
        )  # fmt: skip

    def ordinary(self, x: Tensor, w: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(
            x, w, padding=self.padding, dilation=self.dilation, groups=self.groups
        )

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, self.pixels, self.pixels

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        return self.outputs, self.channels // self.groups, self.kernel, self.kernel

    @property
    def products(self) -> int:
        """Multiplications for one image."""
        return int(np.prod(self.w_shape)) * self.pixels**2


def _darts() -> dict[str, Layer]:
    layers = {}
    for channels, pixels in ((36, 32), (72, 16), (144, 8)):
        at = f"{channels}x{pixels}"
        layers[f"darts_dense3_{at}"] = Layer(96, channels, channels, pixels, 3)
        layers[f"darts_1x1_{at}"] = Layer(96, channels, channels, pixels)
        layers[f"darts_preprocess_{at}"] = Layer(96, 4 * channels, channels, pixels)
        layers[f"darts_depthwise3_{at}"] = Layer(96, channels, channels, pixels, 3, channels)
        layers[f"darts_depthwise5_{at}"] = Layer(96, channels, channels, pixels, 5, channels)
        layers[f"darts_dilated5_{at}"] = Layer(96, channels, channels, pixels, 5, channels, 2)
    return layers


LAYERS = _darts() | {
    "resnet20_16x32": Layer(256, 16, 16, 32, 3),
    "resnet20_32x16": Layer(256, 32, 32, 16, 3),
    "resnet20_64x8": Layer(256, 64, 64, 8, 3),
    "resnet50_64-256x32": Layer(128, 64, 256, 32),
    "resnet50_256-64x32": Layer(128, 256, 64, 32),
    "resnet50_64-64x32": Layer(128, 64, 64, 32, 3),
    "resnet50_128-128x16": Layer(128, 128, 128, 16, 3),
    "resnet50_1024-256x8": Layer(128, 1024, 256, 8),
    "resnet50_256-256x8": Layer(128, 256, 256, 8, 3),
    "resnet50_512-2048x4": Layer(128, 512, 2048, 4),
}


def table_of(rank: str) -> LUT:
    """Signed tables: exact, of known factors, or without any structure ("full")."""
    generator = np.random.default_rng(0)
    if rank == "1":
        values = operand_values(8, signed=True)[:, None]
        factors = Factors(values, values)
    elif rank == "full":
        random = generator.integers(-(1 << 14), 1 << 14, (256, 256))
        factors = Factors(random, np.eye(256, dtype=np.int64))
    else:
        u, v = (generator.integers(-9, 10, (256, int(rank))) for _ in "uv")
        factors = Factors(u, v)
    lut = LUT(factors.table.astype(np.int32), a_signed=True, b_signed=True, name=f"rank_{rank}")
    return lut.with_factors(factors)


def operands(layer: Layer, device: str) -> tuple[list[Tensor], Tensor]:
    """Several x, and w: int8, uniform over all bit patterns."""
    generator = torch.Generator().manual_seed(0)

    def patterns(shape: tuple[int, ...]) -> Tensor:
        return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8).to(device)

    x = [
        patterns(layer.x_shape).contiguous(memory_format=torch.channels_last) for _ in range(INPUTS)
    ]
    return x, patterns(layer.w_shape)


def check(layer: Layer, x: Tensor, w: Tensor, lut: LUT, backend: str | None) -> None:
    """Raises AssertionError unless the result is that of the `table` backend, bit for bit."""
    result = layer.emulated(x, w, lut, backend)
    few = layer.emulated(x[:2], w, lut, "table")
    assert torch.equal(result[:2], few), "the GPU's look-ups must agree"
    last = layer.emulated(x[-1:], w, lut, "table")
    assert torch.equal(result[-1:], last), "the GPU's look-ups must agree"
    if layer.products <= CPU_PRODUCTS:
        one = layer.emulated(x[:1].cpu(), w.cpu(), lut, "table")
        assert torch.equal(result[:1].cpu(), one), "the CPU's look-ups must agree"


def graph(work: Callable[[Tensor], Tensor], inputs: list[Tensor]) -> torch.cuda.CUDAGraph:
    """`work` for every input, once in the open and once captured."""
    for x in inputs[:2]:
        work(x)
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        for x in inputs:
            work(x)
    return captured


def milliseconds(captured: torch.cuda.CUDAGraph, count: int) -> float:
    """Of one of the `count` calls captured."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    captured.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / count


@dataclass(frozen=True)
class Comparison:
    """Milliseconds of one convolution."""

    emulated: float
    bf16: float

    @property
    def ratio(self) -> float:
        return self.emulated / self.bf16


def compared(layer: Layer, x: list[Tensor], w: Tensor, lut: LUT, backend: str | None) -> Comparison:
    """Both in turn, medians of fifteen."""
    real = [t.to(torch.bfloat16) for t in x]
    kernel = w.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    graphs = (
        graph(lambda t: layer.emulated(t, w, lut, backend), x),
        graph(lambda t: layer.ordinary(t, kernel), real),
    )
    times = [[milliseconds(captured, len(x)) for captured in graphs] for _ in range(16)][1:]
    return Comparison(median(t[0] for t in times), median(t[1] for t in times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", default="", help="only layers whose name begins so")
    parser.add_argument("--ranks", nargs="+", default=["1", "5", "8", "18", "full"])
    parser.add_argument("--backend", help="instead of the one chosen for each layer")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("a CUDA device must be here, there is none")
    torch.backends.cudnn.benchmark = True
    print_machine()
    print(json.dumps({"gpu": torch.cuda.get_device_name()}), flush=True)
    for name, layer in LAYERS.items():
        if not name.startswith(arguments.layers):
            continue
        x, w = operands(layer, "cuda")
        for rank in arguments.ranks:
            lut = table_of(rank)
            check(layer, x[0], w, lut, arguments.backend)
            result = compared(layer, x, w, lut, arguments.backend)
            metric = f"cuda_vs_bf16_{name}_rank_{rank}"
            print_measurement(Measurement(metric, round(result.ratio, 2), "ratio"))
            print_measurement(Measurement(metric, round(1000 * result.emulated, 1), "us"))


if __name__ == "__main__":
    main()
