"""Factorised, in the processor's int8 units: planes of 8-bit integers, int32 sums, through oneDNN.

oneDNN multiplies uint8 by int8. Activation planes are stored with a zero point of 128, which it
takes out exactly. Factors beyond 8 bits are divided among several planes. Some processors' int8
sums saturate at 16 bits: whether this one's are exact is tried once, with the largest operands,
before the backend is used. Results pass through fp32, so blocks of channels keep the sums below
2**24.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..factors import Factors
from ..geometry import ConvGeometry
from ..planes import FP32_EXACT
from ..table import LUT
from ..threads import in_threads
from .backend import Problem, is_installed

__all__ = ["Int8", "int8_units_are_exact"]

ZERO_POINT = 128
LIMIT = 127
RANK_LIMIT = 64
PLANE_LIMIT = 96
PACKED_BYTES, PACKED_COUNT = 1 << 20, 64
BYTES_A_THREAD, VECTOR_BYTES_A_THREAD = 1 << 17, 1 << 23
"""Of planes: what a thread is worth where they are looked up in words, and in vectors."""


@dataclass(frozen=True, eq=False)
class BytePlanes:
    """``(u - 128) @ v.T`` is the table: u uint8 (256, planes), v int8 (256, planes)."""

    u: Tensor
    v: Tensor

    @cached_property
    def plain(self) -> bool:
        """Whether the only plane is the operand itself."""
        own = torch.arange(256, dtype=torch.uint8) ^ ZERO_POINT
        return self.u.shape == (256, 1) and torch.equal(self.u[:, 0], own)


class Int8:
    """CPU with exact int8 sums; tables that at most `PLANE_LIMIT` planes of 8 bits make up."""

    def refusal(self, problem: Problem) -> str | None:
        if problem.x.device.type != "cpu":
            return f"on a CPU, not on {problem.x.device.type}"
        if not is_installed("numba"):
            return "where numba is installed, not here"
        if not int8_units_are_exact():
            return "on a processor with exact int8 sums, not on this one"
        if problem.lut.rank > RANK_LIMIT or byte_planes(problem.lut) is None:
            return f"of at most {PLANE_LIMIT} planes of 8 bits, not of rank {problem.lut.rank}"
        if problem.taps * _largest_product(problem.lut) >= FP32_EXACT:
            return f"exact for sums over {problem.taps} taps, not inexact"
        return None

    def cost(self, problem: Problem) -> float:
        planes = byte_planes(problem.lut)
        assert planes is not None
        return 0.1 * planes.u.shape[1] if problem.geometry.groups == 1 else 1.0 * planes.u.shape[1]

    def accumulators(self, problem: Problem) -> Tensor:
        problem = problem.padded()  # oneDNN's own is wrong for some geometries
        planes = byte_planes(problem.lut)
        assert planes is not None
        x = _activation_planes(problem, planes)
        parts = [
            _convolution(part, kernel, problem.geometry)
            for part, kernel in _exact_blocks(problem, x, planes)
        ]
        return torch.stack(parts).sum(0, dtype=torch.int32) if len(parts) > 1 else parts[0]


@lru_cache(maxsize=256)
def byte_planes(lut: LUT) -> BytePlanes | None:
    """The table in planes of 8 bits, or None where that takes more than `PLANE_LIMIT`."""
    factors = _within_bytes(lut.factors)
    if factors.rank > PLANE_LIMIT:
        return None
    assert np.array_equal(factors.table, lut.table)
    u = torch.from_numpy((factors.u + ZERO_POINT).astype(np.uint8))
    return BytePlanes(u, torch.from_numpy(factors.v.astype(np.int8)))


@lru_cache(maxsize=256)
def _largest_products(lut: LUT) -> NDArray[np.int64]:
    """The largest magnitude in each column of the table, (columns,): looked up at every call."""
    largest: NDArray[np.int64] = np.abs(lut.table.astype(np.int64)).max(axis=0)
    return largest


@lru_cache(maxsize=256)
def _largest_product(lut: LUT) -> int:
    return int(_largest_products(lut).max())


def _within_bytes(factors: Factors) -> Factors:
    """The same table with both in -128 … 127, in more columns where needed."""
    columns = [
        (part_u, part_v)
        for u, v in zip(factors.u.T, factors.v.T, strict=True)
        for part_u, part_v in _bytes_of(*_towards_bytes(u, v))
    ]
    if not columns:
        return Factors(np.zeros((len(factors.u), 1), int), np.zeros((len(factors.v), 1), int))
    us, vs = zip(*columns, strict=True)
    return Factors(np.stack(us, axis=1), np.stack(vs, axis=1))


def _towards_bytes(u: NDArray[np.int64], v: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """u·vᵀ with powers of two moved from the larger factor, and signs that fit."""
    while not _fits(v) and not (v % 2).any() and _fits(2 * u):
        u, v = 2 * u, v // 2
    while not _fits(u) and not (u % 2).any() and _fits(2 * v):
        u, v = u // 2, 2 * v
    return (-u, -v) if not (_fits(u) and _fits(v)) and _fits(-u) and _fits(-v) else (u, v)


def _fits(values: NDArray[np.int64]) -> bool:
    return bool(values.min() >= -ZERO_POINT and values.max() <= LIMIT)


def _bytes_of(
    u: NDArray[np.int64], v: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """u·vᵀ as a sum over parts of u and of v that fit."""
    return [
        (part_u, part_v)
        for part_u in _parts(u, -ZERO_POINT, LIMIT)
        for part_v in _parts(v, -ZERO_POINT, LIMIT)
    ]


def _parts(values: NDArray[np.int64], low: int, high: int) -> list[NDArray[np.int64]]:
    parts = []
    while values.any():
        parts.append(np.clip(values, low, high))
        values = values - parts[-1]
        if len(parts) > PLANE_LIMIT:
            break
    return parts


def _activation_planes(problem: Problem, planes: BytePlanes) -> Tensor:
    """uint8 (N, C·planes, H, W), channels_last. Of each group: words of four planes for each
    channel, where `_words`, then the planes left over, one after the other.
    """
    x, count = problem.x, planes.u.shape[1]
    if planes.plain:
        return torch.bitwise_xor(x, ZERO_POINT).contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    groups = problem.geometry.groups
    rows = x.permute(0, 2, 3, 1).contiguous().view(-1, channels // groups).numpy()
    result = torch.empty((len(rows), channels // groups * count), dtype=torch.uint8).numpy()
    wide = _words(channels // groups, count)
    words, rest = _tables(planes, wide)
    by_word = result.view(np.int32) if wide else np.empty((len(rows), 0), np.int32)
    kernel, vectors = _kernel(), _has_vectors()

    def work(low: int, high: int) -> None:
        if vectors:
            kernel.expand_planes_in_vectors(rows[low:high], rest, result[low:high])
        else:
            kernel.expand_planes(rows[low:high], words, rest, by_word[low:high], result[low:high])

    worth = VECTOR_BYTES_A_THREAD if vectors else BYTES_A_THREAD
    in_threads(work, len(rows), max(1, worth // result.shape[1]))
    full = torch.from_numpy(result).view(batch, height, width, channels * count)
    return full.permute(0, 3, 1, 2)


@lru_cache(maxsize=256)
def _tables(planes: BytePlanes, wide: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """u of `wide` words of four planes, int32 (wide, 256), and of the planes left over, uint8; of
    narrow operands' patterns that do not occur, 0.
    """
    u = np.pad(planes.u.numpy(), ((0, 256 - len(planes.u)), (0, 0)))
    words = np.ascontiguousarray(u[:, : 4 * wide]).view(np.int32)
    return np.ascontiguousarray(words.T), np.ascontiguousarray(u[:, 4 * wide :].T)


def _weight_planes(problem: Problem, w: Tensor, planes: BytePlanes) -> Tensor:
    """int8 (O, C / groups · planes, kH, kW), planes as `_activation_planes` has them."""
    outputs, channels, height, width = w.shape
    count = planes.v.shape[1]
    v = np.take(planes.v.numpy(), w.numpy(), axis=0)
    wide = 4 * _words(problem.w.shape[1], count)
    together = v[..., :wide].reshape(outputs, channels, height, width, -1, 4)
    first = together.transpose(0, 4, 1, 5, 2, 3).reshape(outputs, channels * wide, height, width)
    last = v[..., wide:].transpose(0, 4, 1, 2, 3).reshape(outputs, -1, height, width)
    return torch.from_numpy(np.concatenate([first, last], axis=1))


def _exact_blocks(problem: Problem, x: Tensor, planes: BytePlanes) -> list[tuple[Tensor, "Packed"]]:
    """Blocks of channels whose sums stay below 2**24 with the weights at hand."""
    channels = problem.w.shape[1]
    if channels * problem.taps * _largest_product(problem.lut) < FP32_EXACT:
        return [(x, _packed(problem, problem.w, planes, x))]
    largest = torch.from_numpy(_largest_products(problem.lut))
    bounds = largest[problem.w.to(torch.int64)].sum(dim=(2, 3)).amax(dim=0)
    blocks = _channel_blocks(bounds.tolist())
    if len(blocks) == 1:
        return [(x, _packed(problem, problem.w, planes, x))]
    parts = []
    batch, _, height, width = problem.x.shape
    grouped = problem.x.reshape(batch, problem.geometry.groups, channels, height, width)
    for low, high in blocks:
        images = grouped[:, :, low:high].reshape(batch, -1, height, width)
        part = replace(problem, x=images, w=problem.w[:, low:high].contiguous())
        expanded = _activation_planes(part, planes)
        parts.append((expanded, _packed(part, part.w, planes, expanded)))
    return parts


def _channel_blocks(bounds: list[int]) -> list[tuple[int, int]]:
    """Runs of channels whose bounds sum to less than 2**24."""
    blocks, low, total = [], 0, 0
    for channel, bound in enumerate(bounds):
        if total + bound >= FP32_EXACT:
            blocks.append((low, channel))
            low, total = channel, 0
        total += bound
    return [*blocks, (low, len(bounds))]


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights as oneDNN wants them, for so many outputs."""

    weights: Tensor
    outputs: int


