"""Floating-point multipliers bit for bit: against numpy's, and against exact products rounded."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hw import InputError, read_verilog, verilog, write_text
from hw.float_cost import float_multiplier_cost, float_patterns
from hw.multipliers.floating_point import FLOAT_FORMATS, FloatFormat, float_multiplier
from hw.netlist import Netlist
from hw.simulation import simulate, unpacked

Patterns = npt.NDArray[np.int64]


def products(netlist: Netlist, a: Patterns, b: Patterns) -> Patterns:
    """What the circuit gives for pairs of bit patterns, a multiple of 64 of them."""
    stimuli = {}
    for port, patterns in zip(netlist.inputs, (a, b), strict=True):
        for bit, net in enumerate(port.nets):
            plane = np.packbits((patterns >> bit & 1).astype(np.uint8), bitorder="little")
            stimuli[net] = plane.view(np.uint64)
    nets = simulate(netlist, stimuli)
    outputs = enumerate(netlist.outputs[0].nets)
    return sum(unpacked(nets[net]).astype(np.int64) << bit for bit, net in outputs)


def special(form: FloatFormat) -> Patterns:
    """Both signs of zeros, subnormals, ends of the range, ones, all-ones fractions, inf and NaN."""
    one_fraction = (1 << form.fraction_bits) - 1
    top = (1 << form.exponent_bits) - 1
    exponents = [0, 1, 2, form.bias // 2, form.bias - 1, form.bias, form.bias + 1, top - 1, top]
    fractions = [0, 1, one_fraction // 3, one_fraction // 2, one_fraction // 2 + 1]
    fractions += [one_fraction - 1, one_fraction]
    positive = [e << form.fraction_bits | f for e in exponents for f in fractions]
    return np.array([sign << form.width - 1 | x for x in positive for sign in (0, 1)])


def pairs(form: FloatFormat, count: int) -> tuple[Patterns, Patterns]:
    """All pairs of special cases, random patterns, and products near one and both ends."""
    generator = np.random.default_rng(form.width)
    a, b = (x.ravel() for x in np.meshgrid(special(form), special(form)))
    random = generator.integers(0, 1 << form.width, (2, count))
    near = generator.integers(0, 1 << form.width, (2, count))
    exponents = near >> form.fraction_bits & ((1 << form.exponent_bits) - 1)
    wanted = generator.choice([0, 1, form.bias, 2 * form.bias, 2 * form.bias + 1], count)
    other = np.clip(wanted + form.bias - exponents[0], 0, 2 * form.bias + 1)
    near[1] += (other - exponents[1]) << form.fraction_bits
    a, b = (np.concatenate(parts) for parts in ((a, random[0], near[0]), (b, random[1], near[1])))
    whole = len(a) - len(a) % 64
    return a[:whole], b[:whole]


def value(form: FloatFormat, pattern: int) -> float:
    """The number of a pattern, subnormals being zero."""
    exponent = pattern >> form.fraction_bits & ((1 << form.exponent_bits) - 1)
    fraction = pattern & ((1 << form.fraction_bits) - 1)
    sign = -1.0 if pattern >> form.width - 1 else 1.0
    if exponent == (1 << form.exponent_bits) - 1:
        return math.nan if fraction else sign * math.inf
    significand = (1 << form.fraction_bits) + fraction if exponent else 0
    return sign * math.ldexp(significand, exponent - form.bias - form.fraction_bits)


def defined_product(form: FloatFormat, a: int, b: int) -> int:
    """The docstring of the circuit, in exact arithmetic: a double holds the product."""
    product = value(form, a) * value(form, b)
    top = (1 << form.exponent_bits) - 1
    if math.isnan(product):
        return top << form.fraction_bits | 1 << form.fraction_bits - 1
    sign = int(math.copysign(1, product) < 0) << form.width - 1
    if product == 0 or math.isinf(product):
        return sign | (0 if product == 0 else top << form.fraction_bits)
    mantissa, exponent = math.frexp(abs(product))
    whole = round(mantissa * 2.0 ** (form.fraction_bits + 1))  # ties to even
    if whole == 2 << form.fraction_bits:
        whole, exponent = whole // 2, exponent + 1
    biased = exponent - 1 + form.bias
    if biased <= 0:
        return sign
    if biased >= top:
        return sign | top << form.fraction_bits
    return sign | biased << form.fraction_bits | whole - (1 << form.fraction_bits)


@pytest.mark.parametrize("name", FLOAT_FORMATS)
def test_special_and_random_cases(name: str) -> None:
    form = FLOAT_FORMATS[name]
    a, b = pairs(form, 8_000)
    found = products(float_multiplier(name), a, b)
    expected = [defined_product(form, *pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    wrong = np.flatnonzero(found != np.array(expected))
    assert not len(wrong), [f"{a[w]:x}·{b[w]:x} = {found[w]:x}" for w in wrong[:5]]


def test_float32_against_numpy() -> None:
    """Every result that is a number, where no subnormal is in play; zeros there; NaN for NaN.

    The smallest normal number is left to the other test: numpy reaches it by rounding a subnormal.
    """
    a, b = pairs(FLOAT_FORMATS["float32"], 150_000)
    found = products(float_multiplier("float32"), a, b).astype(np.uint32)
    x, y = (patterns.astype(np.uint32).view(np.float32) for patterns in (a, b))
    with np.errstate(all="ignore"):
        product = x * y
    smallest = np.finfo(np.float32).tiny
    nan = np.isnan(product)
    assert np.isnan(found.view(np.float32)[nan]).all()
    flushed = (abs(product) < smallest) & (product != 0)
    subnormal = [(abs(z) < smallest) & (z != 0) for z in (x, y)]
    plain = ~(nan | flushed | subnormal[0] | subnormal[1] | (abs(product) == smallest))
    assert plain.sum() > 150_000
    assert np.array_equal(found[plain], product.view(np.uint32)[plain])
    assert not (found[flushed] << np.uint32(1)).any()


@pytest.mark.parametrize("name", FLOAT_FORMATS)
def test_patterns(name: str) -> None:
    form = FLOAT_FORMATS[name]
    values = np.random.default_rng(0).standard_normal(500)
    for number, pattern in zip(values, float_patterns(name, values).tolist(), strict=True):
        assert abs(value(form, pattern) - number) <= abs(number) * 2.0**-form.fraction_bits / 2


def test_ties_of_patterns_go_to_even() -> None:
    form = FLOAT_FORMATS["bfloat16"]
    ties = float_patterns("bfloat16", [1 + 2.0**-8, 1 + 3 * 2.0**-8])
    assert [value(form, pattern) for pattern in ties.tolist()] == [1.0, 1.015625]


def test_verilog_reads_back(tmp_path: Path) -> None:
    netlist = float_multiplier("bfloat16")
    write_text(tmp_path / "multiplier.v", verilog(netlist))
    back = read_verilog(tmp_path / "multiplier.v", "mul_bfloat16")
    a, b = pairs(FLOAT_FORMATS["bfloat16"], 20_000)
    assert np.array_equal(products(back, a, b), products(netlist, a, b))


def test_costs() -> None:
    """bfloat16's significands are a third as long as float32's: less of everything."""
    single, short = float_multiplier_cost("float32"), float_multiplier_cost("bfloat16")
    assert short.energy_fj < single.energy_fj / 3
    assert short.area_um2 < single.area_um2 / 3
    assert "4096 pairs of independent standard normal operands, seed 0" in single.activity
    other = float_multiplier_cost("bfloat16", seed=1)
    assert other.energy_fj == pytest.approx(short.energy_fj, rel=0.02)
    still = float_multiplier_cost("bfloat16", values=np.ones((4, 2)))
    assert still.switching_fj == 0
    with pytest.raises(InputError, match="operands must be of shape"):
        float_multiplier_cost("bfloat16", values=np.ones(4))
    with pytest.raises(InputError, match="floating-point format must be one of bfloat16, float32"):
        float_multiplier("float16")
