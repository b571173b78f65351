"""Tables for tests, written from their arithmetic definition alone."""

import numpy as np

from lut.table import LUT, operand_values


def truncated(columns: int, *, signed: bool = True, rows: int = 0) -> LUT:
    """Products without the partial products a_i·b_j where i + j < columns or j < rows."""
    patterns = np.arange(256)
    table = np.zeros((256, 256), np.int64)
    for i in range(8):
        for j in range(rows, 8):
            if i + j >= columns:
                negative = signed and (i == 7) != (j == 7)
                term = np.outer(patterns >> i & 1, patterns >> j & 1) << (i + j)
                table += -term if negative else term
    name = f"truncated_{columns}_{rows}"
    return LUT(table, a_signed=signed, b_signed=signed, name=name)


def random_table(rank: int, seed: int = 0, magnitude: int = 9) -> LUT:
    """A table without structure, of at most the given rank; signed operands, LUT[0, b] not zero."""
    generator = np.random.default_rng(seed)
    u = generator.integers(-magnitude, magnitude + 1, (256, rank))
    v = generator.integers(-magnitude, magnitude + 1, (256, rank))
    return LUT(u @ v.T, a_signed=True, b_signed=True, name=f"random_{rank}")


__all__ = ["operand_values", "random_table", "truncated"]
