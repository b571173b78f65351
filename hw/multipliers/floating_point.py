"""IEEE 754 multipliers from gates: binary32 and bfloat16, the reference for "energy against fp32".

Round to nearest, ties to even. Subnormal numbers are not supported, as in most accelerators:
subnormal operands count as zeros, and a result that is below the smallest normal number after
rounding (with as many digits as a normal one) is a zero of its sign. Infinities are as in IEEE 754,
and so is overflow. Every NaN that comes out is the quiet one of sign 0 and fraction 100…0: payloads
are not carried over, and inf · 0 is that NaN. There are no flags.

The significands, hidden one included, are multiplied by a Dadda tree; exponents ripple.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from ..amaranth_netlist import netlist_from_component
from ..errors import unknown_name
from ..netlist import Netlist
from .gates import Bit, Bits, Gates
from .reduction import AdderArray, Columns, dadda_sum, place_bits


@dataclass(frozen=True)
class FloatFormat:
    """A binary interchange format: sign, exponent, fraction, from the highest bit down."""

    name: str
    exponent_bits: int
    fraction_bits: int

    @property
    def width(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - 1


FLOAT_FORMATS: Mapping[str, FloatFormat] = {
    "float32": FloatFormat("float32", 8, 23),
    "bfloat16": FloatFormat("bfloat16", 8, 7),
}


@cache
def float_multiplier(name: str) -> Netlist:
    """The multiplier of a format: ports a, b and p of its width, bit patterns."""
    if name not in FLOAT_FORMATS:
        raise unknown_name("floating-point format", name, FLOAT_FORMATS)
    return netlist_from_component(FloatMultiplier(FLOAT_FORMATS[name]), f"mul_{name}")


@dataclass(frozen=True)
class _Operand:
    """A number taken apart; ``significand`` has its hidden bit, which a zero lacks."""

    sign: Bit
    exponent: Bits
    significand: Bits
    zero: Bit
    infinite: Bit
    nan: Bit


@dataclass(frozen=True)
class _Rounded:
    """A product's fraction, and by how much its exponent is above the operands' sum."""

    fraction: Bits
    moved: Bit
    carried: Bit


class FloatMultiplier(Component):  # type: ignore[misc] # Amaranth has no types
    """p = a · b in one format, combinational."""

    def __init__(self, form: FloatFormat) -> None:
        super().__init__({"a": In(form.width), "b": In(form.width), "p": Out(form.width)})
        self.form = form

    def elaborate(self, platform: object) -> Module:
        m = Module()
        gates = Gates(m)
        x, y = (_operand(gates, list(port), self.form) for port in (self.a, self.b))
        rounded = _rounded(gates, _product(m, gates, x.significand, y.significand))
        exponent = _exponent(gates, x, y, rounded, self.form)
        for at, bit in enumerate(_result(gates, x, y, exponent, rounded.fraction, self.form)):
            m.d.comb += self.p[at].eq(bit)
        return m


def _operand(gates: Gates, bits: Bits, form: FloatFormat) -> _Operand:
    fraction, exponent = bits[: form.fraction_bits], bits[form.fraction_bits : -1]
    normal = gates.some(exponent, "normal")
    top = gates.every(exponent, "top")
    some = gates.some(fraction, "fraction")
    return _Operand(
        sign=bits[-1],
        exponent=exponent,
        significand=[*fraction, normal],
        zero=gates.inverted(normal, "zero"),
        infinite=gates.both(top, gates.inverted(some), "infinite"),
        nan=gates.both(top, some, "nan"),
    )


def _product(m: Module, gates: Gates, x: Bits, y: Bits) -> Bits:
    columns: Columns = {}
    for row, bit in enumerate(y):
        place_bits(columns, row, [gates.both(other, bit, "product") for other in x])
    total = dadda_sum(AdderArray(m, 0), columns, len(x) + len(y))
    return [total.get(column, 0) for column in range(len(x) + len(y))]


def _rounded(gates: Gates, product: Bits) -> _Rounded:
    """The fraction of a product of significands of n bits: below its leading one, which is in
    the highest of 2n places or in the one below."""
    n = len(product) // 2
    top = product[-1]
    kept = [gates.chosen(top, product[n + at], product[n - 1 + at], "kept") for at in range(n - 1)]
    half = gates.chosen(top, product[n - 1], product[n - 2], "half")
    low = gates.some(product[: n - 2], "low")
    sticky = gates.either(low, gates.both(top, product[n - 2]), "sticky")
    up = gates.both(half, gates.either(sticky, kept[0]), "up")
    *fraction, carried = gates.total(kept, [], up)
    return _Rounded(fraction, top, carried)


def _exponent(gates: Gates, x: _Operand, y: _Operand, rounded: _Rounded, form: FloatFormat) -> Bits:
    """The biased exponent in two's complement, two bits longer than it should be."""
    total = gates.total(x.exponent, y.exponent, rounded.moved)
    total = gates.total(total, [], rounded.carried)
    bias: Bits = [form.bias >> at & 1 for at in range(len(total))]
    return gates.difference(total, bias)


def _result(
    gates: Gates, x: _Operand, y: _Operand, exponent: Bits, fraction: Bits, form: FloatFormat
) -> Bits:
    """Sign, exponent and fraction, where need be those of a zero, an infinity or a NaN."""
    below = gates.either(exponent[-1], gates.inverted(gates.some(exponent)), "below")
    full = gates.every(exponent[: form.exponent_bits])
    above = gates.both(gates.either(exponent[-2], full), gates.inverted(exponent[-1]), "above")
    nan = gates.some(
        [x.nan, y.nan, gates.both(x.infinite, y.zero), gates.both(y.infinite, x.zero)], "nan"
    )
    infinite = gates.some([x.infinite, y.infinite, above], "infinite")
    zero = gates.some([x.zero, y.zero, below], "zero")
    top = gates.either(infinite, nan, "top")
    keeps_fraction = gates.inverted(gates.either(zero, top), "keeps_fraction")
    fraction = [gates.both(bit, keeps_fraction, "fraction") for bit in fraction]
    fraction[-1] = gates.either(fraction[-1], nan, "quiet")
    keeps_exponent = gates.inverted(zero, "keeps_exponent")
    magnitude = [
        gates.either(gates.both(bit, keeps_exponent), top, "exponent")
        for bit in exponent[: form.exponent_bits]
    ]
    sign = gates.both(gates.differ(x.sign, y.sign), gates.inverted(nan), "sign")
    return [*fraction, *magnitude, sign]
