"""Convolutions whose products come from a table, bit for bit, on integers.

``accumulators[n, o, y, x] = sum over c, i, j of table[x[n, c, y', x'], w[o, c, i, j]]``. Three
backends compute the same integers; :func:`approx_conv2d` picks the fastest that is proven exact for
the operands.

``factorised``: with ``table = u @ v.T`` of rank R, the sum is an ordinary convolution over C·R
channels (fp32, whose integers are exact below 2**24 in any order of summation); input channels are
taken in blocks small enough for that bound and the blocks are added as int32. ``table``: looks
every product up. Any table, much slower.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hw.errors import InputError, unknown_name

from .factors import Factors
from .table import LUT

__all__ = [
    "BACKENDS",
    "ConvGeometry",
    "approx_conv2d",
    "approx_linear",
    "factor_planes",
    "weight_planes",
]

FP32_EXACT = 1 << 24
FACTORISED_RANK_LIMIT = 32
TABLE_BLOCK_PRODUCTS = 1 << 24


@dataclass(frozen=True)
class ConvGeometry:
    """Stride, padding, dilation (each: height, width) and groups of a 2-D convolution."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(
        cls,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> "ConvGeometry":
        return cls(_pair(stride), _pair(padding), _pair(dilation), groups)


def approx_conv2d(
    x: Tensor,
    w: Tensor,
    lut: LUT,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    x_zero_point: int = 0,
    backend: str | None = None,
) -> Tensor:
    """Integer convolution with the products of `lut`: int32 (N, O, H', W').

    x: int8 or uint8 (N, C, H, W); w: int8 or uint8 (O, C / groups, kH, kW). Only their bit patterns
    index the table. Padding contributes ``table[x_zero_point, w]``. No correction for a zero point
    is made. Raises InputError for other types, shapes that do not fit, or an unknown backend.
    """
    geometry = ConvGeometry.of(stride, padding, dilation, groups)
    _check_operands(x, w, lut, geometry)
    height, width = geometry.padding
    padded = functional.pad(x, (width, width, height, height), value=x_zero_point)
    unpadded = ConvGeometry(geometry.stride, (0, 0), geometry.dilation, groups)
    return _backend(backend, lut, w)(padded, w, lut, unpadded)


def approx_linear(x: Tensor, w: Tensor, lut: LUT, *, backend: str | None = None) -> Tensor:
    """Matrix product with the products of `lut`: x (N, C), w (O, C), result int32 (N, O)."""
    return approx_conv2d(x[:, :, None, None], w[:, :, None, None], lut, backend=backend)[:, :, 0, 0]


def factor_planes(x: Tensor, u: Tensor) -> Tensor:
    """``u[x]`` as channels: int indices (N, C, H, W), u (rows, R) → u's type (N, C·R, H, W),
    channels_last.
    """
    batch, channels, height, width = x.shape
    planes = functional.embedding(x.permute(0, 2, 3, 1), u)
    return planes.reshape(batch, height, width, channels * u.shape[1]).permute(0, 3, 1, 2)


def weight_planes(w: Tensor, v: Tensor) -> Tensor:
    """``v[w]`` as channels: indices (O, C, kH, kW), v (columns, R) → v's type (O, C·R, kH, kW)."""
    outputs, channels, height, width = w.shape
    planes = functional.embedding(w, v).permute(0, 1, 4, 2, 3)
    return planes.reshape(outputs, channels * v.shape[1], height, width)


def _factorised(x: Tensor, w: Tensor, lut: LUT, geometry: ConvGeometry) -> Tensor:
    factors = lut.factors
    u = torch.from_numpy(factors.u).to(x.device, torch.float32)
    v = torch.from_numpy(factors.v).to(x.device, torch.float32)
    planes = factor_planes(_patterns(x, lut.a_width), u)
    kernels = weight_planes(_patterns(w, lut.b_width), v)
    settings = (None, geometry.stride, 0, geometry.dilation, geometry.groups)
    with exact_convolutions():
        parts = [
            functional.conv2d(part, kernel, *settings).to(torch.int32)
            for part, kernel in _exact_blocks(planes, kernels, factors, geometry.groups, w)
        ]
    return torch.stack(parts).sum(0, dtype=torch.int32) if len(parts) > 1 else parts[0]


