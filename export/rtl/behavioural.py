"""What a multiplier computes, as behavioural Verilog-2001: its family's formula, or its table."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .formulas import FORMULAS
from .structural import comment

if TYPE_CHECKING:
    from hw import Multiplier
    from hw.multipliers import Shape

__all__ = ["behavioural_verilog"]


def behavioural_verilog(
    multiplier: "Multiplier", table: npt.NDArray[np.int32], module: str, header: str
) -> str:
    """The multiplier as one module with ports a, b and p.

    ``table`` (2**a_width, 2**b_width) is written out, a row a case, where no family describes the
    multiplier.
    """
    from hw.multipliers import Shape

    shape = Shape(multiplier.a_width, multiplier.b_width, multiplier.signed)
    if multiplier.description is None:
        body = _rows(shape, table)
    else:
        body = FORMULAS[multiplier.family](shape, dict(multiplier.parameters))
    lines = [
        *comment(header),
        f"module {module}(a, b, p);",
        f"  input [{shape.a_width - 1}:0] a;",
        f"  input [{shape.b_width - 1}:0] b;",
        f"  output [{shape.p_width - 1}:0] p;",
        "",
        *body,
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _rows(shape: "Shape", table: npt.NDArray[np.int32]) -> list[str]:
    """For each a the products for all b, the last first, in fields of a power of two of bits."""
    field = max(4, 1 << (shape.p_width - 1).bit_length())
    bits = field << shape.b_width
    patterns = table.astype(np.int64) & ((1 << shape.p_width) - 1)
    width = shape.a_width
    cases = [
        f"      {width}'d{a}: row = {bits}'h"
        + "".join(f"{value:0{field // 4}x}" for value in reversed(row))
        + ";"
        for a, row in enumerate(patterns.tolist())
    ]
    index = f"{{b, {field.bit_length() - 1}'d0}}"
    return [
        f"  // products for b = {(1 << shape.b_width) - 1} … 0, {field} bits each",
        f"  reg [{bits - 1}:0] row;",
        "  always @* begin",
        "    case (a)",
        *cases,
        f"      default: row = {bits}'d0;",
        "    endcase",
        "  end",
        f"  assign p = row[{index} +: {shape.p_width}];",
    ]
