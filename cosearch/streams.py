"""Independent work on several CUDA streams: kernels too small to fill a device run side by side.

Only while a graph is captured, where starting kernels costs nothing; the gradients of what is
computed on a stream are computed on it, too. What crosses streams keeps its memory until the end of
the capture.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["side_by_side"]

STREAMS = 7
"""Operations of an edge do not divide it: long ones are not all on one stream."""

_streams: dict[int, list[torch.cuda.Stream]] = {}  # by device


def side_by_side(works: Sequence[Callable[[], Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The results of all works, which read `inputs` and depend on nothing of each other."""
    captures = inputs[0].is_cuda and torch.cuda.is_current_stream_capturing()
    if len(works) < 2 or not captures:
        return [work() for work in works]
    current, streams = torch.cuda.current_stream(), _side_streams(inputs[0].device)
    used = streams[: len(works)]
    for stream in used:
        stream.wait_stream(current)
        for tensor in inputs:
            tensor.record_stream(stream)
    found = []
    for number, work in enumerate(works):
        with torch.cuda.stream(used[number % len(used)]):
            found.append(work())
    for stream in used:
        current.wait_stream(stream)
    for result in found:
        result.record_stream(current)
    return found


def _side_streams(device: torch.device) -> list[torch.cuda.Stream]:
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _streams:
        _streams[index] = [torch.cuda.Stream(index) for _ in range(STREAMS)]
    return _streams[index]
