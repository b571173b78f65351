"""Formulas of the families that multiply magnitudes: Verilog between x, y and ``product``.

x and y are the operands, or their absolute values where the multiplier is signed; ``product`` is
negated where the signs differ.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hw.multipliers import Shape

__all__ = ["between_magnitudes", "drum", "iterative_log", "mitchell", "recursive", "roba"]

Parameters = Mapping[str, int]


def between_magnitudes(shape: "Shape", body: list[str]) -> list[str]:
    """The body with what makes x, y of a, b and p of ``product``."""
    a, b = shape.a_width - 1, shape.b_width - 1
    if not shape.signed:
        operands = [f"  wire [{a}:0] x = a;", f"  wire [{b}:0] y = b;"]
        return [*operands, "", *body, "  assign p = product;"]
    return [
        "  // magnitudes",
        f"  wire [{a}:0] x = a[{a}] ? -a : a;",
        f"  wire [{b}:0] y = b[{b}] ? -b : b;",
        "",
        *body,
        "  // the sign",
        f"  assign p = a[{a}] ^ b[{b}] ? -product : product;",
    ]


def drum(shape: "Shape", parameters: Parameters) -> list[str]:
    """The k leading bits of each operand, the lowest of them set."""
    k = parameters["k"]
    functions = _functions(
        shape,
        "kept",
        lambda name, width: [
            f"{name} = value;",
            f"for (i = {k}; i < {width}; i = i + 1)",
            f"  if (value[i]) {name} = (value | ({width}'d1 << (i - {k - 1})))",
            f"    & (~{width}'d0 << (i - {k - 1}));",
        ],
    )
    x, y = _names(shape, "kept")
    product = f"  wire [{shape.p_width - 1}:0] product = {x}(x) * {y}(y);"
    return between_magnitudes(shape, [*functions, product])


def iterative_log(shape: "Shape", parameters: Parameters) -> list[str]:
    """x·y less the product of what is left of them without their i + 1 leading ones."""
    functions = _functions(
        shape,
        "rest",
        lambda name, width: [
            f"{name} = {width}'d0;",
            f"for (i = 0; i < {width}; i = i + 1)",
            f"  if (value[i]) {name} = value & ~(~{width}'d0 << i);",
        ],
    )
    rests = ["x", "y"]
    for _ in range(parameters["i"] + 1):
        names = _names(shape, "rest")
        rests = [f"{name}({rest})" for name, rest in zip(names, rests, strict=True)]
    product = f"  wire [{shape.p_width - 1}:0] product = x * y - {rests[0]} * {rests[1]};"
    return between_magnitudes(shape, [*functions, product])


def mitchell(shape: "Shape", parameters: Parameters) -> list[str]:
    """2^(m+n)·(1 + f) for the fractions' sum f below one, else 2^(m+n+1)·f, rounded down."""
    fraction = max(shape.a_width, shape.b_width) - 1
    width = fraction + shape.p_width
    functions = _functions(
        shape,
        "exponent",
        lambda name, bits: [
            f"{name} = 32'd0;",
            f"for (i = 0; i < {bits}; i = i + 1)",
            f"  if (value[i]) {name} = i;",
        ],
        result_width=32,
    )
    names = _names(shape, "exponent")
    terms = [
        f"({{{width - bits}'d0, {operand}}} << ({fraction} - {name}({operand})))"
        for name, (operand, bits) in zip(names, _operands(shape), strict=True)
    ]
    one = f"{width}'d{1 << fraction}"
    body = [
        *functions,
        f"  // fractions and mantissa in units of 2^-{fraction}",
        f"  wire [{width - 1}:0] sum = " + "\n    + ".join(terms) + f" - {width}'d{2 << fraction};",
        f"  wire [{width - 1}:0] mantissa = sum < {one} ? sum + {one} : sum << 1;",
        f"  wire [{width - 1}:0] power = mantissa << ({names[0]}(x) + {names[1]}(y));",
        f"  wire [{shape.p_width - 1}:0] product =",
        f"    x == {shape.a_width}'d0 || y == {shape.b_width}'d0 ? {shape.p_width}'d0"
        f" : power[{width - 1}:{fraction}];",
        f"  wire unused = &{{1'b0, power[{fraction - 1}:0]}};",
    ]
    return between_magnitudes(shape, body)


