"""Operators trace, compile, export, differentiate, and run under autocast and in processes."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.library import opcheck
from torch.nn.parallel import DistributedDataParallel

from hw.errors import InputError
from lut import (
    LUT,
    ActivationQuantiser,
    ApproxConv2d,
    ApproxLinear,
    ApproxMatmul,
    Candidates,
    Quantisation,
    approx_conv2d,
    approx_matmul,
)
from lut.observers import OBSERVERS
from lut.operators import known_table

from .tables import random_table, truncated

EXACT = LUT.exact(a_signed=True, b_signed=True)
SEVERAL = [EXACT, truncated(4), truncated(7)]
GEOMETRY = ([2, 1], [1, 0], [1, 2], 2)
QUANTISATIONS = [Quantisation(), Quantisation(symmetric=False), Quantisation(learned=True)]


def inductor(test: Callable[..., None]) -> Callable[..., None]:
    """A slow test that compiles C++."""
    missing = shutil.which("g++") is None
    marked = pytest.mark.skipif(missing, reason="inductor needs a C++ compiler")(test)
    return pytest.mark.slow(marked)


class Network(nn.Module):
    """Dense, depthwise and fully connected layers around a product of activations."""

    def __init__(self, luts: list[LUT], quantisation: Quantisation) -> None:
        super().__init__()
        torch.manual_seed(0)
        candidates = Candidates(luts)
        self.first = ApproxConv2d(4, 6, 3, candidates, padding=1, quantisation=quantisation)
        self.norm = nn.BatchNorm2d(6)
        self.product = ApproxMatmul(candidates, quantisation=quantisation)
        self.second = ApproxConv2d(
            6, 6, 3, candidates, groups=6, bias=True, quantisation=quantisation
        )
        self.last = ApproxLinear(6, 5, candidates, quantisation=quantisation)

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        inner = torch.relu(self.norm(self.first(x, mixture)))
        inner = self.second(self.product(inner, inner.mT, mixture), mixture)
        result: Tensor = self.last(inner.mean((2, 3)), mixture)
        return result


def _images(count: int = 4) -> Tensor:
    return torch.randn(count, 4, 7, 7, generator=torch.Generator().manual_seed(1))


def _mixture(luts: list[LUT]) -> Tensor | None:
    return torch.tensor([0.5, 0.2, 0.3], requires_grad=True) if len(luts) > 1 else None


def _bytes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, shape, generator=generator).to(torch.int8)


def _detached(arguments: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(one.detach() if isinstance(one, Tensor) else one for one in arguments)


def _step(network: nn.Module, forward: nn.Module, mixture: Tensor | None) -> list[Tensor]:
    """The result, all gradients and all buffers of one training step."""
    x = _images().requires_grad_()
    if mixture is not None:
        mixture = mixture.detach().clone().requires_grad_()
    result = forward(x, mixture)
    result.square().sum().backward()
    inputs = [x] if mixture is None else [x, mixture]
    gradients = [tensor.grad for tensor in (*inputs, *network.parameters())]
    assert all(gradient is not None for gradient in gradients)
    return [result.detach(), *gradients, *network.buffers()]  # type: ignore[list-item]


# Autocast


@pytest.mark.parametrize("lut", [EXACT, random_table(2, magnitude=30)], ids=lambda lut: lut.name)
def test_autocast_reaches_no_integer_sum(lut: LUT) -> None:
    x, w = _bytes(2, 4, 6, 6), _bytes(6, 2, 3, 3, seed=1)
    expected = approx_conv2d(x, w, lut, groups=2, backend="table")
    product = approx_matmul(x, x, lut)
    with torch.autocast("cpu", torch.bfloat16):
        for backend in (None, "float32", "int8"):
            assert torch.equal(approx_conv2d(x, w, lut, groups=2, backend=backend), expected)
        assert torch.equal(approx_matmul(x, x, lut), product)


@pytest.mark.parametrize("luts", [[EXACT], [truncated(6)], SEVERAL], ids=len)
def test_autocast_reaches_no_layer(luts: list[LUT]) -> None:
    torch.manual_seed(0)
    layer = ApproxConv2d(4, 6, 3, Candidates(luts)).eval()
    mixture = None if len(luts) == 1 else torch.tensor([0.0, 1.0, 0.0])
    weights, scales = layer.quantised_weight()
    levels = layer.quantiser(_images()).to(torch.int8)
    lut = luts[len(luts) // 2]
    sums = approx_conv2d(levels, weights.to(torch.int8), lut, backend="table")
    expected = (sums.float() * (layer.quantiser.scale * scales.view(1, -1, 1, 1))).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(_images(), mixture), expected)


def test_gradients_under_autocast_are_close_to_those_without() -> None:
    network = Network([EXACT], Quantisation()).train()
    network(_images())
    network.eval()
    expected = _step(network, network, None)[1]
    x = _images().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(x).float().square().sum()
    loss.backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))


# Checks by torch


@pytest.mark.parametrize("backend", ["", "int8", "float32", "rows", "table"])
def test_opcheck_of_integer_operators(backend: str) -> None:
    lut = truncated(5)
    x, w = _bytes(2, 4, 7, 6), _bytes(6, 2, 3, 2)
    arguments = (x, w, known_table(lut), *GEOMETRY, 0, backend)
    opcheck(torch.ops.lut.accumulators.default, arguments)
    opcheck(torch.ops.lut.products.default, (_bytes(3, 5, 7), _bytes(7, 4), known_table(lut)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("luts", [[truncated(5)], SEVERAL], ids=len)
@pytest.mark.parametrize("learned", [False, True])
def test_opcheck_of_the_convolution(
    luts: list[LUT], learned: bool, layout: torch.memory_format
) -> None:
    candidates, mixture = Candidates(luts), _mixture(luts)
    x = torch.randn(2, 4, 7, 6).contiguous(memory_format=layout).requires_grad_()
    w = torch.randn(6, 2, 3, 2).contiguous(memory_format=layout).requires_grad_()
    x_scale = torch.tensor(0.02, requires_grad=learned)
    w_scale = torch.full((6,), 0.03, requires_grad=True) if learned else None
    zero_point = torch.tensor(0 if learned else 3, dtype=torch.int32)
    rest = (zero_point, w_scale, mixture, candidates.key, not learned, [-128, 127], [-127, 127])
    operands = (x, w, x_scale, *rest, *GEOMETRY)
    opcheck(torch.ops.lut.conv2d.default, (*operands, torch.float32))
    result, real = torch.ops.lut.conv2d(*operands, torch.float32)
    wanted = [True, True, learned, learned, mixture is not None]
    saved = (torch.randn(result.shape), real, result, *operands, wanted)
    opcheck(torch.ops.lut.conv2d_backward.default, _detached(saved))


@pytest.mark.parametrize("luts", [[truncated(5)], SEVERAL], ids=len)
@pytest.mark.parametrize("affine", [False, True])
def test_opcheck_of_the_matrix_product(luts: list[LUT], affine: bool) -> None:
    x = _bytes(3, 1, 5, 7).float().requires_grad_()
    y = _bytes(2, 7, 4, seed=1).float().requires_grad_()
    zeros = [torch.tensor(z * affine, dtype=torch.int32) for z in (3, -4)]
    mixture, candidates = _mixture(luts), Candidates(luts)
    operands = (x, y, *zeros, mixture, candidates.key, affine)
    opcheck(torch.ops.lut.matmul.default, operands)
    saved = (torch.randn(3, 2, 5, 4), *operands, [True, True, mixture is not None])
    opcheck(torch.ops.lut.matmul_backward.default, _detached(saved))


def test_gradients_of_gradients_are_refused() -> None:
    torch.manual_seed(0)
    candidates = Candidates([EXACT])
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    for result in (ApproxConv2d(4, 6, 3, candidates)(x), ApproxMatmul(candidates)(x, x)):
        (once,) = torch.autograd.grad(result.square().sum(), x, create_graph=True)
        with pytest.raises(InputError, match="must be taken once, not gradients of them"):
            once.square().sum().backward()


# Compilation


@inductor
def test_compiled_integer_functions_follow_their_lut() -> None:
    torch._dynamo.reset()
    convolution = torch.compile(
        lambda x, w, lut: approx_conv2d(x, w, lut, padding=1), fullgraph=True
    )
    product = torch.compile(approx_matmul, fullgraph=True)
    x, w = _bytes(2, 4, 6, 6), _bytes(6, 4, 3, 3)
    one, other = truncated(5), truncated(7)
    for lut in (one, other, one):
        assert torch.equal(convolution(x, w, lut), approx_conv2d(x, w, lut, padding=1))
        assert torch.equal(product(x, x, lut), approx_matmul(x, x, lut))


def _both_steps(
    luts: list[LUT], quantisation: Quantisation, training: bool, backend: str
) -> list[tuple[Tensor, Tensor]]:
    """What one step finds, eagerly and compiled."""
    torch._dynamo.reset()
    network, mixture = Network(luts, quantisation), _mixture(luts)
    network(_images(), mixture)
    network.train(training)
    twin = copy.deepcopy(network)
    compiled = torch.compile(twin, fullgraph=True, backend=backend)
    eager = _step(network, network, mixture)
    return list(zip(eager, _step(twin, compiled, mixture), strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("luts", [[truncated(5)], SEVERAL], ids=len)
@pytest.mark.parametrize("quantisation", QUANTISATIONS, ids=str)
def test_traced_step(quantisation: Quantisation, luts: list[LUT], training: bool) -> None:
    for expected, found in _both_steps(luts, quantisation, training, "aot_eager"):
        assert torch.equal(expected, found)


@inductor
@pytest.mark.parametrize("luts", [[truncated(5)], SEVERAL], ids=len)
def test_compiled_step(luts: list[LUT]) -> None:
    """Learned scales give a gradient to every part; BatchNorm is rounded otherwise when fused."""
    for expected, found in _both_steps(luts, Quantisation(learned=True), True, "inductor"):
        one, other = expected.double(), found.double()
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("observer", OBSERVERS)
def test_traced_observer(observer: str) -> None:
    torch._dynamo.reset()
    quantiser = ActivationQuantiser(-128, 127, observer=observer, symmetric=False)
    twin = copy.deepcopy(quantiser)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        assert torch.equal(compiled(_images()), quantiser(_images()))
    assert torch.equal(twin.scale, quantiser.scale)


@inductor
def test_compiled_observer_of_squared_errors() -> None:
    torch._dynamo.reset()
    quantiser = ActivationQuantiser(-128, 127, observer="mse")
    twin = copy.deepcopy(quantiser)
    torch.compile(twin, fullgraph=True)(_images())
    quantiser(_images())
    assert torch.allclose(twin.scale, quantiser.scale, rtol=1e-6)


@inductor
def test_compiled_inference() -> None:
    torch._dynamo.reset()
    layer = ApproxConv2d(4, 6, 3, Candidates([truncated(6)]), padding=1).eval()
    compiled = torch.compile(layer, fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(_images()), layer(_images()))


# Export


def _exported(tmp_path: Path, quantisation: Quantisation) -> tuple[nn.Module, Path]:
    network = Network([truncated(5)], quantisation)
    network(_images())
    network.eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(network, (_images(),), dynamic_shapes=({0: batch},), strict=False)
    assert torch.equal(program.module()(_images(7)), network(_images(7)))
    path = tmp_path / "network.pt2"
    torch.export.save(program, path)
    return network, path


@pytest.mark.parametrize("quantisation", QUANTISATIONS, ids=str)
def test_exported_and_loaded(tmp_path: Path, quantisation: Quantisation) -> None:
    network, path = _exported(tmp_path, quantisation)
    loaded = torch.export.load(path).module()
    assert torch.equal(loaded(_images(5)), network(_images(5)))


FRESH = """
import sys, torch, lut
from hw.errors import InputError
program = torch.export.load(sys.argv[1]).module()
x, y = torch.load(sys.argv[2])
try:
    program(x)
