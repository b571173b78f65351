"""One look-up for each multiplication: any table, any device, slow. The fast ones' twin."""

import torch
from torch import Tensor
from torch.nn import functional

from .backend import Problem

__all__ = ["Table"]

PRODUCTS_AT_ONCE = 1 << 24


class Table:
    """Never refused."""

    def refusal(self, problem: Problem) -> str | None:
        return None

    def cost(self, problem: Problem) -> float:
        return 500.0

    def accumulators(self, problem: Problem) -> Tensor:
        problem = problem.padded()
        table = torch.from_numpy(problem.lut.table.copy()).to(problem.x.device).flatten()
        per_image = problem.w.numel() * problem.x.shape[2] * problem.x.shape[3]
        size = max(1, PRODUCTS_AT_ONCE // max(1, per_image))
        return torch.cat([_sums(block, problem, table) for block in problem.x.split(size)])


def _sums(x: Tensor, problem: Problem, table: Tensor) -> Tensor:
    w, geometry = problem.w, problem.geometry
    columns = functional.unfold(
        x.to(torch.float32), w.shape[2:], geometry.dilation, 0, geometry.stride
    ).to(torch.int64)
    batch, _, positions = columns.shape
    rows = columns.view(batch, geometry.groups, 1, -1, positions) << problem.lut.b_width
    index = rows + w.to(torch.int64).reshape(geometry.groups, -1, w[0].numel(), 1)
    sums = table[index].sum(3, dtype=torch.int32)
    return sums.view(batch, *problem.output_shape[1:])
