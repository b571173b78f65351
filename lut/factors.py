"""Exact integer factors of product tables: ``table = u @ v.T`` with as few columns as its rank.

A table of rank R turns an approximate convolution into R exact ones over ``u[x]`` and ``v[w]``. The
rows of ``v.T`` are an LLL-reduced basis (Lenstra, Lenstra, Lovász 1982) of the lattice that the
table's rows span, so the coordinates ``u`` are integers too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .table import LUT

__all__ = ["Factors", "JointBasis", "factorize", "joint_basis"]


@dataclass(frozen=True, eq=False)
class Factors:
    """``u``: int64 (rows, rank), ``v``: int64 (columns, rank); ``u @ v.T`` is the table."""

    u: NDArray[np.int64]
    v: NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.u.ndim == self.v.ndim == 2 and self.u.shape[1] == self.v.shape[1]

    @property
    def rank(self) -> int:
        return int(self.u.shape[1])

    @property
    def table(self) -> NDArray[np.int64]:
        return self.u @ self.v.T

    @cached_property
    def product_bound(self) -> int:
        """max over a, b of sum_r |u[a, r]|·|v[b, r]|: no partial sum of one product exceeds it."""
        return int((np.abs(self.u) @ np.abs(self.v).T).max(initial=0))


@dataclass(frozen=True, eq=False)
class JointBasis:
    """One activation side for several tables: ``u @ v[m].T`` is table m, exactly.

    ``u``: int64 (rows, rank); ``v``: int64 (tables, columns, rank).
    """

    u: NDArray[np.int64]
    v: NDArray[np.int64]

    @property
    def rank(self) -> int:
        return int(self.u.shape[1])

    def factors(self, index: int) -> Factors:
        return Factors(self.u, self.v[index])


def factorize(lut: LUT) -> Factors:
    """Exact factors of minimal rank, entries kept small by lattice reduction."""
    return Factors(*_integer_factors(lut.table.astype(np.int64)))


def joint_basis(luts: Sequence[LUT]) -> JointBasis:
    """The smallest activation side shared by all `luts`, which must have tables of one shape."""
    u, v = _integer_factors(np.concatenate([lut.table.astype(np.int64) for lut in luts], axis=1))
    return JointBasis(u, v.reshape(len(luts), -1, u.shape[1]))


def _integer_factors(matrix: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """u, v with ``u @ v.T == matrix`` and rank(matrix) columns."""
    if not matrix.any():
        return np.zeros((len(matrix), 0), np.int64), np.zeros((matrix.shape[1], 0), np.int64)
    basis, pivots = _row_lattice_basis(matrix)
    u = _coordinates(matrix[:, pivots], basis[:, pivots])
    assert np.array_equal(u @ basis, matrix), "the factors must reproduce the table"
    return np.ascontiguousarray(u), np.ascontiguousarray(basis.T)


def _row_lattice_basis(matrix: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """LLL-reduced basis (rank, columns) of the row lattice, and columns on which it is regular."""
    from flint import fmpz_mat

    distinct = np.unique(matrix, axis=0)
    hermite = fmpz_mat(distinct.tolist()).hnf()
    rows = [row for row in hermite.table() if any(row)]
    pivots = [next(column for column, value in enumerate(row) if value) for row in rows]
    reduced = fmpz_mat(rows).lll()
    return np.array([[int(value) for value in row] for row in reduced.table()], np.int64), pivots


def _coordinates(targets: NDArray[np.int64], basis: NDArray[np.int64]) -> NDArray[np.int64]:
    """The integer u that solves ``u @ basis == targets`` for a regular square `basis`."""
    from flint import fmpq_mat, fmpz_mat

    system = fmpq_mat(fmpz_mat(basis.T.tolist()))
    solution = system.solve(fmpq_mat(fmpz_mat(targets.T.tolist())))
    numerators, denominator = solution.numer_denom()
    assert denominator == 1, "rows of the table must lie in the lattice that they span"
    return np.array([[int(value) for value in row] for row in numerators.table()], np.int64).T
