"""Depthwise layers by look-ups in the columns of the table that the weights choose: any table."""

import torch
from torch import Tensor

from ..depthwise import has_columns, looked_up
from .backend import Problem

__all__ = ["Columns"]

COST = 8.5  # about that of eight planes


class Columns:
    """CPU; as many groups as input and output channels."""

    def refusal(self, problem: Problem) -> str | None:
        if not has_columns(problem.x, problem.w, problem.geometry):
            return "for a depthwise layer on a CPU where numba is installed, not for this"
        return None

    def cost(self, problem: Problem) -> float:
        return COST

    def accumulators(self, problem: Problem) -> Tensor:
        problem = problem.padded()
        columns = torch.from_numpy(problem.lut.table.T.copy())[problem.w[:, 0].to(torch.int64)]
        return looked_up(problem.x, columns, problem.geometry)
