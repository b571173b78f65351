"""Work divided among as many threads as torch uses; it must leave the interpreter's lock."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch

__all__ = ["in_threads"]


def in_threads(work: Callable[[int, int], object], count: int, least: int) -> None:
    """``work(low, high)`` for parts of 0 … count, each of at least `least`, one a thread."""
    parts = max(1, min(torch.get_num_threads(), count // least))
    (low, high), *others = pairwise(count * i // parts for i in range(parts + 1))
    jobs = [_pool(parts, os.getpid()).submit(work, *part) for part in others]
    work(low, high)
    for job in jobs:
        job.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept between calls; a forked process makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="lut")
