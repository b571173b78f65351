"""Emulated networks on a GPU against the exact ones in bf16, inference and steps of training.

``python -m benchmarks.networks_cuda [--networks NAME …] [--ranks 1 5 18 full] [--mode inference
training] [--batch N] [--eager] [--profile]``. Each ratio is the emulated network's time ÷ the exact
one's, both channels last under bf16 autocast, measured in turn, medians; every convolution is
emulated. Times are of replayed CUDA graphs, with ``--eager`` of ordinary calls too; a step of
training is all of it, the optimiser included. Its peak memory is that of a step that is not a
graph. Before a network is timed, convolutions of it are compared with the `table` backend, bit for
bit.
"""

import argparse
import gc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.emulation_cuda import table_of
from benchmarks.measurement import Measurement, print_machine, print_measurement
from benchmarks.networks import NETWORKS
from lut import LUT, ApproxConv2d, approx_conv2d, approximate, calibrate

BATCHES = {"darts": 96, "resnet20": 256, "resnet50": 128, "mobilenet_v2": 128}
RANKS = ("1", "5", "18", "full")
FULL = 256
# mode -> highest rank -> most that the ratio of times may be
TARGETS = {
    "inference": {1: 1.5, 5: 2.5, 18: 5.0, FULL: 10.0},
    "training": {1: 1.3, 5: 1.7, 18: 2.5, FULL: 4.5},
}
MEMORY_TARGET = 1.5
CHECKED_BATCH = 16
CHECKED_IMAGES = 2
WARM_UP = 3
ROUNDS = 11
SAMPLE_MS = 20.0
PROFILED = 3
KERNELS = 25
LEARNING_RATE = 1e-3

# Runs a network once, or a step of its training.
Work = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (N, 3, 32, 32), channels last, and labels (N,)."""

    images: Tensor
    labels: Tensor

    @classmethod
    def random(cls, count: int, device: str) -> "Batch":
        """Normal values, as normalised images have; the same in every run."""
        generator = torch.Generator(device).manual_seed(0)
        images = torch.randn(count, 3, 32, 32, generator=generator, device=device)
        labels = torch.randint(10, (count,), generator=generator, device=device)
        return cls(images.contiguous(memory_format=torch.channels_last), labels)


@dataclass(frozen=True)
class Case:
    """A network with its convolutions emulated by the table of `rank`; exact without a rank."""

    network: str
    rank: str | None

    def build(self, images: Tensor) -> nn.Module:
        """The network on the device of `images`, ready for them; its weights are always the same.

        Random tables and initial batch norms would let values grow from layer to layer, so batch
        norms take the statistics of the images first, and quantisers their ranges.
        """
        torch.manual_seed(0)
        network = NETWORKS[self.network]()
        if self.rank is not None:
            network = emulated(network, table_of(self.rank))
        network = network.to(images.device)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        prepare(network, images)
        return network

    def metric(self, what: str) -> str:
        return f"cuda_{what}_{self.network}" + (f"_rank_{self.rank}" if self.rank else "")


def emulated(network: nn.Module, lut: LUT) -> nn.Module:
    """A copy, all convolutions of which multiply by `lut`; fully connected layers stay exact."""
    return approximate(network, lambda _, layer: lut if isinstance(layer, nn.Conv2d) else None)


def bf16(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, dtype=torch.bfloat16)


@torch.no_grad()
def prepare(network: nn.Module, images: Tensor) -> None:
    """Set running statistics of batch norms and ranges of activations to those of `images`."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with bf16(images):
        network.train()(images)
        calibrate(network, [images])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def check(network: nn.Module, images: Tensor) -> None:
    """Raises AssertionError where a checked layer is not what its table says."""
    layers = checked_layers(network)
    network.eval()
    for name, (x, y) in seen(network, layers, images).items():
        check_layer(name, layers[name], x[:CHECKED_IMAGES], y[:CHECKED_IMAGES])


