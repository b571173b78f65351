"""The CUDA kernels compile for a GPU, also where there is none: launches are compiled instead.

What the interpreter forgives (types that change in a loop, shared memory that does not fit) is
found here. Arguments are specialised as triton's launcher does it.
"""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from cosearch import channels, norm_mixtures
from cosearch.exact_layers import convolved, fast_kernel
from lut import LUT, ApproxConv2d, Candidates, emulation
from lut.backends import (
    cuda_emulation,
    cuda_exact,
    cuda_factorised,
    cuda_mixture,
    cuda_table,
)
from lut.backends.cuda_operands import SMALLEST_SCALE

from .tables import random_table, truncated
from .test_cuda_backends import INTERPRETED

EXACT = LUT.exact(a_signed=True, b_signed=True)
SHARED_BYTES = 227 << 10
SHAPES = {
    "pointwise": (36, 36, 1, {}),
    "wide": (64, 1024, 1, {}),
    "pointwise_aligned": (128, 128, 1, {}),
    "dense": (36, 20, 3, {"padding": 1}),
    "dense_aligned": (64, 64, 3, {"padding": 1}),
    "depthwise": (36, 36, 5, {"padding": 4, "dilation": 2, "groups": 36}),
    "depthwise_aligned": (16, 16, 3, {"padding": 1, "groups": 16}),
    "strided": (36, 36, 5, {"padding": 4, "dilation": 2, "groups": 36, "stride": 2}),
    "grouped": (32, 32, 3, {"padding": 1, "groups": 2}),
}

# Modules that ask whether the kernels run on a tensor.
REFUSING = (
    channels, cuda_emulation, cuda_exact, cuda_factorised, cuda_mixture, cuda_table, norm_mixtures,
)  # fmt: skip

pytestmark = [
    pytest.mark.skipif(INTERPRETED, reason="this is the interpreter"),
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU compiles them"),
]


def _type(name: str, value: Any) -> Any:
    """As triton writes types in a signature."""
    if isinstance(value, tuple):
        return tuple(_type(name, one) for one in value)
    if isinstance(value, torch.Tensor):
        kinds = {"float32": "fp32", "bfloat16": "bf16", "uint8": "u8"}
        kind = str(value.dtype).removeprefix("torch.")
        return "*" + kinds.get(kind, kind.replace("uint", "u").replace("int", "i"))
    if isinstance(value, float):
        return "fp32"
    assert isinstance(value, int), (name, value)
    return "i32" if abs(value) < 1 << 31 else "i64"