def roba(shape: "Shape", parameters: Parameters) -> list[str]:
    """X·y + Y·x - X·Y with X and Y the powers of two nearest to x and y.

    The larger of two equally near ones, but 2 for 3.
    """
    p = shape.p_width
    functions = _functions(
        shape,
        "nearest",
        lambda name, width: [
            f"{name} = {p}'d0;",
            f"for (i = 0; i < {width}; i = i + 1)",
            f"  if (value[i]) {name} = {p}'d1 << i;",
            f"for (i = 2; i < {width}; i = i + 1)",
            f"  if (value >> i == {width}'d1 && value[i - 1]) {name} = {p}'d2 << i;",
        ],
        result_width=p,
    )
    x, y = _names(shape, "nearest")
    body = [
        *functions,
        f"  wire [{p - 1}:0] x_power = {x}(x);",
        f"  wire [{p - 1}:0] y_power = {y}(y);",
        f"  wire [{p - 1}:0] product = x_power * {{{p - shape.b_width}'d0, y}}",
        f"    + y_power * {{{p - shape.a_width}'d0, x}} - x_power * y_power;",
    ]
    return between_magnitudes(shape, body)


def recursive(shape: "Shape", parameters: Parameters) -> list[str]:
    """Products of digits of two bits; on the d lowest diagonals 3 · 3 is 7."""
    d, p = parameters["d"], shape.p_width
    digits = {name: -(-width // 2) for name, width in _operands(shape)}
    operands = [
        f"  wire [{2 * digits[name] - 1}:0] digits_{name} = "
        + (f"{{1'b0, {name}}};" if width % 2 else f"{name};")
        for name, width in _operands(shape)
    ]
    body = [
        *operands,
        "  reg [3:0] block;",
        f"  reg [{p - 1}:0] product;",
        "  integer i, j;",
        "  always @* begin",
        f"    product = {p}'d0;",
        f"    for (i = 0; i < {digits['x']}; i = i + 1)",
        f"      for (j = 0; j < {digits['y']}; j = j + 1) begin",
        "        block = digits_x[2 * i +: 2] * digits_y[2 * j +: 2];",
        f"        if (block == 4'd9 && i + j < {d}) block = 4'd7;",
        f"        product = product + ({_extended('block', 4, p)} << (2 * (i + j)));",
        "      end",
        "  end",
    ]
    return between_magnitudes(shape, body)


def _extended(name: str, width: int, to: int) -> str:
    return name if width == to else f"{{{to - width}'d0, {name}}}"


def _operands(shape: "Shape") -> tuple[tuple[str, int], tuple[str, int]]:
    return ("x", shape.a_width), ("y", shape.b_width)


def _names(shape: "Shape", name: str) -> tuple[str, str]:
    """The functions of x and of y: one where both have the same width."""
    if shape.a_width == shape.b_width:
        return name, name
    return f"{name}_x", f"{name}_y"


def _functions(
    shape: "Shape",
    name: str,
    statements: Callable[[str, int], list[str]],
    *,
    result_width: int | None = None,
) -> list[str]:
    """The functions called as `_names` says, of ``value``, with a loop variable ``i``.

    ``statements`` of a function's name and its argument's width; the result is as wide if not told
    otherwise.
    """
    widths = dict(zip(_names(shape, name), (shape.a_width, shape.b_width), strict=True))
    return [
        line
        for function, width in widths.items()
        for line in (
            f"  function [{(result_width or width) - 1}:0] {function};",
            f"    input [{width - 1}:0] value;",
            "    integer i;",
            "    begin",
            *(f"      {statement}" for statement in statements(function, width)),
            "    end",
            "  endfunction",
            "",
        )
    ]
