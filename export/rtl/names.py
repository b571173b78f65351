"""Names of the modules that a multiplier is written as: prefixed, and legal in Verilog-2001."""

import re
from dataclasses import dataclass

from hw.errors import InputError

__all__ = ["PREFIX", "ModuleNames"]

PREFIX = "cosearch_"
"""What every module's name begins with, so that none is a reserved word or another design's."""


@dataclass(frozen=True)
class ModuleNames:
    """The modules of the multiplier of that name; each lies in ``rtl/src/<module>.v``."""

    multiplier: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.multiplier):
            raise InputError(
                "multiplier must have a name of letters, digits and underscores to be written as "
                f"Verilog, not {self.multiplier!r}"
            )

    @property
    def structural(self) -> str:
        """Gates; ports a, b, p."""
        return f"{PREFIX}{self.multiplier}"

    @property
    def behavioural(self) -> str:
        """What they compute, as a formula; ports a, b, p."""
        return f"{self.structural}_behavioural"

    @property
    def pipelined(self) -> str:
        """The gates with registers between them; parameter STAGES, ports clk, a, b, p."""
        return f"{self.structural}_pipelined"

    def converted(self, signed: bool) -> str:
        """The multiplier, itself ``signed`` or not, for operands of the other kind."""
        return f"{self.structural}_{'unsigned' if signed else 'signed'}"

    def all(self, signed: bool) -> tuple[str, ...]:
        """Every module of the multiplier, itself ``signed`` or not."""
        return self.structural, self.behavioural, self.pipelined, self.converted(signed)


def source_path(module: str) -> str:
    """Where a module lies, under ``rtl/``."""
    return f"src/{module}.v"