def compiled(kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The kernel for these arguments, for a GPU of compute capability 9.0."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, (parameter, value) in enumerate(zip(kernel.params, arguments, strict=True)):
        whole = type(value) is int and not parameter.do_not_specialize
        if parameter.is_constexpr or (whole and value == 1):
            signature[parameter.name], constants[(index,)] = "constexpr", value
            continue
        signature[parameter.name] = _type(parameter.name, value)
        if isinstance(value, tuple):
            attributes |= {(index, i): [["tt.divisibility", 16]] for i in range(len(value))}
        elif isinstance(value, torch.Tensor) or (whole and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """PTX of the kernels launched, by name, the newest; nothing runs."""
    from triton.runtime.jit import JITFunction

    found: dict[str, str] = {}

    def compile_instead(
        self: Any, *arguments: Any, grid: object, warmup: bool, **options: Any
    ) -> None:
        binary = compiled(self, arguments, options)
        assert binary.metadata.shared <= SHARED_BYTES, (self.__name__, binary.metadata.shared)
        found[self.__name__] = binary.asm["ptx"]

    monkeypatch.setattr(JITFunction, "run", compile_instead)
    for module in REFUSING:
        monkeypatch.setattr(module, "cuda_refusal", lambda x: None)
    return found


def _launched(
    luts: list[LUT], shape: str, launches: dict[str, str], kind: torch.dtype = torch.bfloat16
) -> set[str]:
    """The kernels of a forward and a backward pass."""
    channels, outputs, kernel, settings = SHAPES[shape]
    candidates = Candidates(luts)
    layer = ApproxConv2d(channels, outputs, kernel, candidates, **settings).eval()  # type: ignore[arg-type]
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(2, channels, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    mixture = None if len(luts) == 1 else torch.ones(len(luts)).requires_grad_()
    with torch.autocast("cpu", kind, enabled=kind != torch.float32):
        result = layer(x.to(kind), mixture)
    result.sum().backward()
    assert emulation.is_fused(x, candidates.tables, mixture)
    return set(launches)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "luts",
    [[EXACT], [truncated(5)], [random_table(18)], [random_table(200)], [EXACT, truncated(7)]],
    ids=["plain", "planes", "many_planes", "rows", "mixture"],
)
def test_layers(luts: list[LUT], shape: str, launches: dict[str, str]) -> None:
    names = _launched(luts, shape, launches)
    assert "prepare_weights" in names
    assert ("through_quantiser" in names) == (shape != "pointwise")
    assert ("pointwise_weight_gradient" in names) == (shape == "pointwise")
    assert any(name.startswith(("convolve", "depthwise", "mixed", "row")) for name in names)
    mixed = len(luts) > 1
    assert ({"lay_out_channels", "depthwise_mixture"} < names) == (
        mixed and shape in ("depthwise", "depthwise_aligned", "strided")
    )
    assert ({"pointwise_plane_sums", "weigh_plane_sums"} < names) == (
        mixed and shape in ("pointwise", "pointwise_aligned")
    )


def test_operations_of_a_supernet(launches: dict[str, str]) -> None:
    """Convolutions in real numbers and weighted sums of batch norms, in bfloat16."""
    x = torch.randn(2, 16, 8, 8).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    for kernel in (1, 3, 5):
        groups = 1 if kernel == 1 else 16
        layer = torch.nn.Conv2d(16, 16, kernel, padding=kernel // 2, groups=groups, bias=False)
        kind = fast_kernel(layer, x)
        assert kind is not None
        convolved(layer, kind, x, relu=kernel == 3).sum().backward()
    norms = [torch.nn.BatchNorm2d(16, affine=False) for _ in range(2)]
    weights = torch.rand(3, requires_grad=True)
    normed = [(x, norm) for norm in norms]
    first = norm_mixtures.weighted_sum(weights, normed, [x])
    one = norm_mixtures.weighted_sum(weights[:2], normed, [], first)
    (one + norm_mixtures.normalised_relu(x, norms[0])).sum().backward()
    assert {"depthwise", "depthwise_operand_gradient", "depthwise_weight_gradient"} < set(launches)
    assert {"batch_statistics", "partial_moments", "partial_products"} < set(launches)
    assert {"weigh", "term_gradients"} < set(launches)
    assert {"pointwise", "pointwise_weight_gradient"} < set(launches)
    for name in ("depthwise", "depthwise_operand_gradient", "weigh", "term_gradients"):
        assert "ld.global.v4" in launches[name], name
    for name in ("depthwise", "depthwise_operand_gradient", "pointwise"):
        assert "st.global.v4" in launches[name], name


def test_operands_of_a_mixture_are_laid_out_in_vectors(launches: dict[str, str]) -> None:
    _launched([EXACT, truncated(7)], "depthwise_aligned", launches)
    stores = [line for line in launches["lay_out_channels"].splitlines() if "st.global" in line]
    assert sum("st.global.v4" in line for line in stores) >= 3
    # What is stored value by value are the zeros before the first channel.
    assert sum("st.global.v4" not in line for line in stores) <= 2


@pytest.mark.parametrize(("count", "width"), [(16, 2), (32, 4)])
def test_channels_parted_and_joined(count: int, width: int, launches: dict[str, str]) -> None:
    """In bfloat16, a quarter of the channels seen: accesses are as wide (`width`: in 4 bytes) as
    these lie side by side, without the shuffle and with it.
    """
    x = torch.randn(2, count, 8, 8).bfloat16().to(memory_format=torch.channels_last)
    parts = channels.split(x.requires_grad_(), count // 4)
    torch.autograd.grad(parts, [x], parts)
    plain = dict(launches)
    launches.clear()
    found, beside = (part.detach().requires_grad_() for part in parts)
    channels.join(found, beside, 4).sum().backward()
    for kernels in (plain, launches):
        assert set(kernels) == {"split_channels", "join_channels"}
        for name, ptx in kernels.items():
            assert f"ld.global.v{width}.b32" in ptx or "ld.global.v4.b32" in ptx, name
            assert f"st.global.v{width}.b32" in ptx or "st.global.v4.b32" in ptx, name


def test_channels_that_are_not_aligned(launches: dict[str, str]) -> None:
    x = torch.randn(2, 12, 8, 8).to(memory_format=torch.channels_last)
    channels.join(*channels.split(x, 3), 4)
    assert set(launches) == {"split_channels", "join_channels"}


def test_accesses_are_vectors(launches: dict[str, str]) -> None:
    """16 bytes at a time where channels allow: what decides the time of these kernels."""
    _launched([EXACT], "dense_aligned", launches)
    _launched([EXACT], "pointwise_aligned", launches)
    _launched([truncated(5)], "dense_aligned", launches)
    _launched([random_table(200)], "dense_aligned", launches)
    for name in ("prepare_weights", "expand_activations", "through_quantiser", "row_convolution"):
        assert "ld.global.v4.b32" in launches[name], name
    for name in ("convolve_planes", "convolve_pointwise"):
        assert "cp.async.cg" in launches[name], name
        assert "wgmma" in launches[name], name


def test_dense_mixtures_use_units_of_integers(launches: dict[str, str]) -> None:
    _launched([EXACT, truncated(7)], "dense_aligned", launches)
    convolve, prepare = launches["convolve_planes"], launches["prepare_weights"]
    assert "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8" in convolve
    assert "cp.async.cg" in convolve and "st.global.v4.b32" in convolve
    assert "st.global.v4.b32" in prepare


@pytest.mark.parametrize("shape", ["dense", "dense_aligned", "grouped"])
def test_dense_mixtures_in_float32(shape: str, launches: dict[str, str]) -> None:
    _launched([EXACT, truncated(7)], shape, launches, torch.float32)
    assert "wgmma.mma_async" in launches["convolve_planes"] or shape != "dense_aligned"
    assert ".s32.s8.s8" not in launches["convolve_planes"]


def test_observers(launches: dict[str, str]) -> None:
    values = [[torch.zeros(()) for _ in range(3)] for _ in range(3)]
    batches = [torch.zeros((), dtype=torch.int64) for _ in range(3)]
    cuda_emulation.observed_scales(
        torch.randn(4, 64, 8, 8).bfloat16(), torch.zeros(2, dtype=torch.int32), *values[:2],
        batches, values[2], 0.1, 127,
    )  # fmt: skip
    assert "ld.global.v4.b32" in launches["observe_largest"]
    assert SMALLEST_SCALE < 1.0
