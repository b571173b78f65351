"""Look-ups on a CUDA device: any table, exact because there is nothing but integer sums."""

from torch import Tensor

from .backend import Problem
from .cuda_convolution import by_columns, by_rows, depthwise_layout, row_order
from .cuda_operands import Images, Weights, biased_columns, cuda_refusal, prepare, transposed_table

__all__ = ["CudaTable"]


class CudaTable:
    """CUDA; any table."""

    def refusal(self, problem: Problem) -> str | None:
        return cuda_refusal(problem.x)

    def cost(self, problem: Problem) -> float:
        return 1.0 if problem.is_depthwise else 15.0

    def accumulators(self, problem: Problem) -> Tensor:
        problem = problem.padded()
        device, lut = problem.x.device, problem.lut
        kernels = prepare(Weights(problem.w), columns=lut.table.shape[1], patterns=True)
        images, result = Images(problem.x, problem.zero), problem.empty_result()
        x, w, geometry = problem.x.shape, problem.w.shape, problem.geometry
        if problem.is_depthwise:
            layout = depthwise_layout(x, w, geometry, order="channels")
            by_columns(images, kernels, transposed_table(lut, device), layout, result)
        else:
            layout = row_order(x, w, geometry)
            by_rows(images, kernels, biased_columns(lut, device), layout, result)
        return result.permute(0, 3, 1, 2)
