"""A C header with a product table, as AdaPT and TransAxx have them: ``lut[256][256] = {{…}}``."""

import re
from pathlib import Path

import numpy as np

from ..errors import InputError
from .imported import Imported
from .source import Source
from .table_file import of_table

_ARRAY = re.compile(r"(\w+)\s*\[\s*(\d+)\s*\]\s*\[\s*(\d+)\s*\]\s*=\s*\{(.*?)\}\s*;", re.DOTALL)


def imported(source: Source) -> Imported:
    """The header's only two-dimensional array, indexed by bit pattern."""
    name = source.called(Path(source.place).stem)
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", source.text("a C header"), flags=re.DOTALL)
    arrays = _ARRAY.findall(text)
    if len(arrays) != 1:
        raise InputError(
            f"{source.place} must have one array like lut[256][256] = {{…}}, not {len(arrays)}"
        )
    _, rows, columns, body = arrays[0]
    values = [part for part in re.split(r"[\s,{}]+", body) if part]
    if len(values) != int(rows) * int(columns):
        raise InputError(
            f"array of {source.place} must have {rows}·{columns} numbers, not {len(values)}"
        )
    try:
        table = np.array([int(value, 0) for value in values]).reshape(int(rows), int(columns))
    except ValueError as error:
        raise InputError(f"array of {source.place} must be of integers, but {error}") from None
    return of_table(name, source.is_signed(name), source.row_first(table), source.place)