def checked_layers(network: nn.Module) -> dict[str, ApproxConv2d]:
    """First, middle and last emulated convolution, and the first depthwise one."""
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, ApproxConv2d)
    }
    names = list(layers)
    depthwise = [name for name in names if layers[name].geometry.groups > 1]
    chosen = {names[0], names[len(names) // 2], names[-1], *depthwise[:1]}
    return {name: layer for name, layer in layers.items() if name in chosen}


@torch.no_grad()
def seen(
    network: nn.Module, layers: dict[str, ApproxConv2d], images: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Input and output of each of `layers` as the network computes the logits of `images`."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # A copy: an activation in place may follow.
            found[name] = inputs[0].clone(), output.clone()

        return hook

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    with bf16(images):
        network(images)
    for handle in handles:
        handle.remove()
    return found


@torch.no_grad()
def check_layer(name: str, layer: ApproxConv2d, x: Tensor, y: Tensor) -> None:
    """Raises AssertionError unless y is the scaled sum of the table's products, bit for bit."""
    levels = layer.quantiser(x).to(torch.int8)
    weights, scales = layer.quantised_weight()
    accumulators = integer_convolution(layer, levels, weights)
    looked_up = integer_convolution(layer, levels, weights, "table")
    assert torch.equal(accumulators, looked_up), f"sums of {name} must be those of the table"
    scale = layer.quantiser.scale * scales.view(1, -1, 1, 1)
    assert torch.equal(y, (accumulators.float() * scale).to(y.dtype)), (
        f"results of {name} must be the scaled sums"
    )


def integer_convolution(
    layer: ApproxConv2d, levels: Tensor, weights: Tensor, backend: str | None = None
) -> Tensor:
    """int32 sums of products, of the layer's geometry."""
    geometry = layer.geometry
    return approx_conv2d(
        levels, weights.to(torch.int8), layer.candidates.luts[0], stride=geometry.stride,
        padding=geometry.padding, dilation=geometry.dilation, groups=geometry.groups,
        backend=backend,
    )  # fmt: skip


def inference(network: nn.Module, batch: Batch) -> Work:
    network.eval()

    @torch.no_grad()
    def logits() -> None:
        with bf16(batch.images):
            network(batch.images)

    return logits


def training(network: nn.Module, batch: Batch) -> Work:
    """A step of stochastic gradient descent with momentum. It may be captured: its gradients are
    then made anew inside the graph, and nothing in it waits for the device.
    """
    network.train()
    parameters = list(network.parameters())
    optimiser = torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with bf16(batch.images):
            loss = functional.cross_entropy(network(batch.images), batch.labels)
        loss.backward()
        optimiser.step()

    return step


MODES: dict[str, Callable[[nn.Module, Batch], Work]] = {
    "inference": inference,
    "training": training,
}


def work_of(case: Case, mode: str, batch: Batch) -> Work:
    return MODES[mode](case.build(batch.images), batch)


def captured(work: Work) -> Work:
    """`work` as a CUDA graph; it is warmed up on a stream of its own first, as graphs want it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def milliseconds(work: Work, repetitions: int) -> float:
    """Of one of the calls, between events on the device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repetitions):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repetitions


@dataclass(frozen=True)
class Times:
    """Milliseconds of one call."""

    emulated: float
    exact: float

    @property
    def ratio(self) -> float:
        return self.emulated / self.exact


def in_turn(
    emulated: Work, exact: Work, clock: Callable[[Work, int], float] = milliseconds
) -> Times:
    """Medians of rounds in which both run one after the other, the first round left out."""
    works = (emulated, exact)
    for work in works:
        clock(work, WARM_UP)
    counts = [max(1, math.ceil(SAMPLE_MS / clock(work, 1))) for work in works]
    rounds = [
        [clock(work, count) for work, count in zip(works, counts, strict=True)]
        for _ in range(ROUNDS + 1)
    ][1:]
    return Times(median(times[0] for times in rounds), median(times[1] for times in rounds))


def target(mode: str, rank: str) -> float:
    """The most that the ratio of times may be."""
    number = FULL if rank == "full" else int(rank)
    return next(limit for highest, limit in TARGETS[mode].items() if number <= highest)


def print_times(case: Case, mode: str, how: str, times: Times) -> None:
    assert case.rank is not None
    metric = case.metric(f"{mode}_{how}")
    limit = target(mode, case.rank)
    print_measurement(Measurement(metric, round(times.ratio, 3), "ratio", limit))
    print_measurement(Measurement(f"{metric}_emulated", round(times.emulated, 3), "ms"))
    print_measurement(Measurement(f"{metric}_exact", round(times.exact, 3), "ms"))


def peak_mib(case: Case, batch: Batch) -> float:
    """Most memory ever allocated in a step of training, with nothing but `case` and the batch."""
    step = work_of(case, "training", batch)
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def print_memory(case: Case, emulated: float, exact: float) -> None:
    metric = case.metric("training_memory")
    print_measurement(Measurement(metric, round(emulated / exact, 3), "ratio", MEMORY_TARGET))
    print_measurement(Measurement(f"{metric}_emulated", round(emulated, 1), "MiB"))
    print_measurement(Measurement(f"{metric}_exact", round(exact, 1), "MiB"))


@contextmanager
def reported(metric: str) -> Iterator[None]:
    """What fails inside is printed as one line, and the device's memory is given back."""
    try:
        yield
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        print(
            json.dumps({"metric": metric, "error": f"{type(error).__name__}: {said}"}), flush=True
        )
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def checked_cases(name: str, ranks: Sequence[str], device: str) -> list[Case]:
    """Those whose emulation is right; of the others an error is printed."""
    images = Batch.random(CHECKED_BATCH, device).images
    right = []
    for rank in ranks:
        case = Case(name, rank)
        with reported(case.metric("check")):
            check(case.build(images), images)
            right.append(case)
    return right


def measure_memory(cases: Sequence[Case], batch: Batch) -> None:
    """Each network alone on the device."""
    if not cases:
        return
    exact = Case(cases[0].network, None)
    with reported(exact.metric("training_memory")):
        least = peak_mib(exact, batch)
        gc.collect()
        for case in cases:
            with reported(case.metric("training_memory")):
                print_memory(case, peak_mib(case, batch), least)


def measure_times(cases: Sequence[Case], mode: str, batch: Batch, eager: bool) -> None:
    """Against one exact network, which is captured once."""
    if not cases:
        return
    exact = Case(cases[0].network, None)
    with reported(exact.metric(mode)):
        ordinary = work_of(exact, mode, batch)
        graph = captured(ordinary)
        for case in cases:
            with reported(case.metric(mode)):
                work = work_of(case, mode, batch)
                print_times(case, mode, "graph", in_turn(captured(work), graph))
                if eager:
                    print_times(case, mode, "eager", in_turn(work, ordinary))


def print_profiles(cases: Sequence[Case], mode: str, batch: Batch) -> None:
    """The kernels that take longest, of the exact network and of each emulated one."""
    for case in [Case(case.network, None) for case in cases[:1]] + list(cases):
        metric = case.metric(f"{mode}_profile")
        with reported(metric):
            for row in heaviest(profiled(work_of(case, mode, batch))):
                print(json.dumps({"metric": metric} | row), flush=True)


def profiled(work: Work) -> Sequence[Any]:
    """What torch's profiler recorded of a few calls, by name."""
    for _ in range(WARM_UP):
        work()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(PROFILED):
            work()
        torch.cuda.synchronize()
    return profiler.key_averages()


def heaviest(events: Sequence[Any]) -> list[dict[str, Any]]:
    """Kernels of the largest total time on the device first; times and calls are of one call.

    The first row is the sum of all kernels.
    """
    kernels = [
        event
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]
    kernels.sort(key=lambda event: event.self_device_time_total, reverse=True)
    rows = [(kernel.key, kernel.self_device_time_total, kernel.count) for kernel in kernels]
    total = ("all kernels", sum(row[1] for row in rows), sum(row[2] for row in rows))
    return [
        {"kernel": name[:160], "us": round(time / PROFILED, 1), "calls": round(count / PROFILED, 2)}
        for name, time, count in [total, *rows[:KERNELS]]
    ]


def rank_name(text: str) -> str:
    """ "full", or the number of factors of a table."""
    if text == "full" or (text.isdecimal() and 1 <= int(text) < FULL):
        return text
    raise argparse.ArgumentTypeError(f"a rank must be 1 to {FULL - 1} or 'full', not {text!r}")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__)
    result.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    result.add_argument("--ranks", nargs="+", default=list(RANKS), type=rank_name)
    result.add_argument("--mode", nargs="+", default=list(MODES), choices=list(MODES))
    result.add_argument("--batch", type=int, help="images, instead of the number for each network")
    result.add_argument("--eager", action="store_true", help="time ordinary calls too")
    result.add_argument(
        "--profile", action="store_true", help="print the kernels that take longest"
    )
    return result


def main() -> None:
    arguments = parser().parse_args()
    if not torch.cuda.is_available():
        parser().error("a CUDA device must be here, there is none")
    torch.backends.cudnn.benchmark = True
    print_machine()
    print(json.dumps({"gpu": torch.cuda.get_device_name()}), flush=True)
    for name in arguments.networks:
        benchmark(name, arguments)


def benchmark(name: str, arguments: argparse.Namespace) -> None:
    cases = checked_cases(name, arguments.ranks, "cuda")
    batch = Batch.random(arguments.batch or BATCHES[name], "cuda")
    if "training" in arguments.mode:
        measure_memory(cases, batch)
    for mode in arguments.mode:
        measure_times(cases, mode, batch, arguments.eager)
    for mode in arguments.mode if arguments.profile else ():
        print_profiles(cases, mode, batch)


if __name__ == "__main__":
    main()