def _exact_blocks(
    planes: Tensor, kernels: Tensor, factors: Factors, groups: int, w: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Blocks of channels whose sums stay below 2**24: |sum| <= channels · taps · product_bound."""
    channels, taps, rank = w.shape[1], w.shape[2] * w.shape[3], max(1, factors.rank)
    size = min(channels, (FP32_EXACT - 1) // max(1, taps * factors.product_bound))
    assert size >= 1, "the backend is chosen only where one channel's sum is exact"
    if size == channels:
        return [(planes, kernels)]
    batch, _, height, width = planes.shape
    grouped = planes.reshape(batch, groups, channels * rank, height, width)
    return [
        (
            grouped[:, :, low * rank : (low + size) * rank].reshape(batch, -1, height, width),
            kernels[:, low * rank : (low + size) * rank],
        )
        for low in range(0, channels, size)
    ]


def _table(x: Tensor, w: Tensor, lut: LUT, geometry: ConvGeometry) -> Tensor:
    """Looks up one product per multiplication, a block of images at a time."""
    table = torch.from_numpy(lut.table.copy()).to(x.device).flatten()
    patterns, kernels = _patterns(x, lut.a_width), _patterns(w, lut.b_width)
    per_image = w.numel() * x.shape[2] * x.shape[3]
    size = max(1, TABLE_BLOCK_PRODUCTS // max(1, per_image))
    blocks = [_table_block(block, kernels, table, lut, geometry) for block in patterns.split(size)]
    return torch.cat(blocks)


def _table_block(x: Tensor, w: Tensor, table: Tensor, lut: LUT, geometry: ConvGeometry) -> Tensor:
    columns = functional.unfold(
        x.to(torch.float32), w.shape[2:], geometry.dilation, 0, geometry.stride
    ).to(torch.int64)
    batch, _, positions = columns.shape
    groups = geometry.groups
    rows = columns.view(batch, groups, 1, -1, positions) << lut.b_width
    index = rows + w.reshape(groups, -1, w[0].numel(), 1)
    sums = table[index].sum(3, dtype=torch.int32)
    return sums.view(batch, w.shape[0], *_output_size(x, w, geometry))


BACKENDS: dict[str, Callable[[Tensor, Tensor, LUT, ConvGeometry], Tensor]] = {
    "factorised": _factorised,
    "table": _table,
}


def _backend(
    name: str | None, lut: LUT, w: Tensor
) -> Callable[[Tensor, Tensor, LUT, ConvGeometry], Tensor]:
    exact = factorised_is_exact(lut, taps=w.shape[2] * w.shape[3])
    if name is None:
        name = "factorised" if exact else "table"
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    if name == "factorised" and not exact:
        raise InputError(
            f"backend 'factorised' must be exact, not of rank {lut.rank} for {lut.name!r}"
        )
    return BACKENDS[name]


def factorised_is_exact(lut: LUT, taps: int) -> bool:
    """Whether the rank is low and the sum over the `taps` of one channel is exact in fp32."""
    return lut.rank <= FACTORISED_RANK_LIMIT and taps * lut.factors.product_bound < FP32_EXACT


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions as plain sums of fp32 products: no TF32 and no Winograd transforms on CUDA."""
    with torch.backends.cudnn.flags(enabled=False):
        yield


def _patterns(operand: Tensor, width: int) -> Tensor:
    """Bit patterns as int64, the low `width` bits."""
    return operand.to(torch.int64) & ((1 << width) - 1)


def _check_operands(x: Tensor, w: Tensor, lut: LUT, geometry: ConvGeometry) -> None:
    for name, operand in (("x", x), ("w", w)):
        if operand.dtype not in (torch.int8, torch.uint8):
            raise InputError(f"{name} must be int8 or uint8, not {operand.dtype}")
        if operand.ndim != 4:
            raise InputError(f"{name} must have 4 dimensions, not {operand.ndim}")
    groups = geometry.groups
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise InputError(
            f"x and w must fit {groups} groups, "
            f"not have shapes {tuple(x.shape)} and {tuple(w.shape)}"
        )


def _output_size(x: Tensor, w: Tensor, geometry: ConvGeometry) -> tuple[int, int]:
    extents = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, w.shape[2:], strict=True)]
    height, width = (
        (size - extent) // stride + 1
        for size, extent, stride in zip(x.shape[2:], extents, geometry.stride, strict=True)
    )
    return height, width


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
