"""Factorised, on the matrix units of a CUDA device: int8 planes, int32 sums, in one fused kernel.

The planes of an activation are looked up inside the loop of an implicit matrix product, a word of
up to eight at a time, so nothing of the size of channels · planes is ever in memory.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..table import LUT
from .backend import Problem
from .cuda_operands import Operands, cuda_refusal, on_device, padded_to
from .int8 import PLANE_LIMIT, RANK_LIMIT, ZERO_POINT, byte_planes

__all__ = [
    "CudaFactorised",
    "PackedPlanes",
    "Tile",
    "expanded_weights",
    "idle_units",
    "launch",
    "packed_planes",
]

WORD_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class PackedPlanes:
    """``u``: (words, rows), integers of `per_word` signed bytes, the first plane lowest;
    ``v``: int8 (words · per_word, columns), planes of zeros last; ``bytes``: int8 (count, rows).
    """

    u: Tensor
    v: Tensor
    per_word: int
    bytes: Tensor

    @property
    def count(self) -> int:
        return self.bytes.shape[0]


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
        return (0.6 + 0.15 * planes.u.shape[1]) * idle_units(problem)

    def accumulators(self, problem: Problem) -> Tensor:
        packed = packed_planes(problem.lut, problem.x.device)
        outputs = problem.w.shape[0] // problem.geometry.groups
        tile = fused_tile(outputs, problem.w.shape[1] * problem.taps, packed.per_word)
        operands = Operands.of(problem, tile.depth)
        launch(operands, packed, expanded_weights(problem, packed, operands, tile), tile)
        return operands.accumulators


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
    return PackedPlanes(packed.to(device), v.to(device), per_word, signed.T.contiguous().to(device))


@dataclass(frozen=True)
class Tile:
    """What one program computes: positions by outputs, `depth` operands at a time."""

    positions: int
    outputs: int
    depth: int
    warps: int
    stages: int


def fused_tile(outputs: int, operands: int, planes: int) -> Tile:
    """Of the widths and depths measured the fastest; fewer stages where shared memory is short."""
    width = max(16, min(128, 1 << (outputs - 1).bit_length()))
    depth = 32 if operands <= 32 else 64
    return Tile(128, width, depth, 4 if width <= 64 else 8, 3 if planes <= 5 else 2)


def idle_units(problem: Problem) -> float:
    """How many times the work is done that the sums and outputs of a group need: 1 for large ones,
    as the units take at least 32 operands and 16 outputs.
    """
    operands, outputs = problem.w[0].numel(), problem.w.shape[0] // problem.geometry.groups
    return max(1.0, 32 / operands) * max(1.0, 16 / outputs)


def expanded_weights(
    problem: Problem, packed: PackedPlanes, operands: Operands, tile: Tile, side_by_side: int = 1
) -> Tensor:
    """v[w], int8 (groups, outputs rounded up, planes / side_by_side, length)."""
    from .cuda_kernels import expand_weights

    w, groups = problem.w.contiguous(), problem.geometry.groups
    outputs = w.shape[0] // groups
    padded = padded_to(tile.outputs, outputs)
    planes = packed.v.shape[0] if side_by_side == 1 else side_by_side
    shape = (groups, padded, planes // side_by_side, operands.length)
    kernels = torch.empty(shape, dtype=torch.int8, device=w.device)
    with on_device(w):
        expand_weights[(groups * padded, -(-operands.length // 256))](
            w, packed.v, kernels, outputs, w.shape[1], problem.taps,
            operands.channels, operands.length,
            padded, packed.v.shape[1], planes, side_by_side, 256,
        )  # fmt: skip
    return kernels


def launch(
    operands: Operands, packed: PackedPlanes, kernels: Tensor, tile: Tile, *, expanded: bool = False
) -> None:
    """Fill `operands.result`; `expanded`: the images of `operands` are planes already."""
    from .cuda_kernels import factorised_convolution

    groups, padded, _, length = kernels.shape
    outputs = operands.result.shape[3] // groups
    words, per_word = (1, 1) if expanded else (packed.u.shape[0], packed.per_word)
    grid = (-(-operands.positions // tile.positions), padded // tile.outputs, groups)
    with on_device(kernels):
        factorised_convolution[grid](
            operands.x, packed.u, kernels, operands.offsets, operands.result, *operands.steps,
            operands.channels, outputs, groups, length,
            padded, packed.u.shape[1], words, per_word, operands.vector, expanded,
            tile.positions, tile.outputs, tile.depth,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