except InputError as error:
    print(error)
from tests.lut.tables import truncated
candidates = lut.Candidates([truncated(5)])
print(torch.equal(program(x), y))
"""


def test_another_process_makes_the_candidates_first(tmp_path: Path) -> None:
    network, path = _exported(tmp_path, Quantisation())
    with torch.no_grad():
        torch.save((_images(3), network(_images(3))), tmp_path / "batch.pt")
    command = [sys.executable, "-c", FRESH, str(path), str(tmp_path / "batch.pt")]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    message, right = found.stdout.splitlines()
    assert message.endswith(
        "must be made in this process first (lut.Candidates of the same tables), they are not known"
    )
    assert right == "True"


def test_a_table_that_lives_no_more() -> None:
    x, w = _bytes(2, 4, 6, 6), _bytes(6, 4, 3, 3)
    key = known_table(random_table(3, seed=77))
    with pytest.raises(InputError, match="must be alive in this process, it is not"):
        torch.ops.lut.accumulators(x, w, key, [1, 1], [0, 0], [1, 1], 1, 0, "")
    with pytest.raises(InputError, match="must be alive in this process, it is not"):
        torch.ops.lut.products(x, x, key)


# Several processes


def _small() -> nn.Module:
    """With ranges that no process moves."""
    torch.manual_seed(0)
    candidates = Candidates([truncated(5)])
    network = nn.Sequential(
        ApproxConv2d(4, 6, 3, candidates, bias=True),
        nn.ReLU(),
        nn.Flatten(),
        ApproxLinear(150, 3, candidates),
    ).eval()
    network[0].quantiser.set_range(-3.0, 3.0)  # type: ignore[union-attr, operator]
    return network


def _gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    network(x).square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return gradients  # type: ignore[return-value]


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    try:
        torch.save(_own_gradients(rank), Path(folder) / f"{rank}.pt")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _own_gradients(rank: int) -> list[Tensor]:
    """Of this process's half of the batch, averaged with the other's.

    The wrapper is gone when this returns: freed after the process group it can wait for ever.
    """
    network = DistributedDataParallel(_small())
    return _gradients(network, _images(8)[4 * rank : 4 * rank + 4])


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_find_the_gradients_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    expected = _gradients(_small(), _images(8))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for one, other in zip(expected, found, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
