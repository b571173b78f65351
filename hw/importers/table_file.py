"""A product table: ``.npy`` of integers, or ``.csv`` as a matrix or as columns a, b, p.

A matrix is indexed by bit pattern. Columns hold values or bit patterns of the operands, in any
order of rows, each pair at least once; a pair that has two products is a contradiction.
"""

import csv
import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .imported import MAX_WIDTH, Imported
from .source import Source

Table = npt.NDArray[np.int64]


def imported(source: Source) -> Imported:
    """The table, first operand along the rows."""
    name = source.called(Path(source.place).stem)
    suffix = Path(source.place).suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise InputError(
            f"table {source.place} must be a .npy or .csv file, not {suffix or 'bare'}"
        )
    signed = source.is_signed(name)
    table = _from_npy(source) if suffix == ".npy" else _from_csv(source, signed)
    return of_table(name, signed, table, source.place)


def of_table(name: str, signed: bool, table: Table, origin: str) -> Imported:
    """After checking shape and range; products given as bit patterns are read as signed."""
    sizes = {1 << width for width in range(1, MAX_WIDTH + 1)}
    if table.ndim != 2 or not set(table.shape) <= sizes:
        raise InputError(
            f"table {origin} must have a shape of two powers of two up to {1 << MAX_WIDTH}, "
            f"not {table.shape}"
        )
    if table.size and max(abs(int(table.min())), abs(int(table.max()))) >= 1 << 31:
        raise InputError(f"products of {name} ({origin}) must fit 32 bits, not {table.max()}")
    return Imported(name, signed, np.ascontiguousarray(table, np.int32), origin)


def _from_npy(source: Source) -> Table:
    try:
        array = np.load(io.BytesIO(source.data("a .npy file")), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{source.place} must be a .npy file with a table, not {error}") from None
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"table {source.place} must be of integers, not {array.dtype}")
    if array.ndim != 2:
        raise InputError(f"table {source.place} must have two dimensions, not {array.ndim}")
    return source.row_first(array.astype(np.int64))


def _from_csv(source: Source, signed: bool) -> Table:
    rows = [row for row in csv.reader(io.StringIO(source.text("a .csv file"))) if row]
    if not rows:
        raise InputError(f"table {source.place} must not be empty")
    header = [cell.strip() for cell in rows[0]]
    if not _is_integer(header[0]):
        return _from_columns(source, header, _integers(rows[1:], source.place), signed)
    return source.row_first(_integers(rows, source.place))


def _from_columns(source: Source, header: list[str], values: Table, signed: bool) -> Table:
    if len(header) != 3:
        raise InputError(
            f"columns of {source.place} must be two operands and the product, not {header}"
        )
    product = source.product or header[2]
    operands = [name for name in header if name != product]
    first, second = source.ordered(operands, source.place)
    a, b, p = (values[:, header.index(name)] for name in (first, second, product))
    a_bits, b_bits = (_width(column, signed, source.place) for column in (a, b))
    table = np.zeros((1 << a_bits, 1 << b_bits), np.int64)
    seen = np.zeros(table.shape, bool)
    index = a & (1 << a_bits) - 1, b & (1 << b_bits) - 1
    table[index], seen[index] = p, True
    if (table[index] != p).any():
        row = int(np.flatnonzero(table[index] != p)[0])
        raise InputError(
            f"table {source.place} must not contradict itself: {first}={a[row]}, {second}={b[row]} "
            f"is {p[row]} and {table[index][row]}"
        )
    if not seen.all():
        x, y = np.argwhere(~seen)[0]
        raise InputError(
            f"table {source.place} must have every operand pair, not lack "
            f"{int((~seen).sum())} of {seen.size}, as the bit patterns {x}, {y}"
        )
    return table


def _width(column: Table, signed: bool, place: str) -> int:
    """The bits that an operand of these values has."""
    low, high = int(column.min()), int(column.max())
    if low < 0 and not signed:
        raise InputError(f"operands of unsigned {place} must not be below zero, as {low} is")
    span = max(high, -low - 1).bit_length() + 1 if low < 0 else high.bit_length()
    if not 1 <= span <= MAX_WIDTH:
        raise InputError(f"operands of {place} must have 1 to {MAX_WIDTH} bits, not {span}")
    return span


def _integers(rows: list[list[str]], place: str) -> Table:
    width = len(rows[0]) if rows else 0
    for number, row in enumerate(rows, 1):
        if len(row) != width or not all(_is_integer(cell) for cell in row):
            raise InputError(f"row {number} of {place} must be {width} integers, not {row[:4]}…")
    return np.array(rows, np.int64).reshape(len(rows), width)


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?\d+\s*", text) is not None
