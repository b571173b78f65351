"""What every family computes, in integers: the tables that circuits are compared with.

Nothing here knows of gates or adders, but for the compressor families, whose result depends on
which bits meet; there a compressor is a table of values and an adder is a sum.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from hw import parse_multiplier_name
from hw.multipliers import Shape

Table = npt.NDArray[np.int64]
Parameters = dict[str, int]


def operand(width: int, signed: bool) -> Table:
    """The value of each bit pattern."""
    patterns = np.arange(1 << width)
    return (
        np.where(patterns >> (width - 1), patterns - (1 << width), patterns) if signed else patterns
    )


def wrapped(table: Table, shape: Shape) -> Table:
    """Modulo 2^p_width, two's complement where signed."""
    modulus = 1 << shape.p_width
    table = table % modulus
    return np.where(table >= modulus // 2, table - modulus, table) if shape.signed else table


def defined_table(name: str) -> Table:
    """The product of every pair of bit patterns, row = first operand."""
    parsed = parse_multiplier_name(name)
    parameters = dict(parsed.named_parameters())
    return wrapped(DEFINITIONS[parsed.family.name](parsed.shape, parameters), parsed.shape)


def operands(shape: Shape) -> tuple[Table, Table]:
    a = operand(shape.a_width, shape.signed)[:, None]
    return np.broadcast_arrays(a, operand(shape.b_width, shape.signed)[None, :])


def exact(shape: Shape, parameters: Parameters) -> Table:
    a, b = operands(shape)
    return a * b


# Weighted sums of bit products.


def weights(shape: Shape) -> Iterable[tuple[int, int, int]]:
    """(i, j, weight of a_i·b_j)."""
    for i in range(shape.a_width):
        for j in range(shape.b_width):
            signs = (i == shape.a_width - 1) != (j == shape.b_width - 1)
            yield i, j, (-1 if shape.signed and signs else 1) << (i + j)


def weighted_sum(shape: Shape, share: Callable[[int, int], int]) -> Table:
    """Σ share(i, j) · weight · a_i · b_j."""
    a, b = operands(shape)
    return sum(
        share(i, j) * weight * (a >> i & 1) * (b >> j & 1) for i, j, weight in weights(shape)
    ) + np.zeros_like(a)


def truncated(shape: Shape, parameters: Parameters) -> Table:
    return weighted_sum(shape, lambda i, j: i + j >= parameters["k"])


def truncated_variable(shape: Shape, parameters: Parameters) -> Table:
    k = parameters["k"]
    return weighted_sum(shape, lambda i, j: (i + j >= k) + 2 * (i + j == k - 1))


def truncated_constant(shape: Shape, parameters: Parameters) -> Table:
    k = parameters["k"]
    mean_left_out = weighted_sum(shape, lambda i, j: i + j < k).mean()
    return truncated(shape, parameters) + int(np.floor(mean_left_out / 2**k + 0.5)) * 2**k


def truncated_operands(shape: Shape, parameters: Parameters) -> Table:
    a, b = operands(shape)
    return (a >> parameters["k"] << parameters["k"]) * (b >> parameters["k"] << parameters["k"])


def broken_array(shape: Shape, parameters: Parameters) -> Table:
    return weighted_sum(shape, lambda i, j: j >= parameters["h"] and i + j >= parameters["v"])


def perforated(shape: Shape, parameters: Parameters) -> Table:
    first, rows = parameters["f"], parameters["r"]
    return weighted_sum(shape, lambda i, j: not first <= j < first + rows)


def lower_or(shape: Shape, parameters: Parameters) -> Table:
    """Row after row; an unsigned lower part, the rest exact."""
    k = parameters["k"]
    a, b = operands(shape)
    pattern = a & ((1 << shape.a_width) - 1)
    low, carries = np.zeros_like(a), np.zeros_like(a)
    for j in range(shape.b_width):
        row = (pattern << j) * (b >> j & 1) & ((1 << k) - 1)
        carries += (low >> (k - 1)) & (row >> (k - 1))
        low |= row
    return weighted_sum(shape, lambda i, j: i + j >= k) + low + (carries << k)


# Products of magnitudes.


def of_magnitudes(function: Callable[[Table, Table, Shape, Parameters], Table]) -> Callable:
    def definition(shape: Shape, parameters: Parameters) -> Table:
        a, b = operands(shape)
        return np.sign(a) * np.sign(b) * function(abs(a), abs(b), shape, parameters)

    return definition


def of_magnitudes_with_zero(
    function: Callable[[Table, Table, Shape, Parameters], Table],
) -> Callable:
    """Where a zero operand does not give zero: its sign counts as positive."""

    def definition(shape: Shape, parameters: Parameters) -> Table:
        a, b = operands(shape)
        sign = np.where((a < 0) != (b < 0), -1, 1)
        return sign * function(abs(a), abs(b), shape, parameters)

    return definition


def recursive(a: Table, b: Table, shape: Shape, parameters: Parameters) -> Table:
    total = np.zeros_like(a)
    for i in range((shape.a_width + 1) // 2):
        for j in range((shape.b_width + 1) // 2):
            x, y = a >> (2 * i) & 3, b >> (2 * j) & 3
            lacks = 2 * ((x == 3) & (y == 3) & (i + j < parameters["d"]))
            total += (x * y - lacks) * 4 ** (i + j)
    return total


def exponent(x: Table) -> Table:
    """⌊log2 x⌋, and 0 for 0."""
    return np.floor(np.log2(np.maximum(x, 1))).astype(np.int64)


def drum(a: Table, b: Table, shape: Shape, parameters: Parameters) -> Table:
    def kept(x: Table) -> Table:
        cut = np.maximum(exponent(x) - parameters["k"] + 1, 0)
        return np.where(cut > 0, (x >> cut | 1) << cut, x)

    return kept(a) * kept(b)


def mitchell(a: Table, b: Table, shape: Shape, parameters: Parameters) -> Table:
    m, n = exponent(a), exponent(b)
    fractions = a / 2.0**m - 1 + b / 2.0**n - 1
    mantissa = np.where(fractions < 1, 1 + fractions, 2 * fractions)
    product = np.floor(mantissa * 2.0 ** (m + n)).astype(np.int64)
    return np.where((a == 0) | (b == 0), 0, product)


def iterative_log(a: Table, b: Table, shape: Shape, parameters: Parameters) -> Table:
    total = np.zeros_like(a)
    for _ in range(parameters["i"] + 1):
        a_power, b_power = (np.where(x > 0, 1 << exponent(x), 0) for x in (a, b))
        a_rest, b_rest = a - a_power, b - b_power
        total = total + np.where((a > 0) & (b > 0), a * b - a_rest * b_rest, 0)
        a, b = a_rest, b_rest
    return total


def roba(a: Table, b: Table, shape: Shape, parameters: Parameters) -> Table:
    def nearest(x: Table) -> Table:
        below = np.where(x > 0, 1 << exponent(x), 0)
        up = (x - below >= 2 * below - x) & (x > 3)
        return np.where(up, 2 * below, below)

    A, B = nearest(a), nearest(b)
    return a * b - (A - a) * (B - b)


COMPRESSED = {
    "momeni": {0b0000: 1, 0b0011: 1, 0b1100: 1, 0b1111: 3},
    "venkatachalam": {0b0101: 1, 0b0110: 1, 0b1001: 1, 0b1010: 1, 0b1111: 3},
    "saturating": {0b1111: 3},
}
"""Where a compressor's value is not the number of ones; first input bit 0."""


def compressor(design: str) -> Callable[[Table, Table, Shape, Parameters], Table]:
    value = np.array([COMPRESSED[design].get(x, x.bit_count()) for x in range(16)])

    def product(a: Table, b: Table, shape: Shape, parameters: Parameters) -> Table:
        columns: dict[int, list[Table]] = defaultdict(list)
        for j in range(shape.b_width):
            for i in range(shape.a_width):
                columns[i + j].append((a >> i & 1) * (b >> j & 1))
        while max(len(bits) for bits in columns.values()) > 2:
            columns = stage(columns, value, parameters["k"])
        return sum(sum(bits) << column for column, bits in columns.items())

    return product


def stage(columns: dict[int, list[Table]], value: Table, k: int) -> dict[int, list[Table]]:
    after: dict[int, list[Table]] = defaultdict(list)
    for column in sorted(columns):
        bits = columns[column]
        while len(bits) > 2:
            taken = 4 if column < k and len(bits) > 3 else 3
            index = sum(bit << place for place, bit in enumerate(bits[:taken]))
            total = value[index] if taken == 4 else sum(bits[:3])
            bits = bits[taken:]
            after[column].append(total & 1)
            after[column + 1].append(total >> 1)
        after[column] += bits
    return after


def booth_approximate(shape: Shape, parameters: Parameters) -> Table:
    """Rows as integers of infinitely many bits; ±2a lacks its ones below column c.

    Where the row's sign bit is below it, all of its ones: they repeat that bit.
    """
    sign = shape.a_width + (not shape.signed)
    a, b = operands(shape)
    total = np.zeros_like(a)
    for j in range(shape.b_width // 2 + 1):
        low = b >> (2 * j - 1) & 1 if j else 0
        digit = low + (b >> (2 * j) & 1) - 2 * (b >> (2 * j + 1) & 1)
        ones = np.where(digit < 0, ~(-digit * a), digit * a)  # without the one of a negative row
        below = max(0, parameters["c"] - 2 * j)
        lacks = ones if below > sign else ones & ((1 << below) - 1)
        total += (ones + (digit < 0) - np.where(abs(digit) == 2, lacks, 0)) << (2 * j)
    return total


DEFINITIONS: dict[str, Callable[[Shape, Parameters], Table]] = {
    "array": exact,
    "booth": exact,
    "booth_approximate": booth_approximate,
    "broken_array": broken_array,
    "compressor_momeni": of_magnitudes_with_zero(compressor("momeni")),
    "compressor_saturating": of_magnitudes(compressor("saturating")),
    "compressor_venkatachalam": of_magnitudes(compressor("venkatachalam")),
    "dadda": exact,
    "drum": of_magnitudes(drum),
    "iterative_log": of_magnitudes(iterative_log),
    "lower_or": lower_or,
    "mitchell": of_magnitudes(mitchell),
    "perforated": perforated,
    "recursive": of_magnitudes(recursive),
    "roba": of_magnitudes(roba),
    "truncated": truncated,
    "truncated_constant": truncated_constant,
    "truncated_operands": truncated_operands,
    "truncated_variable": truncated_variable,
    "wallace": exact,
}
