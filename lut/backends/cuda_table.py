"""Look-ups on a CUDA device: any table, exact because there is nothing but integer sums."""

from torch import Tensor

from .backend import Problem
from .cuda_convolution import by_columns, by_rows, depthwise_layout, row_order
from .cuda_operands import Images, Weights, cuda_refusal, prepare, transposed_table

__all__ = ["CudaTable"]


class CudaTable:
    """CUDA; any table."""

    def refusal(self, problem: Problem) -> str | None:
        return cuda_refusal(problem.x)

    def cost(self, problem: Problem) -> float:
        return 1.5 if problem.is_depthwise else 10.0

    def accumulators(self, problem: Problem) -> Tensor:
        table = transposed_table(problem.lut, problem.x.device)
        kernels = prepare(Weights(problem.w), columns=table.shape[0], patterns=True)
        images, result = Images(problem.x, problem.zero), problem.empty_result()
        x, w, geometry = problem.x.shape, problem.w.shape, problem.geometry
        if problem.is_depthwise:
            by_columns(images, kernels, table, depthwise_layout(x, w, geometry, count=1), result)
        else:
            by_rows(images, kernels, table, row_order(x, w, geometry), result)
        return result.permute(0, 3, 1, 2)