_PACKED: "OrderedDict[tuple[object, ...], Packed]" = OrderedDict()


def _packed(problem: Problem, w: Tensor, planes: BytePlanes, x: Tensor) -> Packed:
    """Packing takes a tenth of a convolution: the newest weights' is remembered, by content."""
    w = w.contiguous()
    content = hashlib.blake2b(w.numpy().tobytes(), digest_size=16).digest()
    key = (content, w.shape, problem.lut.digest, problem.geometry, x.shape)
    packed = _PACKED.pop(key, None)
    if packed is None:
        packed = _pack(_weight_planes(problem, w, planes), problem.geometry, x.shape)
    if packed.weights.numel() <= PACKED_BYTES:
        _PACKED[key] = packed
        if len(_PACKED) > PACKED_COUNT:
            _PACKED.popitem(last=False)
    return packed


def _pack(w: Tensor, geometry: ConvGeometry, shape: torch.Size) -> Packed:
    outputs = w.shape[0]
    weights = torch.ops.onednn.qconv_prepack(
        w, torch.ones(outputs), 1.0, ZERO_POINT, *_spatial(geometry), list(shape)
    )
    return Packed(weights, outputs)


def _convolution(x: Tensor, w: Packed, geometry: ConvGeometry) -> Tensor:
    """int32 sums of (x - 128)·w, x uint8, w int8; without padding."""
    scales, zeros = torch.ones(w.outputs), torch.zeros(w.outputs, dtype=torch.int32)
    sums: Tensor = torch.ops.onednn.qconv2d_pointwise(
        x, 1.0, ZERO_POINT, w.weights, scales, zeros, None, *_spatial(geometry),
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    integers = sums.view(torch.int32)
    return integers.copy_(sums)  # in place: element by element, each as wide as before


def _spatial(geometry: ConvGeometry) -> tuple[list[int], list[int], list[int], int]:
    return list(geometry.stride), [0, 0], list(geometry.dilation), geometry.groups


def _words(channels: int, count: int) -> int:
    """How many words of four planes are looked up at once: none where vectors of bytes are."""
    return 0 if channels * count % 4 or _has_vectors() else count // 4


@lru_cache(maxsize=1)
def _has_vectors() -> bool:
    found: bool = _kernel().has_byte_permutations()
    return found


@lru_cache(maxsize=1)
def _kernel() -> ModuleType:
    from . import int8_kernel

    return int8_kernel


@lru_cache(maxsize=1)
def int8_units_are_exact() -> bool:
    """Whether oneDNN's int8 convolution is here and neither saturates nor rounds."""
    generator = torch.Generator().manual_seed(0)
    w = torch.full((4, 32, 3, 3), -128, dtype=torch.int8)
    w[1:] = torch.randint(-128, 128, (3, 32, 3, 3), generator=generator).to(torch.int8)
    x = torch.full((2, 32, 6, 6), 255, dtype=torch.uint8)
    x[1] = torch.randint(0, 256, (32, 6, 6), generator=generator).to(torch.uint8)
    try:
        result = _convolution(x, _pack(w, ConvGeometry(), x.shape), ConvGeometry())
    except (AttributeError, RuntimeError):
        return False
    exact = torch.nn.functional.conv2d(x.double() - ZERO_POINT, w.double())
    return torch.equal(result.double(), exact)
