"""Factorised, on the matrix units of a CUDA device: int8 planes, int32 sums, in one fused kernel.

The planes of an activation are looked up in registers, a word of up to eight at a time, inside the
loop of an implicit matrix product, so nothing of the size of channels · planes is ever in memory.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..table import LUT
from .backend import Problem
from .cuda_operands import Operands, cuda_refusal, on_device, padded_to
from .int8 import PLANE_LIMIT, RANK_LIMIT, ZERO_POINT, byte_planes

__all__ = ["CudaFactorised"]

WORD_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class PackedPlanes:
    """``u``: (words, rows), integers of `per_word` signed bytes, the first plane lowest;
    ``v``: int8 (words · per_word, columns), planes of zeros last.
    """

    u: Tensor
    v: Tensor
    per_word: int

    @property
    def words(self) -> int:
        return self.u.shape[0]


class CudaFactorised:
    """CUDA; tables that at most `PLANE_LIMIT` planes of 8 bits make up. Exact: integers only."""

    def refusal(self, problem: Problem) -> str | None:
        refusal = cuda_refusal(problem)
        if refusal is not None:
            return refusal
        if problem.lut.rank > RANK_LIMIT or byte_planes(problem.lut) is None:
            return f"of at most {PLANE_LIMIT} planes of 8 bits, not of rank {problem.lut.rank}"
        return None

    def cost(self, problem: Problem) -> float:
        planes = byte_planes(problem.lut)
        assert planes is not None
        return 0.2 + 0.1 * planes.u.shape[1]

    def accumulators(self, problem: Problem) -> Tensor:
        packed = packed_planes(problem.lut, problem.x.device)
        if problem.w.shape[1] == 1 and problem.geometry.groups > 1:
            return _depthwise(problem, packed)
        return _dense(problem, packed)


@lru_cache(maxsize=256)
def packed_planes(lut: LUT, device: torch.device) -> PackedPlanes:
    """The byte planes of `lut` in as few words as hold them."""
    planes = byte_planes(lut)
    assert planes is not None
    rows, count = planes.u.shape
    words = -(-count // 8)
    per_word = -(-count // words)
    size = next(size for size in WORD_TYPES if size >= per_word)
    u = torch.zeros(words, rows, size, dtype=torch.int8)
    v = torch.zeros(words * per_word, planes.v.shape[0], dtype=torch.int8)
    signed = (planes.u.to(torch.int16) - ZERO_POINT).to(torch.int8)
    for plane in range(count):
        u[plane // per_word, :, plane % per_word] = signed[:, plane]
        v[plane] = planes.v[:, plane]
    packed = u.view(WORD_TYPES[size])[:, :, 0].contiguous()
    return PackedPlanes(packed.to(device), v.to(device), per_word)


@dataclass(frozen=True)
class Tile:
    """What one program computes: positions by outputs, `depth` operands at a time."""

    positions: int
    outputs: int
    depth: int
    warps: int
    stages: int


def dense_tile(outputs: int, operands: int, planes: int) -> Tile:
    """The fastest of those measured."""
    width = max(16, min(128, 1 << (outputs - 1).bit_length()))
    depth = 32 if operands <= 32 else 64
    return Tile(128, width, depth, 4 if width <= 64 else 8, 3)


def _dense(problem: Problem, packed: PackedPlanes, tile: Tile | None = None) -> Tensor:
    from .cuda_kernels import expand_weights, factorised_convolution

    groups = problem.geometry.groups
    outputs, planes = problem.w.shape[0] // groups, packed.v.shape[0]
    tile = tile or dense_tile(outputs, problem.w.shape[1] * problem.taps, planes)
    operands = Operands.of(problem, tile.depth)
    padded = padded_to(tile.outputs, outputs)
    kernels = torch.empty(
        groups, padded, planes, operands.length, dtype=torch.int8, device=problem.x.device
    )
    w = problem.w.contiguous()
    with on_device(problem.x):
        expand_weights[(groups * padded, -(-operands.length // 256))](
            w, packed.v, kernels, outputs, operands.channels, problem.taps, operands.length,
            padded, packed.v.shape[1], planes, 256,
        )  # fmt: skip
        grid = (-(-operands.positions // tile.positions), padded // tile.outputs, groups)
        factorised_convolution[grid](
            operands.x, packed.u, kernels, operands.offsets, operands.result, *operands.steps,
            operands.channels, outputs, groups, operands.length,
            padded, packed.u.shape[1], packed.words, packed.per_word, operands.vector,
            tile.positions, tile.outputs, tile.depth,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return operands.accumulators


def _depthwise(problem: Problem, packed: PackedPlanes) -> Tensor:
    from .cuda_kernels import depthwise_factors

    operands = Operands.of(problem, 1)
    outputs = problem.w.shape[0]
    block = min(64, max(4, 1 << (outputs - 1).bit_length()))
    positions = 1024 // block
    grid = (-(-operands.positions // positions), -(-outputs // block))
    with on_device(problem.x):
        depthwise_factors[grid](
            operands.x, packed.u, packed.v, problem.w.contiguous(), operands.offsets,
            operands.result, *operands.steps, outputs, outputs // problem.geometry.groups,
            problem.taps, packed.u.shape[1], packed.v.shape[1], packed.words, packed.per_word,
            positions, block,
        )  # fmt: skip
    return operands.accumulators
