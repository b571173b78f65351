"""Formulas of the families with approximate 4:2 compressors: stages of sums of bits, then one sum.

Which bits meet in a compressor decides what is computed, so the stages are written out, a wire a
sum; a compressor is the number of its ones, except where it errs.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .magnitude_formulas import between_magnitudes

if TYPE_CHECKING:
    from hw.multipliers import Shape

__all__ = ["compressor"]

Columns = dict[int, list[str]]

VALUES: Mapping[str, tuple[str, ...]] = {
    "momeni": (
        "// sum and carry of n: its ones, but 0000, 0011 and 1100 are 1 and 1111 is 3",
        "compressed = {(n[3] | n[2]) & (n[1] | n[0]), ~(n[3] ^ n[2]) | ~(n[1] ^ n[0])};",
    ),
    "saturating": (
        "// sum and carry of n: its ones, but 1111 is 3",
        "compressed = &n ? 2'd3 : {1'b0, n[3]} + {1'b0, n[2]} + {1'b0, n[1]} + {1'b0, n[0]};",
    ),
    "venkatachalam": (
        "// sum and carry of n: its ones, but one of each half is 1 and 1111 is 3",
        "compressed = {&n[3:2] | &n[1:0], n[3] ^ n[2] | n[1] ^ n[0] | &n};",
    ),
}


def compressor(design: str) -> Callable[["Shape", Mapping[str, int]], list[str]]:
    """The formula of the family ``compressor_<design>``."""

    def formula(shape: "Shape", parameters: Mapping[str, int]) -> list[str]:
        return between_magnitudes(shape, _body(VALUES[design], shape, parameters["k"]))

    return formula


def _body(function: tuple[str, ...], shape: "Shape", approximate: int) -> list[str]:
    columns: Columns = defaultdict(list)
    for j in range(shape.b_width):
        for i in range(shape.a_width):
            columns[i + j].append(f"x[{i}] & y[{j}]")
    lines: list[str] = []
    number = 0
    while max(map(len, columns.values())) > 2:
        number += 1
        lines.append(f"  // stage {number}")
        columns = _stage(columns, approximate, number, lines)
    return [*_function(function, lines), *lines, *_total(columns, shape.p_width)]


def _function(statements: tuple[str, ...], lines: list[str]) -> list[str]:
    if not any("compressed(" in line for line in lines):
        return []
    return [
        "  function [1:0] compressed;",
        "    input [3:0] n;",
        *(f"    {statement}" for statement in statements),
        "  endfunction",
        "",
    ]


def _stage(columns: Columns, approximate: int, number: int, lines: list[str]) -> Columns:
    """Fours into compressors below the column given, threes into full adders, the rest as it is."""
    after: Columns = defaultdict(list)
    for column in sorted(columns):
        bits, placed = list(columns[column]), 0
        while len(bits) > 2:
            taken = 4 if column < approximate and len(bits) > 3 else 3
            name = f"sum_{number}_{column}_{placed}"
            lines.append(f"  wire [1:0] {name} = {_value(bits[:taken])};")
            after[column].append(f"{name}[0]")
            after[column + 1].append(f"{name}[1]")
            bits, placed = bits[taken:], placed + 1
        after[column] += bits
    return after


def _value(bits: list[str]) -> str:
    if len(bits) == 4:
        return f"compressed({{{', '.join(reversed(bits))}}})"
    return " + ".join(f"{{1'b0, {bit}}}" for bit in bits)


def _total(columns: Columns, width: int) -> list[str]:
    """The sum of the at most two bits that are left of each column; carries of the top are lost."""
    rows = (
        [columns[c][place] if len(columns[c]) > place else "1'b0" for c in range(width)]
        for place in range(2)
    )
    numbers = [f"{{{', '.join(reversed(row))}}}" for row in rows]
    lost = [f"{bit}" for column, bits in columns.items() if column >= width for bit in bits]
    unused = [f"  wire unused = &{{1'b0, {', '.join(lost)}}};"] if lost else []
    return [
        "  // what is left of each column",
        f"  wire [{width - 1}:0] first = {numbers[0]};",
        f"  wire [{width - 1}:0] second = {numbers[1]};",
        f"  wire [{width - 1}:0] product = first + second;",
        *unused,
    ]
