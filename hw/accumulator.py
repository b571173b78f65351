"""The accumulator of a multiply-accumulate unit: an adder from gates, and what an addition costs.

A parallel-prefix adder after J. Sklansky, "Conditional-sum addition logic", IRE Transactions on
Electronic Computers EC-9(2), 1960: carries by log2(width) levels of generate and propagate. It
needs no Amaranth, only the synthesis of what it costs does (Yosys).
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .cache import Cache, cached_cost
from .costs import CLOCK_MHZ, Cost, Operands
from .errors import InputError
from .liberty import CellLibrary
from .netlist import Gate, Netlist, Port

PAIRS = 4096
"""Additions drawn."""


def accumulator_width(fan_in: int, product_bits: int = 16) -> int:
    """Bits in which no sum of `fan_in` signed products overflows, whatever the multiplier computes.

    The least w with fan_in · 2^(product_bits - 1) <= 2^(w - 1) - 1.
    """
    if fan_in < 1:
        raise InputError(f"fan_in must be at least 1, not {fan_in}")
    return (fan_in << (product_bits - 1)).bit_length() + 1


class _Gates:
    """Gates in order, each on a net of its own."""

    def __init__(self, first: int) -> None:
        self.gates: list[Gate] = []
        self._next = first

    def __call__(self, kind: str, *inputs: int) -> int:
        self.gates.append(Gate(kind, inputs, (self._next,)))
        self._next += 1
        return self._next - 1


def adder(width: int) -> Netlist:
    """``p = a + b`` modulo 2^width: ports a, b and p of `width` bits."""
    if width < 2:
        raise InputError(f"an adder must be at least 2 bits wide, not {width}")
    a, b = tuple(range(2, 2 + width)), tuple(range(2 + width, 2 + 2 * width))
    gates = _Gates(2 + 2 * width)
    propagate = [gates("xor", *pair) for pair in zip(a, b, strict=True)]
    generate = [gates("and", *pair) for pair in zip(a, b, strict=True)]
    carries = _carries(gates, propagate, generate)
    above = zip(propagate[1:], carries[:-1], strict=True)
    total = (propagate[0], *(gates("xor", *pair) for pair in above))
    ports = Port("a", a), Port("b", b)
    return Netlist(f"adder{width}", ports, (Port("p", total),), tuple(gates.gates))


def _carries(gates: _Gates, propagate: list[int], generate: list[int]) -> list[int]:
    """The carry out of each bit; level d takes in those of the d bits below."""
    through, carries, distance = list(propagate), list(generate), 1
    while distance < len(carries):
        spans = [bit for bit in range(len(carries)) if bit & distance]
        below = {bit: bit // distance * distance - 1 for bit in spans}
        moved = {
            bit: gates("or", carries[bit], gates("and", through[bit], carries[below[bit]]))
            for bit in spans
        }
        joined = {bit: gates("and", through[bit], through[below[bit]]) for bit in spans}
        carries = [moved.get(bit, carry) for bit, carry in enumerate(carries)]
        through = [joined.get(bit, one) for bit, one in enumerate(through)]
        distance *= 2
    return carries


def accumulations(width: int, product_bits: int = 16, seed: int = 0) -> npt.NDArray[np.int64]:
    """`PAIRS` additions as a unit somewhere in a column sees them: (partial sum, product).

    Products are those of uniform signed operands. The partial sum is that of r such products, r
    uniform below the largest fan-in that fits `width`; by a normal distribution of their mean and
    variance. Successive ones are independent: they belong to different positions.
    """
    generator = np.random.default_rng(seed)
    half = 1 << (product_bits // 2 - 1)
    largest = max(1, ((1 << (width - 1)) - 1) >> (product_bits - 1))
    added = generator.integers(0, largest, PAIRS)
    operands = generator.integers(-half, half, (2, PAIRS))
    mean, deviation = 0.25, (4 * half * half - 1) / 12 + 0.25  # of a product; E[x^2] of an operand
    sums = mean * added + deviation * np.sqrt(added) * generator.standard_normal(PAIRS)
    limit = (1 << (width - 1)) - 1
    clipped = np.clip(np.round(sums), -limit, limit).astype(np.int64)
    return np.stack([clipped, operands[0] * operands[1]], axis=1)


def accumulator_cost(
    width: int, library: CellLibrary, cache: Cache, *, clock_mhz: float = CLOCK_MHZ
) -> Cost:
    """Of one addition of a product of 8-bit operands to a partial sum of `width` bits."""
    stream = Operands(stream=accumulations(width))
    cost = cached_cost(adder(width), library, cache, stream, clock_mhz=clock_mhz)
    return replace(cost, activity=f"{PAIRS} additions of uniform products, zero delay")
