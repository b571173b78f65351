"""Emulated convolutions equal the naive sum over the table, bit for bit, on every backend."""

import random
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from hw.errors import InputError
from lut import LUT, approx_conv2d, approx_linear
from lut.backends import BACKENDS as ALL_BACKENDS
from lut.backends.int8 import byte_planes

from .tables import random_table, truncated

BACKENDS = [name for name in ALL_BACKENDS if name in ("int8", "float32", "rows", "table")]
SHAPES = {
    "plain": {"x": (2, 3, 6, 5), "w": (4, 3, 3, 3)},
    "strided": {"x": (1, 2, 7, 7), "w": (2, 2, 3, 3), "stride": 2, "padding": 1},
    "dilated": {"x": (1, 2, 9, 8), "w": (3, 2, 3, 3), "dilation": 2, "padding": 2},
    "depthwise": {"x": (2, 4, 5, 5), "w": (4, 1, 5, 5), "groups": 4, "padding": 2},
    "grouped": {"x": (1, 6, 4, 4), "w": (4, 3, 1, 1), "groups": 2},
    "rectangular": {"x": (1, 2, 6, 7), "w": (2, 2, 1, 3), "padding": (0, 1), "stride": (2, 1)},
}
LUTS = [
    LUT.exact(a_signed=True, b_signed=True),
    LUT.exact(b_signed=True),
    truncated(6),
    truncated(7, signed=False, rows=2),
    random_table(3),
    random_table(20),
]


def naive(x: Tensor, w: Tensor, lut: LUT, zero_point: int, **settings: object) -> np.ndarray:
    """The definition: one table entry per multiplication, in Python loops."""
    stride, padding, dilation = (_pair(settings.get(k, d)) for k, d in _DEFAULTS)
    groups = settings.get("groups", 1)
    assert isinstance(groups, int)
    images, kernels = x.numpy().astype(int), w.numpy().astype(int)
    border = [(0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2]
    images = np.pad(images, border, constant_values=zero_point)
    batch, _, height, width = images.shape
    outputs, per_group, kernel_height, kernel_width = kernels.shape
    rows = (height - dilation[0] * (kernel_height - 1) - 1) // stride[0] + 1
    columns = (width - dilation[1] * (kernel_width - 1) - 1) // stride[1] + 1
    result = np.zeros((batch, outputs, rows, columns), int)
    for n, o, i, j in product(range(batch), range(outputs), range(rows), range(columns)):
        group = o // (outputs // groups)
        for c, p, q in product(range(per_group), range(kernel_height), range(kernel_width)):
            y, z = i * stride[0] + p * dilation[0], j * stride[1] + q * dilation[1]
            a = images[n, group * per_group + c, y, z] & 255
            result[n, o, i, j] += lut.table[a, kernels[o, c, p, q] & 255]
    return result


_DEFAULTS = (("stride", 1), ("padding", 0), ("dilation", 1))


def _pair(value: object) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value  # type: ignore[return-value]


def _operands(shape: dict[str, object], lut: LUT, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, shape["x"], generator=generator).to(torch.uint8)  # type: ignore[arg-type]
    w = torch.randint(0, 256, shape["w"], generator=generator).to(torch.uint8)  # type: ignore[arg-type]
    return x.view(torch.int8) if lut.a_signed else x, w.view(torch.int8) if lut.b_signed else w


@pytest.mark.parametrize("backend", [None, *BACKENDS])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "lut", LUTS, ids=lambda lut: f"{lut.name}_{lut.a_signed:d}{lut.b_signed:d}"
)
def test_equals_the_naive_sum(lut: LUT, shape: str, backend: str | None) -> None:
    settings = {k: v for k, v in SHAPES[shape].items() if k not in "xw"}
    x, w = _operands(SHAPES[shape], lut)
    zero_point = 3
    result = approx_conv2d(x, w, lut, backend=backend, x_zero_point=zero_point, **settings)  # type: ignore[arg-type]
    assert result.dtype == torch.int32
    assert np.array_equal(result.numpy(), naive(x, w, lut, zero_point, **settings))


