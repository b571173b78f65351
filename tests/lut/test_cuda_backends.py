"""The CUDA backends equal the naive sum over the table, bit for bit.

They run on a GPU where there is one, otherwise through Triton's interpreter on the CPU, in a
process of its own: triton reads TRITON_INTERPRET when it is first imported.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hw.errors import InputError
from lut import LUT, approx_conv2d, approx_linear
from lut.backends import BACKENDS, cuda_convolution
from lut.backends.cuda_factorised import packed_planes
from lut.backends.cuda_operands import biased_columns

from .tables import random_table, truncated
from .test_functional import LUTS, SHAPES, _operands, naive

CUDA = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if CUDA and not INTERPRETED else "cpu"
NAMES = [name for name in BACKENDS if name.startswith("cuda")]
TESTS = Path(__file__).parents[1]
INTERPRETED_TESTS = [
    "lut/test_cuda_backends", "lut/test_cuda_layers", "lut/test_cuda_mixture",
    "lut/test_cuda_exact", "cosearch/test_merged_cells", "cosearch/test_channels",
]  # fmt: skip
runs_kernels = pytest.mark.skipif(
    not (CUDA or INTERPRETED), reason="no GPU; test_through_the_interpreter runs this one"
)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("name", INTERPRETED_TESTS)
def test_through_the_interpreter(name: str) -> None:
    arguments = ["-q", "-x", "-p", "no:cacheprovider", str(TESTS / f"{name}.py")]
    if find_spec("xdist") is not None:
        arguments += ["-n", "0"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def _approximate(x: Tensor, w: Tensor, lut: LUT, backend: str, **settings: object) -> np.ndarray:
    result = approx_conv2d(x.to(DEVICE), w.to(DEVICE), lut, backend=backend, **settings)  # type: ignore[arg-type]
    assert result.dtype == torch.int32
    assert result.device.type == DEVICE
    return result.cpu().numpy()


@runs_kernels
@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "lut",
    [LUTS[1], LUTS[2], LUTS[5]],
    ids=lambda lut: f"{lut.name}_{lut.a_signed:d}{lut.b_signed:d}",
)
def test_equals_the_naive_sum(lut: LUT, shape: str, backend: str) -> None:
    settings = {k: v for k, v in SHAPES[shape].items() if k not in "xw"}
    x, w = _operands(SHAPES[shape], lut)
    result = _approximate(x, w, lut, backend, x_zero_point=3, **settings)
    assert np.array_equal(result, naive(x, w, lut, 3, **settings))


@runs_kernels
@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("channels", [16, 20, 36])
def test_channels_side_by_side(channels: int, backend: str) -> None:
    lut = random_table(3)
    x, w = _operands({"x": (2, channels, 5, 6), "w": (17, channels, 3, 3)}, lut)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    result = _approximate(channels_last, w, lut, backend, padding=1)
    assert np.array_equal(result, naive(x, w, lut, 0, padding=1))


@runs_kernels
@pytest.mark.parametrize("backend", NAMES)
def test_few_images_at_a_time(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lut = random_table(3)
    x, w = _operands({"x": (5, 4, 5, 5), "w": (3, 4, 3, 3)}, lut)
    monkeypatch.setattr(cuda_convolution, "WORKSPACE_BYTES", 2 * 7 * 7 * 64)
    result = _approximate(x, w, lut, backend, padding=1)
    assert np.array_equal(result, naive(x, w, lut, 0, padding=1))


@runs_kernels
@pytest.mark.parametrize("table", [random_table(200), random_table(200, magnitude=99)])
def test_few_rows_at_a_time(table: LUT, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = _operands({"x": (2, 9, 5, 5), "w": (3, 9, 3, 3)}, table)
    monkeypatch.setattr(cuda_convolution, "ROW_BYTES", 8 * 8 * 256 * 4 * 5)
    result = _approximate(x, w, table, "cuda_table", padding=1)
    assert np.array_equal(result, naive(x, w, table, 0, padding=1))


@runs_kernels
@pytest.mark.parametrize("backend", ["cuda_factorised", "cuda_table"])
def test_depthwise_with_several_outputs_of_a_channel(backend: str) -> None:
    lut = truncated(5)
    x, w = _operands({"x": (1, 5, 6, 5), "w": (10, 1, 3, 3)}, lut)
    result = _approximate(x, w, lut, backend, groups=5, dilation=2, padding=2)
    assert np.array_equal(result, naive(x, w, lut, 0, groups=5, dilation=2, padding=2))


@runs_kernels
@pytest.mark.parametrize("backend", NAMES)
def test_every_operand_pair(backend: str) -> None:
    patterns = torch.arange(256, dtype=torch.uint8).view(torch.int8).to(DEVICE)[:, None]
    for lut in (truncated(7), random_table(4)):
        products = approx_linear(patterns, patterns, lut, backend=backend)
        assert np.array_equal(products.cpu().numpy(), lut.table)


@runs_kernels
@pytest.mark.parametrize("backend", NAMES)
def test_narrow_operands(backend: str) -> None:
    table = np.outer(np.arange(16), np.arange(-8, 8)[np.r_[8:16, 0:8]])
    lut = LUT(table, b_signed=True, name="4x4")
    x, w = _operands({"x": (1, 2, 5, 5), "w": (3, 2, 3, 3)}, LUT.exact(b_signed=True))
    x, w = x % 16, w % 16 - 8
    exact = torch.nn.functional.conv2d(x.double(), w.double())
    assert np.array_equal(_approximate(x, w, lut, backend), exact.numpy())


@runs_kernels
@pytest.mark.parametrize("backend", NAMES)
def test_all_maximum_operands(backend: str) -> None:
    lut = LUT.exact()
    channels = 32 if backend == "cuda_table" else 576
    x = torch.full((1, channels, 3, 3), 255, dtype=torch.uint8)
    w = torch.full((2, channels, 3, 3), 255, dtype=torch.uint8)
    assert (_approximate(x, w, lut, backend) == channels * 9 * 255 * 255).all()


@pytest.mark.skipif(CUDA or INTERPRETED, reason="the kernels run here")
@pytest.mark.parametrize("backend", NAMES)
def test_refused_without_a_gpu(backend: str) -> None:
    x, w = _operands(SHAPES["plain"], LUTS[0])
    with pytest.raises(InputError, match=f"{backend!r} must be on a CUDA device, not on cpu"):
        approx_conv2d(x, w, LUTS[0], backend=backend)


@runs_kernels
def test_tables_of_high_rank_are_refused_where_they_need_planes() -> None:
    lut = random_table(70, seed=3)
    x, w = _operands(SHAPES["plain"], lut)
    with pytest.raises(InputError, match="of at most 96 planes of 8 bits, not of rank 70"):
        _approximate(x, w, lut, "cuda_factorised")


@pytest.mark.parametrize("rank", [1, 2, 3, 5, 8, 9, 18])
def test_packed_planes_are_the_table(rank: int) -> None:
    lut = random_table(rank)
    sides = packed_planes(lut, torch.device("cpu"))
    packed, v = sides.u, sides.v
    planes = packed.words.view(torch.int8).view(-1, 256, 4).permute(1, 0, 2).reshape(256, -1)
    u = planes[:, : packed.count].numpy().astype(int)
    assert np.array_equal(u @ v.numpy().astype(int), lut.table)
    assert not planes[:, packed.count :].any()
    words = sides.v_words.numpy().view(np.int8).reshape(-1, 256, 4).transpose(0, 2, 1)
    assert np.array_equal(words.reshape(-1, 256), v[: len(v) // 4 * 4].numpy())


def test_the_exact_product_needs_no_look_up() -> None:
    assert packed_planes(LUT.exact(a_signed=True, b_signed=True), torch.device("cpu")).u.plain
    assert not packed_planes(truncated(5), torch.device("cpu")).u.plain


@pytest.mark.parametrize(
    ("table", "pairs"),
    [
        (LUT.exact(a_signed=True, b_signed=True), True),
        (LUT.exact(), True),
        (LUT.exact(b_signed=True), True),
        (random_table(200, magnitude=99), False),
    ],
)
def test_biased_columns(table: LUT, pairs: bool) -> None:
    columns = biased_columns(table, torch.device("cpu"))
    assert columns.pairs == pairs
    products = columns.table.numpy()
    products = products.view(np.uint16) if pairs else products
    assert np.array_equal(products[:-1].T.astype(int) - columns.bias, table.table)
    assert (products[-1] == columns.bias).all()


@runs_kernels
def test_depthwise_look_ups_of_wide_products() -> None:
    lut = random_table(200, magnitude=99)
    x, w = _operands({"x": (1, 3, 5, 5), "w": (3, 1, 3, 3)}, lut)
    result = _approximate(x, w, lut, "cuda_table", groups=3)
    assert np.array_equal(result, naive(x, w, lut, 0, groups=3))


@runs_kernels
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_look_ups_of_four_positions(
    kernel: int, stride: int, dilation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = _operands({"x": (2, 3, 6, 9), "w": (6, 1, kernel, kernel)}, random_table(3))
    padding = dilation * (kernel - 1) // 2 + kernel // 5
    settings = {"groups": 3, "stride": stride, "dilation": dilation, "padding": padding}
    found = _approximate(x, w, random_table(3), "cuda_table", x_zero_point=3, **settings)
    monkeypatch.setattr(cuda_convolution, "_has_quads", lambda layout: False)
    one_by_one = _approximate(x, w, random_table(3), "cuda_table", x_zero_point=3, **settings)
    assert np.array_equal(found, one_by_one)
    assert np.array_equal(found, naive(x, w, random_table(3), 3, **settings))
