"""The hardware a network is costed on: a weight-stationary array and the memories beside it.

Clocks are those of ``hw.array``; energies by line are in ``cosearch.energy_lines``.
"""

from dataclasses import dataclass, replace

from cosearch.array_figures import FILE, Addition, ArrayFigures
from cosearch.config import Hardware
from hw.accumulator import accumulator_width
from hw.array import ArraySchedule, LayerShape
from hw.errors import InputError

__all__ = ["ArrayModel"]

FLOAT_ADDITION_FJ = 900.0
"""32-bit floating-point addition at 45 nm: M. Horowitz, "Computing's energy problem (and what we
can do about it)", ISSCC 2014.
"""


@dataclass(frozen=True)
class ArrayModel:
    """Settings and synthesised figures of an array whose operands are so many bits wide.

    figures: None where the run has none; then only multiplications and memories have an energy.
    """

    hardware: Hardware
    figures: ArrayFigures | None
    operand_bits: int = 8
    is_float: bool = False

    def in_float32(self) -> "ArrayModel":
        """The same array for the network in fp32."""
        return replace(self, operand_bits=32, is_float=True)

    @property
    def known(self) -> ArrayFigures:
        """The figures; InputError without them."""
        if self.figures is None:
            raise InputError(
                f"luts/{FILE} must exist for the energy and delay of accumulators, it is missing; "
                "run: cosearch lut --force"
            )
        return self.figures

    def sum_bits(self, fan_in: int) -> int:
        """Bits of a partial sum: as many as the fan-in needs, at most the array's."""
        if self.is_float:
            return self.operand_bits
        return min(accumulator_width(fan_in), self.hardware.accumulator_width)

    def addition_fj(self, fan_in: int) -> float:
        """Energy of adding a product to a partial sum."""
        if self.is_float:
            return FLOAT_ADDITION_FJ
        return self.known.addition(self.sum_bits(fan_in)).energy_fj

    def register_fj(self, fan_in: int) -> float:
        """Energy of a unit's registers for one multiplication (docs/array.md, "Resources").

        Each is clocked; half the bits of activation, product and partial sum have an edge, as those
        of uniform operands. Weights rest. Idle units count as gated.
        """
        operand, total = self.operand_bits, self.sum_bits(fan_in)
        product = self._product_bits * self.hardware.product_register
        bits = operand + 2 + 2 * (operand + 1) + product + total
        edges = (operand + product + total) / 2
        return bits * self.hardware.register_clock_fj + edges * self.hardware.register_edge_fj

    def schedule(self, layer: LayerShape) -> ArraySchedule:
        """As ``hw.array.layer_clocks`` makes it."""
        rows, columns = self.hardware.array_rows, self.hardware.array_columns
        latency = rows + columns - 1 + self.hardware.product_register
        return ArraySchedule(rows, columns, layer, latency)

    def period_ps(self, multiplier_delay_ps: float) -> float:
        """The least period of a clock, for the slowest multiplier that is used."""
        adder = self.accumulator.delay_ps
        if self.hardware.product_register:
            return max(multiplier_delay_ps, adder)
        return multiplier_delay_ps + adder

    @property
    def accumulator(self) -> Addition:
        """The array's adder, at its full width."""
        return self.known.addition(self.hardware.accumulator_width)

    @property
    def _product_bits(self) -> int:
        return self.operand_bits if self.is_float else 2 * self.operand_bits