def _by_chance(seed: int) -> tuple[dict[str, object], dict[str, object]]:
    """Shapes of operands, and settings of a convolution: also those that libraries get wrong."""
    chance = random.Random(seed)
    kernel, stride, dilation, padding, size = (
        tuple(chance.choices(range(*limits), k=2))
        for limits in ((1, 6), (1, 4), (1, 4), (0, 7), (1, 15))
    )
    extents = (d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    if any(s + 2 * p < e for s, p, e in zip(size, padding, extents, strict=True)):
        return _by_chance(seed + 1000)
    groups, channels, outputs = map(chance.choice, ((1, 2), (1, 4, 17), (1, 2, 8)))
    x, w = (chance.choice((1, 3)), groups * channels, *size), (groups * outputs, channels, *kernel)
    settings: dict[str, object] = {"stride": stride, "padding": padding, "dilation": dilation}
    return {"x": x, "w": w}, settings | {"groups": groups, "x_zero_point": chance.choice((0, 3))}


@pytest.mark.parametrize("backend", [None, *(name for name in BACKENDS if name != "table")])
@pytest.mark.parametrize(
    "lut", [truncated(4), LUT.exact(a_signed=True, b_signed=True), random_table(2)],
    ids=lambda lut: lut.name,
)  # fmt: skip
def test_geometries_by_chance(lut: LUT, backend: str | None) -> None:
    for seed in range(100):
        shape, settings = _by_chance(seed)
        x, w = _operands(shape, lut, seed)
        expected = approx_conv2d(x, w, lut, backend="table", **settings)  # type: ignore[arg-type]
        found = approx_conv2d(x, w, lut, backend=backend, **settings)  # type: ignore[arg-type]
        assert torch.equal(found, expected), (shape, settings)


@pytest.mark.parametrize("backend", [*BACKENDS])
def test_every_operand_pair(backend: str) -> None:
    patterns = torch.arange(256, dtype=torch.uint8).view(torch.int8)
    for lut in (truncated(7), random_table(4)):
        products = approx_linear(patterns[:, None], patterns[:, None], lut, backend=backend)
        assert np.array_equal(products.numpy(), lut.table)


def test_all_maximum_operands_where_fp32_stops_being_exact() -> None:
    lut = LUT.exact()
    channels = 576
    x = torch.full((1, channels, 3, 3), 255, dtype=torch.uint8)
    w = torch.full((2, channels, 3, 3), 255, dtype=torch.uint8)
    expected = channels * 9 * 255 * 255
    assert expected > 1 << 24
    assert approx_conv2d(x, w, lut, backend="float32").eq(expected).all()
    grouped = approx_conv2d(x, w[:, :288], lut, groups=2, backend="float32")
    assert grouped.eq(expected // 2).all()


def test_table_of_high_rank_takes_the_table_backend() -> None:
    lut = random_table(70, seed=3)
    x, w = _operands(SHAPES["plain"], lut)
    assert np.array_equal(approx_conv2d(x, w, lut).numpy(), naive(x, w, lut, 0))
    with pytest.raises(InputError, match="backend 'float32' must be of rank 1 to 64, not 70"):
        approx_conv2d(x, w, lut, backend="float32")


def test_wrong_operands() -> None:
    lut = truncated(4)
    x, w = _operands(SHAPES["plain"], lut)
    with pytest.raises(InputError, match="x must be int8 or uint8, not torch.float32"):
        approx_conv2d(x.float(), w, lut)
    with pytest.raises(InputError, match="w must have 4 dimensions, not 2"):
        approx_conv2d(x, w[0, 0], lut)
    with pytest.raises(InputError, match="x and w must fit 2 groups"):
        approx_conv2d(x, w, lut, groups=2)
    with pytest.raises(InputError, match="did you mean 'table'"):
        approx_conv2d(x, w, lut, backend="tabel")


def test_precision_settings_of_the_user_change_nothing() -> None:
    lut = random_table(2, magnitude=30)
    x, w = _operands(SHAPES["plain"], lut)
    expected = naive(x, w, lut, 0)
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]
    try:
        assert np.array_equal(approx_conv2d(x, w, lut, backend="float32").numpy(), expected)
        assert torch.backends.mkldnn.conv.fp32_precision == "bf16"  # type: ignore[attr-defined]
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.conv.fp32_precision = "none"  # type: ignore[attr-defined]


@pytest.mark.parametrize("magnitude", [1, 12, 150, 3000])
def test_byte_planes_are_the_table(magnitude: int) -> None:
    lut = random_table(2, magnitude=magnitude)
    planes = byte_planes(lut)
    if planes is not None:
        u, v = planes.u.numpy().astype(int) - 128, planes.v.numpy().astype(int)
        assert np.array_equal(u @ v.T, lut.table)
    assert planes is not None or magnitude == 3000


def test_narrow_operands() -> None:
    table = np.outer(np.arange(16), np.arange(-8, 8)[np.r_[8:16, 0:8]])
    lut = LUT(table, b_signed=True, name="4x4")
    x = torch.randint(0, 16, (1, 2, 5, 5)).to(torch.uint8)
    w = torch.randint(-8, 8, (3, 2, 3, 3)).to(torch.int8)
    exact = torch.nn.functional.conv2d(x.double(), w.double())
    for backend in [None, *BACKENDS]:
        assert torch.equal(approx_conv2d(x, w, lut, backend=backend).double(), exact)
