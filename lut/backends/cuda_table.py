"""Look-ups on a CUDA device: any table, exact because there is nothing but integer sums.

Three kernels. Depthwise: neighbouring threads look up one column of the table. Dense: where the
rows ``table[:, w]`` of all weights fit the cache they are laid out, so that one operand adds a
contiguous row of products to all its outputs; else one look-up a multiplication.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..table import LUT
from .backend import Problem
from .cuda_operands import Operands, cuda_refusal, on_device, padded_to

__all__ = ["CudaTable"]

DEPTH = 4
ROWS_LIMIT_BYTES = 1 << 27


class CudaTable:
    """CUDA; any table."""

    def refusal(self, problem: Problem) -> str | None:
        return cuda_refusal(problem)

    def cost(self, problem: Problem) -> float:
        depthwise = problem.w.shape[1] == 1 and problem.geometry.groups > 1
        return 0.5 if depthwise else 6.0

    def accumulators(self, problem: Problem) -> Tensor:
        if problem.w.shape[1] == 1 and problem.geometry.groups > 1:
            return depthwise_columns(problem)
        if problem.w.numel() * problem.lut.table.shape[0] * 2 <= ROWS_LIMIT_BYTES:
            return dense_rows(problem)
        return dense_gathers(problem)


@lru_cache(maxsize=256)
def transposed_table(lut: LUT, device: torch.device) -> Tensor:
    """(columns + 1, rows), in 16 bits where the products fit; the last row is zero."""
    table = np.zeros((lut.table.shape[1] + 1, lut.table.shape[0]), np.int32)
    table[:-1] = lut.table.T
    types = (np.int16, np.uint16)
    fitting = [
        t for t in types if np.iinfo(t).min <= table.min() and table.max() <= np.iinfo(t).max
    ]
    return torch.from_numpy(table.astype(fitting[0] if fitting else np.int32)).to(device)


def depthwise_columns(problem: Problem) -> Tensor:
    from .cuda_kernels import depthwise_columns as kernel

    operands = Operands.of(problem, 1)
    table = transposed_table(problem.lut, problem.x.device)
    outputs, block, positions = problem.w.shape[0], 8, 128
    grid = (-(-outputs // block), -(-operands.positions // positions))
    with on_device(problem.x):
        kernel[grid](
            operands.x, table, problem.w.contiguous(), operands.offsets, operands.result,
            *operands.steps, outputs, outputs // problem.geometry.groups,
            problem.taps, table.shape[1], positions, block,
        )  # fmt: skip
    return operands.accumulators


def dense_gathers(problem: Problem) -> Tensor:
    from .cuda_kernels import gathered_convolution

    operands = Operands.of(problem, DEPTH)
    table = transposed_table(problem.lut, problem.x.device)
    groups = problem.geometry.groups
    outputs, block, positions = problem.w.shape[0] // groups, 16, 128
    padded = padded_to(block, outputs)
    grid = (-(-operands.positions // positions), padded // block, groups)
    with on_device(problem.x):
        gathered_convolution[grid](
            operands.x, table, _indices(problem, operands, table, padded), operands.offsets,
            operands.result, *operands.steps, operands.channels, outputs, groups, operands.length,
            padded, positions, block, DEPTH,
        )  # fmt: skip
    return operands.accumulators


@dataclass(frozen=True)
class RowTile:
    """What one program computes: positions by outputs, `depth` operands in one turn of the loop."""

    positions: int
    outputs: int
    depth: int
    warps: int


def row_tile(outputs: int) -> RowTile:
    """The fastest of those measured."""
    width = min(32, max(4, 1 << (outputs - 1).bit_length()))
    return RowTile(8192 // width, width, DEPTH, 8)


def dense_rows(problem: Problem, tile: RowTile | None = None) -> Tensor:
    from .cuda_kernels import lay_out_rows, row_convolution

    tile = tile or row_tile(problem.w.shape[0] // problem.geometry.groups)
    operands = Operands.of(problem, tile.depth)
    table = transposed_table(problem.lut, problem.x.device)
    patterns = table.shape[1]
    groups = problem.geometry.groups
    outputs = problem.w.shape[0] // groups
    block = tile.outputs
    padded = padded_to(block, outputs)
    rows = torch.empty(
        groups, padded // block, operands.length, patterns, block,
        dtype=table.dtype, device=table.device,
    )  # fmt: skip
    grid = (-(-operands.positions // tile.positions), padded // block, groups)
    with on_device(problem.x):
        lay_out_rows[(groups * operands.length, padded // block, -(-patterns // 64))](
            _indices(problem, operands, table, padded), table, rows, operands.length,
            patterns, padded, block, 64,
        )  # fmt: skip
        row_convolution[grid](
            operands.x, rows, operands.offsets, operands.result, *operands.steps,
            operands.channels, outputs, groups, operands.length,
            patterns, padded // block, tile.positions, block, tile.depth, num_warps=tile.warps,
        )  # fmt: skip
    return operands.accumulators


def _indices(problem: Problem, operands: Operands, table: Tensor, padded: int) -> Tensor:
    from .cuda_kernels import index_weights

    groups, outputs = problem.geometry.groups, problem.w.shape[0] // problem.geometry.groups
    index = torch.empty(
        groups, operands.length, padded, dtype=torch.int32, device=problem.x.device
    )  # fmt: skip
    index_weights[(groups * operands.length, -(-padded // 128))](
        problem.w.contiguous(), index, outputs, operands.channels, problem.taps, operands.length,
        table.shape[0] - 1, table.shape[1], padded, 128,
    )  # fmt: skip
    return index
