"""Layers that mix eight multipliers against layers of one multiplier of the same (joint) rank.

``python -m benchmarks.mixtures [--device cuda]``. Layers of the DARTS search on CIFAR-10: batch 64,
16 to 64 channels, in bf16 autocast on a GPU (times of CUDA graphs), fp32 on a CPU. Each ratio is
mixture ÷ one multiplier, measured in turn, medians: forward, and forward with the gradients of x
and w, against a layer of one multiplier; and with the mixture's own gradient, against a mixture of
one multiplier over the same basis. Before it is timed, a mixture is compared with the weighted sum
of separate emulations.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks.emulation_cuda import graph, milliseconds
from benchmarks.measurement import Measurement, print_machine, print_measurement, ratio
from lut import LUT, ApproxConv2d, Candidates, Factors, JointBasis

MULTIPLIERS = 8
RANKS = (2, 5, 8)
TARGET = 1.5
# channels, outputs, pixels, kernel, dilation, groups
LAYERS = {
    "sep3_depthwise_16x32": (16, 16, 32, 3, 1, 16),
    "dil5_depthwise_16x32": (16, 16, 32, 5, 2, 16),
    "pointwise_16x32": (16, 16, 32, 1, 1, 1),
    "sep5_depthwise_64x8": (64, 64, 8, 5, 1, 64),
    "pointwise_64x8": (64, 64, 8, 1, 1, 1),
    "dense3_64x16": (64, 64, 16, 3, 1, 1),
}


def candidates(rank: int, count: int) -> Candidates:
    """So many signed tables, of one activation side of this rank."""
    generator = np.random.default_rng(rank)
    u = generator.integers(-9, 10, (256, rank))
    v = generator.integers(-9, 10, (count, 256, rank))
    basis = JointBasis(u, v)
    luts = [_lut(basis.factors(index), f"{rank}_{index}") for index in range(count)]
    return Candidates(luts, basis)


def _lut(factors: Factors, name: str) -> LUT:
    lut = LUT(factors.table.astype(np.int32), a_signed=True, b_signed=True, name=name)
    return lut.with_factors(factors)


def layer_of(name: str, known: Candidates, device: str) -> ApproxConv2d:
    channels, outputs, _, kernel, dilation, groups = LAYERS[name]
    torch.manual_seed(0)
    layer = ApproxConv2d(
        channels, outputs, kernel, known, padding=dilation * (kernel // 2), dilation=dilation,
        groups=groups,
    )  # fmt: skip
    layer = layer.to(device).eval()
    return layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images(name: str, device: str, batch: int = 64) -> Tensor:
    channels, _, pixels, *_ = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, pixels, pixels, generator=generator)
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    return x.to(device, kind).contiguous(memory_format=torch.channels_last)


def check(name: str, rank: int, device: str) -> None:
    """Raises AssertionError unless the mixture is the weighted sum, in float32."""
    many = candidates(rank, MULTIPLIERS)
    x = images(name, device, batch=4).float()
    weights = torch.softmax(torch.arange(MULTIPLIERS, dtype=torch.float32), 0).to(device)
    mixed = layer_of(name, many, device)
    mixed.quantiser.set_range(-4.0, 4.0)
    expected = torch.zeros(())
    with torch.no_grad():
        result = mixed(x, weights)
        for one_hot, weight in zip(torch.eye(MULTIPLIERS, device=device), weights, strict=True):
            expected = expected.to(device) + weight * mixed(x, one_hot)
        error = float((result - expected).abs().max() / expected.abs().max())
    assert error < 2e-5, f"the mixture must be the weighted sum, not {error} off"


def work(layer: ApproxConv2d, mixture: Tensor | None, mode: str) -> Callable[[Tensor], object]:
    """`mode`: forward; backward, without the mixture's gradient; or backward_mixture, with it."""
    if mixture is not None and mode != "backward_mixture":
        mixture = mixture.detach()

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=x.is_cuda):
            result: Tensor = layer(x, mixture)
            return result

    def forward_only(x: Tensor) -> Tensor:
        with torch.no_grad():
            return forward(x)

    def backward(x: Tensor) -> object:
        x = x.detach().requires_grad_()
        result = forward(x)
        wanted = [t for t in (x, layer.weight, mixture) if t is not None and t.requires_grad]
        return torch.autograd.grad(result, wanted, torch.ones_like(result))

    return forward_only if mode == "forward" else backward


def compared(
    one: Callable[[Tensor], object], other: Callable[[Tensor], object], x: Tensor
) -> float:
    """Time of the first ÷ time of the second."""
    if not x.is_cuda:
        return ratio(lambda: one(x), lambda: other(x))
    graphs = [graph(call, [x.clone() for _ in range(8)]) for call in (one, other)]  # type: ignore[arg-type]
    times = [[milliseconds(captured, 8) for captured in graphs] for _ in range(16)][1:]
    return median(first / second for first, second in times)


def measure(name: str, rank: int, device: str) -> Sequence[Measurement]:
    x = images(name, device)
    uniform = torch.full((MULTIPLIERS,), 1 / MULTIPLIERS, device=device, requires_grad=True)
    alone = torch.ones(1, device=device, requires_grad=True)
    many = layer_of(name, candidates(rank, MULTIPLIERS), device)
    single = layer_of(name, candidates(rank, 1), device)
    metric = f"{device}_mixture_{name}_rank_{rank}"
    return [
        Measurement(
            f"{metric}_{mode}",
            round(compared(work(many, uniform, mode), work(single, other, mode), x), 2),
            "ratio",
            TARGET,
        )
        for mode, other in (("forward", None), ("backward", None), ("backward_mixture", alone))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("a CUDA device must be here, there is none")
    print_machine()
    if device == "cuda":
        print(json.dumps({"gpu": torch.cuda.get_device_name()}), flush=True)
    for name in LAYERS:
        for rank in RANKS:
            check(name, rank, device)
            for measurement in measure(name, rank, device):
                print_measurement(measurement)


if __name__ == "__main__":
    main()
