"""Time of a step of the search on a GPU: the DARTS supernet of CIFAR-10, its operations merged.

``python -m benchmarks.supernet_cuda [--library FOLDER] [--batch N] [--kinds plain exact all]``. A
step is first-order DARTS's: alphas and betas, then weights, in bf16 autocast, channels last, as one
CUDA graph with its optimisers. Kinds: `plain` convolutions in real numbers, merged and not; with a
run's ``luts`` folder also its `exact` multiplier, and `all` signed ones of it together. The time of
a whole search is that of 50 epochs over 25,000 + 25,000 images. Merged and plain results are
compared before anything is timed. `exact` and `all` factorise tables, which takes python-flint.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measurement import Measurement, print_machine, print_measurement
from benchmarks.networks_cuda import Batch, captured, milliseconds
from cosearch.config import OPERATIONS
from cosearch.passes import frozen
from cosearch.space import SearchSpace
from cosearch.strategies.bilevel import move
from cosearch.supernet import Cell, Supernet
from lut import LUT, ApproxConv2d, Candidates, MultiplierLibrary

EPOCHS, IMAGES = 50, 25_000
ROUNDS = 3
LIMITS = {"plain": 15.0, "exact": 15.0, "all": 25.0}  # minutes of a search
SPACE = SearchSpace(16, 8, 4, OPERATIONS, image_channels=3, classes=10)


class Real(nn.Conv2d):
    """A convolution in real numbers in the place of an emulated one."""

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        return super().forward(x)


def in_real_numbers(network: nn.Module) -> None:
    """Replace every emulated convolution."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ApproxConv2d):
                parent.register_module(name, _real(child))


def _real(layer: ApproxConv2d) -> Real:
    outputs, inputs, height, width = layer.weight.shape
    geometry = layer.geometry
    return Real(
        inputs * geometry.groups, outputs, (height, width), geometry.stride, geometry.padding,
        geometry.dilation, geometry.groups, bias=layer.bias is not None,
    )  # fmt: skip


def supernet(luts: list[LUT], *, real: bool, merged: bool) -> Supernet:
    torch.manual_seed(0)
    net = Supernet(SPACE, Candidates(luts), Candidates(luts[:1]))
    if real:
        in_real_numbers(net)
    for cell in net.cells:
        assert isinstance(cell, Cell)
        cell.merged = merged
    return net.cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def step(net: Supernet, batch: Batch) -> Callable[[], None]:
    """Alphas and betas, then weights; nothing in it waits for the device."""
    architecture, weights = net.architecture_parameters(), net.weight_parameters()
    adam = torch.optim.Adam(architecture, 3e-4, betas=(0.5, 0.999), capturable=True)
    sgd = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4, foreach=True)

    def half(
        moving: list[nn.Parameter], resting: list[nn.Parameter], by: torch.optim.Optimizer
    ) -> None:
        with frozen(resting), torch.autocast("cuda", dtype=torch.bfloat16):
            loss = functional.cross_entropy(net(batch.images), batch.labels)
        move(moving, torch.autograd.grad(loss, moving, allow_unused=True), by)

    def both() -> None:
        half(architecture, weights, adam)
        half(weights, architecture, sgd)

    return both


@torch.no_grad()
def check() -> None:
    """Raises AssertionError where merged cells differ from plain ones, in float32."""
    plain = supernet([LUT.exact(a_signed=True, b_signed=True)], real=True, merged=False)
    merged = copy.deepcopy(plain)
    for cell in merged.cells:
        assert isinstance(cell, Cell)
        cell.merged = True
    images = Batch.random(16, "cuda").images
    torch.testing.assert_close(merged(images), plain(images), rtol=1e-3, atol=1e-3)


def measure(name: str, luts: list[LUT], batch: int, *, real: bool, merged: bool = True) -> None:
    graph = captured(step(supernet(luts, real=real, merged=merged), Batch.random(batch, "cuda")))
    taken = min(milliseconds(graph, ROUNDS) for _ in range(ROUNDS))
    metric = f"cuda_supernet_step_{name}" + ("" if merged else "_not_merged")
    print_measurement(Measurement(metric, round(taken, 1), "ms"))
    minutes = taken * EPOCHS * -(-IMAGES // batch) / 60_000
    limit = LIMITS[name] if merged else None
    print_measurement(Measurement(f"{metric}_search", round(minutes, 1), "min", limit))
    gib = torch.cuda.max_memory_allocated() / 2**30
    print_measurement(Measurement(f"{metric}_memory", round(gib, 2), "GiB"))
    torch.cuda.reset_peak_memory_stats()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, help="a run's luts folder")
    parser.add_argument("--batch", type=int, default=256, help="images")
    parser.add_argument("--kinds", nargs="+", default=["plain"], choices=list(LIMITS))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("a CUDA device must be here, there is none")
    torch.backends.cudnn.benchmark = True
    print_machine()
    print(json.dumps({"gpu": torch.cuda.get_device_name()}), flush=True)
    check()
    exact = [LUT.exact(a_signed=True, b_signed=True)]
    signed = exact
    if arguments.library is not None:
        library = MultiplierLibrary.load(arguments.library)
        signed = [entry.lut for entry in library if entry.lut.a_signed]
    for kind in arguments.kinds:
        if kind == "plain":
            measure(kind, exact, arguments.batch, real=True)
            measure(kind, exact, arguments.batch, real=True, merged=False)
        else:
            luts = signed if kind == "all" else exact
            measure(kind, luts, arguments.batch, real=False)


if __name__ == "__main__":
    main()
