"""Row adding: for each operand of the sum one row of products with all output channels is added.

``rows[k, a, :] = table[a, w[:, k]]`` is laid out for a few k at a time, so that the inner loop is a
contiguous vector addition whatever the table. Compiled by numba; positions are divided among
threads.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..threads import in_threads
from .backend import Problem, is_installed

__all__ = ["Rows"]

POSITIONS_A_THREAD = 512


class Rows:
    """CPU; any table."""

    def refusal(self, problem: Problem) -> str | None:
        if problem.x.device.type != "cpu":
            return f"on a CPU, not on {problem.x.device.type}"
        if not is_installed("numba"):
            return "where numba is installed, not here"
        return None

    def cost(self, problem: Problem) -> float:
        outputs = problem.w.shape[0] // problem.geometry.groups
        return 8.0 + 64.0 / outputs

    def accumulators(self, problem: Problem) -> Tensor:
        problem = problem.padded()
        batch, outputs, height, width = problem.output_shape
        groups = problem.geometry.groups
        images = np.ascontiguousarray(problem.x.permute(0, 2, 3, 1).numpy())
        bases = _bases(problem, images.shape)
        sums = np.zeros((groups, len(bases), outputs // groups), np.int32)
        kernels = problem.w.numpy().reshape(groups, outputs // groups, -1)
        per_group = problem.w.shape[1]
        for group in range(groups):
            weights = np.ascontiguousarray(kernels[group].T)
            offsets = _offsets(problem, images.shape) + group * per_group
            _add_rows(images.ravel(), bases, offsets, problem.lut.table, weights, sums[group])
        result = torch.from_numpy(sums).view(groups, batch, height, width, outputs // groups)
        return result.permute(1, 0, 4, 2, 3).reshape(batch, outputs, height, width)


def _add_rows(
    images: NDArray[np.uint8],
    bases: NDArray[np.int64],
    offsets: NDArray[np.int64],
    table: NDArray[np.int32],
    weights: NDArray[np.uint8],
    sums: NDArray[np.int32],
) -> None:
    """Add all rows, the positions divided evenly among threads."""
    add = _compiled()

    def work(low: int, high: int) -> None:
        add(images, bases[low:high], offsets, table, weights, sums[low:high])

    in_threads(work, len(bases), POSITIONS_A_THREAD)


def _bases(problem: Problem, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Position in the flat NHWC images of the first operand of every output position."""
    batch, _, rows, columns = problem.output_shape
    _, height, width, channels = shape
    vertical, horizontal = problem.geometry.stride
    n, i, j = np.ogrid[:batch, :rows, :columns]
    flat = ((n * height + i * vertical) * width + j * horizontal) * channels
    return flat.reshape(-1).astype(np.int64)


def _offsets(problem: Problem, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """From there to every operand of the sum, in the order of a flattened kernel (C, kH, kW)."""
    _, _, width, channels = shape
    _, per_group, kernel_height, kernel_width = problem.w.shape
    vertical, horizontal = problem.geometry.dilation
    c, p, q = np.ogrid[:per_group, :kernel_height, :kernel_width]
    flat = (p * vertical * width + q * horizontal) * channels + c
    return flat.reshape(-1).astype(np.int64)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    from .rows_kernel import add_rows

    return add_rows
