"""Multipliers by name: ``mul8s_truncated_k6`` is 8×8 bits, signed, family truncated, k = 6.

Unequal widths are written ``mul8x4u_array``, the first operand's first. A name is canonical: what
it parses to is written back as the same name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from amaranth.lib.wiring import Component

from ..amaranth_netlist import netlist_from_component
from ..errors import InputError, did_you_mean, unknown_name
from . import (
    array,
    booth,
    broken_array,
    compressors,
    dadda,
    drum,
    iterative_log,
    lower_or,
    mitchell,
    perforated,
    recursive,
    roba,
    truncated,
    truncated_constant,
    truncated_operands,
    truncated_variable,
    wallace,
)
from .multiplier import Family, Multiplier, Shape
from .saved import find_multiplier, parse_saved_name

FAMILIES: Mapping[str, Family] = {
    "array": array.FAMILY,
    "booth": booth.EXACT,
    "booth_approximate": booth.APPROXIMATE,
    "broken_array": broken_array.FAMILY,
    "compressor_momeni": compressors.MOMENI,
    "compressor_saturating": compressors.SATURATING,
    "compressor_venkatachalam": compressors.VENKATACHALAM,
    "dadda": dadda.FAMILY,
    "drum": drum.FAMILY,
    "iterative_log": iterative_log.FAMILY,
    "lower_or": lower_or.FAMILY,
    "mitchell": mitchell.FAMILY,
    "perforated": perforated.FAMILY,
    "recursive": recursive.FAMILY,
    "roba": roba.FAMILY,
    "truncated": truncated.FAMILY,
    "truncated_constant": truncated_constant.FAMILY,
    "truncated_operands": truncated_operands.FAMILY,
    "truncated_variable": truncated_variable.FAMILY,
    "wallace": wallace.FAMILY,
}

_DESIGNS = (
    "array",
    *(f"truncated_k{k}" for k in range(2, 10)),
    *(
        f"broken_array_h{h}_v{v}"
        for h, v in ((1, 5), (1, 6), (2, 5), (2, 6), (2, 7), (3, 7), (3, 8))
    ),
    *("wallace", "dadda", "booth", "mitchell", "roba"),
    *(f"truncated_variable_k{k}" for k in (5, 7, 9)),
    *(f"truncated_constant_k{k}" for k in (7, 9)),
    *(f"truncated_operands_k{k}" for k in (1, 2, 3)),
    *(f"perforated_f{f}_r{r}" for f, r in ((0, 1), (0, 2), (0, 3), (2, 2))),
    *(f"recursive_d{d}" for d in (2, 4, 7)),
    *("compressor_momeni_k8", "compressor_venkatachalam_k8", "compressor_venkatachalam_k11"),
    *("compressor_saturating_k8", "compressor_saturating_k16"),
    *(f"lower_or_k{k}" for k in (5, 6, 7)),
    *(f"drum_k{k}" for k in (3, 4, 5, 6)),
    *(f"iterative_log_i{i}" for i in (0, 1, 2)),
)
_SIGNED_DESIGNS = (*_DESIGNS, *(f"booth_approximate_c{c}" for c in (4, 6, 8)))
_UNSIGNED_DESIGNS = (*_DESIGNS, "lower_or_k8", "lower_or_k9")
"""Unsigned approximate Booth products fall below zero and wrap; signed ORs end at the sign."""
CATALOGUE: tuple[str, ...] = tuple(
    f"mul8{sign}_{design}"
    for sign, designs in (("s", _SIGNED_DESIGNS), ("u", _UNSIGNED_DESIGNS))
    for design in designs
)
"""The built-in design points, 8×8 bits, signed and unsigned."""

CIRCUITS = Path("circuits")
"""Where saved circuits are looked for if not told otherwise, in the working folder."""

MIN_WIDTH, MAX_WIDTH = 2, 32
_NAME = re.compile(r"mul(\d+)(?:x(\d+))?([su])_([a-z]+(?:_[a-z]{2,})*)((?:_[a-z]\d+)*)")


@dataclass(frozen=True)
class MultiplierName:
    """What a name says, its parameters in the family's order."""

    family: Family
    shape: Shape
    parameters: tuple[int, ...]

    def __post_init__(self) -> None:
        for what, width in (("first", self.shape.a_width), ("second", self.shape.b_width)):
            if not MIN_WIDTH <= width <= MAX_WIDTH:
                raise InputError(
                    f"{what} operand must have {MIN_WIDTH} to {MAX_WIDTH} bits, not {width}"
                )
        for parameter, value in zip(self.family.parameters, self.parameters, strict=True):
            parameter.check(value, self.shape, self.family.name)
        if self.family.check is not None:
            self.family.check(self.shape, self.parameters)

    def __str__(self) -> str:
        a_width, b_width = self.shape.a_width, self.shape.b_width
        widths = f"{a_width}" if a_width == b_width else f"{a_width}x{b_width}"
        letters = [f"{key}{value}" for key, value in self.named_parameters()]
        return "_".join(
            [f"mul{widths}{'s' if self.shape.signed else 'u'}", self.family.name, *letters]
        )

    def named_parameters(self) -> tuple[tuple[str, int], ...]:
        letters = (parameter.letter for parameter in self.family.parameters)
        return tuple(zip(letters, self.parameters, strict=True))

    def component(self) -> Component:
        """A fresh Amaranth component."""
        return self.family.component(self.shape, self.parameters)


