"""What the multiplier families compute, as Verilog: a formula or a short loop a family.

Each formula is the body of a module with ports a, b and p, exact for every shape and all
parameters, wrong products included. Nothing here is taken from the circuits: a formula is the
family's definition, and is proved equal to the gates.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .compressor_formulas import compressor
from .magnitude_formulas import drum, iterative_log, mitchell, recursive, roba

if TYPE_CHECKING:
    from hw.multipliers import Shape

__all__ = ["FORMULAS", "Formula"]

Parameters = Mapping[str, int]
Formula = Callable[["Shape", Parameters], list[str]]


def exact(shape: "Shape", parameters: Parameters) -> list[str]:
    """a · b."""
    if shape.signed:
        return ["  assign p = $signed(a) * $signed(b);"]
    return ["  assign p = a * b;"]


def truncated_operands(shape: "Shape", parameters: Parameters) -> list[str]:
    """The product of the operands without their k lowest bits."""
    k = parameters["k"]
    operands = [
        f"  wire {_signed(shape)}[{width - 1}:0] {x} = {{{name}[{width - 1}:{k}], {k}'d0}};"
        for x, name, width in (("x", "a", shape.a_width), ("y", "b", shape.b_width))
    ]
    unused = f"  wire unused = &{{1'b0, a[{k - 1}:0], b[{k - 1}:0]}};"
    return [*operands, unused, "", "  assign p = x * y;"]


def perforated(shape: "Shape", parameters: Parameters) -> list[str]:
    """a times b without bits f … f + r - 1."""
    first, rows = parameters["f"], parameters["r"]
    width = shape.b_width
    mask = (1 << width) - 1 ^ ((1 << rows) - 1) << first
    return [
        f"  wire {_signed(shape)}[{shape.a_width - 1}:0] x = a;",
        f"  wire {_signed(shape)}[{width - 1}:0] y = b & {width}'b{mask:0{width}b};",
        "",
        "  assign p = x * y;",
    ]


def truncated(shape: "Shape", parameters: Parameters) -> list[str]:
    """Rows a · b_j without the columns below k."""
    return _rows(shape, 0, parameters["k"])


def truncated_constant(shape: "Shape", parameters: Parameters) -> list[str]:
    """The same and the mean of what is left out."""
    from hw.multipliers.truncated_constant import correction

    constant = correction(shape, parameters["k"]) % (1 << shape.p_width)
    return _rows(shape, 0, parameters["k"], start=constant)


def truncated_variable(shape: "Shape", parameters: Parameters) -> list[str]:
    """Rows without the columns below k - 1, column k - 1 counted twice."""
    return _rows(shape, 0, parameters["k"] - 1, doubled=True)


def broken_array(shape: "Shape", parameters: Parameters) -> list[str]:
    """Rows from h on without the columns below v."""
    return _rows(shape, parameters["h"], parameters["v"])


def _rows(
    shape: "Shape", first_row: int, column: int, *, start: int = 0, doubled: bool = False
) -> list[str]:
    """Σ_j ±b_j · (a · 2^j without the columns below ``column``), from ``first_row`` on.

    A row of a signed operand that is left with its sign alone stands for what its sign bit is
    worth in its own column; if that is below ``column``, nothing is left of the row.
    """
    width, sign = shape.p_width, shape.a_width - 1
    first = max(first_row, column - sign)
    mask = (1 << width) - (1 << column)
    row = "(x << j) & MASK"
    total = _added(shape, "row + (row & DOUBLED)" if doubled else "row")
    alone = column - sign
    if doubled and shape.signed and alone >= first_row:
        total = _added(shape, f"(j == {alone} ? row << 1 : row + (row & DOUBLED))")
    return [
        f"  // columns that are kept{', and the one that counts double' if doubled else ''}",
        f"  localparam [{width - 1}:0] MASK = {_literal(mask, width)};",
        *([f"  localparam [{width - 1}:0] DOUBLED = {_literal(1 << column, width)};"] * doubled),
        *_operand_extended(shape),
        f"  reg [{width - 1}:0] row, sum;",
        "  integer j;",
        "",
        "  always @* begin",
        f"    sum = {_literal(start, width)};",
        f"    for (j = {first}; j < {shape.b_width}; j = j + 1) begin",
        f"      row = b[j] ? {row} : {width}'d0;",
        f"      sum = {total};",
        "    end",
        "  end",
        "  assign p = sum;",
        *_unused_rows(first),
    ]


def _unused_rows(first: int) -> list[str]:
    """Bits of b whose rows are left out."""
    if not first:
        return []
    return [f"  wire unused = &{{1'b0, b[{first - 1}:0]}};"]


def _added(shape: "Shape", row: str) -> str:
    """The sum and a row; that of a sign bit is subtracted."""
    if shape.signed:
        return f"j == {shape.b_width - 1} ? sum - ({row}) : sum + ({row})"
    return f"sum + {row}" if "+" not in row else f"sum + ({row})"


def lower_or(shape: "Shape", parameters: Parameters) -> list[str]:
    """Rows added, the k lowest columns by ORs; an AND of two bits of column k - 1 is a carry."""
    k, width = parameters["k"], shape.p_width
    low = (1 << k) - 1
    return [
        f"  localparam [{width - 1}:0] LOW = {_literal(low, width)};",
        *_operand_extended(shape),
        f"  reg [{width - 1}:0] row, sum, ored;",
        "  integer j;",
        "",
        "  always @* begin",
        f"    sum = {width}'d0;",
        f"    ored = {width}'d0;",
        f"    for (j = 0; j < {shape.b_width}; j = j + 1) begin",
        f"      row = b[j] ? x << j : {width}'d0;",
        f"      sum = {_added(shape, 'row & ~LOW')};",
        f"      sum = sum + ((row & ored & {_literal(1 << (k - 1), width)}) << 1);",
        "      ored = ored | (row & LOW);",
        "    end",
        "  end",
        "  assign p = sum | ored;",
    ]


def booth_approximate(shape: "Shape", parameters: Parameters) -> list[str]:
    """Radix-4 Booth rows; ±2a lacks its ones in the columns below c.

    Where the row's sign bit is below c, it lacks all of its ones.
    """
    c, width = parameters["c"], shape.p_width
    digits = (shape.b_width + (not shape.signed) + 1) // 2
    sign = shape.a_width + (not shape.signed)
    extra = 2 * digits - shape.b_width
    above = f"{{{extra}{{b[{shape.b_width - 1}]}}}}, " if shape.signed else f"{extra}'d0, "
    if not extra:
        above = ""
    return [
        *_operand_extended(shape),
        f"  wire [{2 * digits}:0] y = {{{above}b, 1'b0}};",
        f"  reg [{width - 1}:0] row, lacking, sum;",
        "  reg one, two, negative;",
        "  integer j;",
        "",
        "  always @* begin",
        f"    sum = {width}'d0;",
        f"    for (j = 0; j < {2 * digits}; j = j + 2) begin",
        "      one = y[j + 1] ^ y[j];",
        "      two = y[j + 2] ^ y[j + 1] && !one;",
        "      negative = y[j + 2] && !(y[j + 1] && y[j]);",
        f"      row = one ? x : two ? x << 1 : {width}'d0;",
        "      if (negative) row = ~row;",
        f"      lacking = {c} - j > {sign} ? ~{width}'d0",
        f"        : {c} > j ? ({width}'d1 << ({c} - j)) - {width}'d1 : {width}'d0;",
        "      if (two) row = row & ~lacking;",
        f"      sum = sum + ((row + {{{width - 1}'d0, negative}}) << j);",
        "    end",
        "  end",
        "  assign p = sum;",
    ]


def _operand_extended(shape: "Shape") -> list[str]:
    """a in the width of the product."""
    width, sign = shape.b_width, f"a[{shape.a_width - 1}]"
    above = f"{{{width}{{{sign}}}}}" if shape.signed else f"{width}'d0"
    return [f"  wire [{shape.p_width - 1}:0] x = {{{above}, a}};"]


def _signed(shape: "Shape") -> str:
    return "signed " if shape.signed else ""


def _literal(value: int, width: int) -> str:
    return f"{width}'h{value:0{-(-width // 4)}x}"


FORMULAS: Mapping[str, Formula] = {
    "array": exact,
    "booth": exact,
    "booth_approximate": booth_approximate,
    "broken_array": broken_array,
    "compressor_momeni": compressor("momeni"),
    "compressor_saturating": compressor("saturating"),
    "compressor_venkatachalam": compressor("venkatachalam"),
    "dadda": exact,
    "drum": drum,
    "iterative_log": iterative_log,
    "lower_or": lower_or,
    "mitchell": mitchell,
    "perforated": perforated,
    "recursive": recursive,
    "roba": roba,
    "truncated": truncated,
    "truncated_constant": truncated_constant,
    "truncated_operands": truncated_operands,
    "truncated_variable": truncated_variable,
    "wallace": exact,
}
"""The formula of every family."""
