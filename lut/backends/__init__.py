"""Backends: ways to compute the same integer convolution. One file each, one line below."""

from hw.errors import InputError, unknown_name

from .backend import Backend as Backend
from .backend import Problem as Problem
from .columns import Columns
from .cuda_factorised import CudaFactorised
from .cuda_table import CudaTable
from .float32 import Float32
from .int8 import Int8
from .rows import Rows
from .table import Table

BACKENDS: dict[str, Backend] = {
    "int8": Int8(),
    "float32": Float32(),
    "columns": Columns(),
    "rows": Rows(),
    "cuda_factorised": CudaFactorised(),
    "cuda_table": CudaTable(),
    "table": Table(),
}


def chosen_backend(problem: Problem, name: str | None) -> Backend:
    """The cheapest backend that is exact for `problem`, or the named one.

    Raises InputError for an unknown name, or for a named backend that cannot be exact here.
    """
    if name is None:
        usable = [b for b in BACKENDS.values() if b.refusal(problem) is None]
        return min(usable, key=lambda backend: backend.cost(problem))
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    refusal = BACKENDS[name].refusal(problem)
    if refusal is not None:
        raise InputError(f"backend {name!r} must be {refusal}, for LUT {problem.lut.name!r}")
    return BACKENDS[name]