def multiplier_shape(name: str) -> Shape:
    """Widths and sign that a name says: of a family's multiplier or of a saved circuit."""
    saved = parse_saved_name(name)
    return parse_multiplier_name(name).shape if saved is None else saved.shape


def parse_multiplier_name(name: str) -> MultiplierName:
    """What ``name`` says, nothing built; ``InputError`` for what no family knows or allows."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            "multiplier must be named like 'mul8s_array' or 'mul8u_truncated_k6', "
            f"not {name!r}{did_you_mean(name, CATALOGUE)}"
        )
    a_width, b_width, sign, family_name, letters = match.groups()
    if family_name not in FAMILIES:
        raise unknown_name(f"family of multiplier {name!r}", family_name, FAMILIES)
    family = FAMILIES[family_name]
    shape = Shape(int(a_width), int(b_width or a_width), sign == "s")
    parsed = MultiplierName(family, shape, _parameters(family, letters, name))
    if str(parsed) != name:
        raise InputError(f"multiplier must be named {str(parsed)!r}, not {name!r}")
    return parsed


@cache
def build_multiplier(name: str, circuits: Path = CIRCUITS) -> Multiplier:
    """The multiplier of that name, its netlist built from gates.

    A saved circuit (``saved.py``: its name ends in its digest) is read from folder ``circuits``.
    """
    if parse_saved_name(name) is not None:
        return find_multiplier(name, circuits)
    parsed = parse_multiplier_name(name)
    return Multiplier(
        name=name,
        family=parsed.family.name,
        parameters=parsed.named_parameters(),
        a_width=parsed.shape.a_width,
        b_width=parsed.shape.b_width,
        signed=parsed.shape.signed,
        netlist=netlist_from_component(parsed.component(), name),
        origin=parsed.family.source,
        description=parsed,
    )


def _parameters(family: Family, letters: str, name: str) -> tuple[int, ...]:
    given = [(part[0], int(part[1:])) for part in letters.split("_") if part]
    expected = [parameter.letter for parameter in family.parameters]
    if [letter for letter, _ in given] != expected:
        form = "".join(f"_{letter}<number>" for letter in expected) or "no parameters"
        raise InputError(
            f"parameters of multiplier {name!r} must be {form}, not {letters or 'none'!r}"
            f"{did_you_mean(name, CATALOGUE)}"
        )
    return tuple(value for _, value in given)
