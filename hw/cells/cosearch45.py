"""The embedded library of 45 nm class, written from a few figures a cell.

``python -m hw.cells.cosearch45`` writes it. A linear model: delay = d0 + R·load + k·(slew - 40 ps),
output slew = s0 + Rs·load, a constant internal energy per output edge, a constant leakage. Rise and
fall are their mean. The figures are rounded summaries, at 40 ps and 0 to 10 fF, of what is
published of cells in the FreePDK45 process at 1.1 V and 27 °C:

[1] J. E. Stine et al., "FreePDK: An Open-Source Variation-Aware Design Kit", MSE 2007, and the cell
    figures published with the OSU standard-cell set for it (areas, capacitances, delays, powers).
[2] V. Mrazek et al., "EvoApprox8b", DATE 2017: the published areas of its 45 nm circuits are sums
    of the areas of [1].
[3] I. Sutherland, B. Sproull, D. Harris, "Logical Effort", 1999: cells that [1] does not have
    (marked ``composed``) follow from their neighbours, a stack more or an inverter behind.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..files import write_text
from ..liberty import DEFAULT_LIBRARY, boolean_table

SLEWS_PS = (10.0, 40.0, 160.0)
LOADS_FF = (0.0, 5.0, 40.0)
REFERENCE_SLEW_PS = 40.0


@dataclass(frozen=True)
class Output:
    """An output pin: function, delay d0 in ps, internal energy in fJ per edge."""

    pin: str
    function: str
    delay_ps: float
    energy_fj: float


@dataclass(frozen=True)
class Drive:
    """Delay and slew against load in ps/fF, slew at no load in ps, delay against input slew."""

    delay_per_ff: float
    slew_per_ff: float
    slew_ps: float
    slew_effect: float
    max_load_ff: float


SIMPLE = Drive(2.5, 3.6, 8.0, 0.25, 100.0)
BUFFERED = Drive(2.6, 3.7, 8.0, 0.08, 100.0)
DOUBLE = Drive(1.3, 1.8, 5.0, 0.14, 200.0)
QUADRUPLE = Drive(0.6, 0.9, 5.0, 0.1, 400.0)
OCTUPLE = Drive(0.3, 0.42, 5.0, 0.1, 800.0)


@dataclass(frozen=True)
class Figures:
    """One cell: area, input pins with capacitances in fF, outputs, drive, leakage in nW."""

    name: str
    area_um2: float
    pins: tuple[tuple[str, float], ...]
    outputs: tuple[Output, ...]
    drive: Drive
    leakage_nw: float
    composed: bool = False


def _one(
    name: str,
    area: float,
    pins: str,
    capacitances: tuple[float, ...],
    function: str,
    figures: tuple[float, float, float],
    drive: Drive = SIMPLE,
    composed: bool = False,
) -> Figures:
    """A cell with one output Y; ``figures`` are delay, energy and leakage."""
    delay, energy, leakage = figures
    names = tuple(zip(pins.split(), capacitances, strict=True))
    output = Output("Y", function, delay, energy)
    return Figures(name, area, names, (output,), drive, leakage, composed)


CELLS = (
    _one("INVX1", 1.4079, "A", (1.5,), "!A", (12, 0.8, 1.7)),
    _one("INVX2", 1.8772, "A", (2.7,), "!A", (19, 1.2, 6.1), DOUBLE),
    _one("INVX4", 3.2851, "A", (5.1,), "!A", (19, 2.3, 12), QUADRUPLE),
    _one("INVX8", 3.2851, "A", (10.1,), "!A", (19, 4.5, 25), OCTUPLE),
    _one("BUFX2", 2.3465, "A", (1.5,), "A", (34, 4.2, 20), DOUBLE),
    _one("BUFX4", 2.8158, "A", (3.9,), "A", (32, 10, 52), QUADRUPLE),
    _one("NAND2X1", 1.8772, "A B", (2.0, 2.0), "!(A & B)", (19, 2.1, 3.3)),
    _one("NAND3X1", 2.3465, "A B C", (2.4, 2.7, 2.9), "!(A & B & C)", (25, 3.3, 4.9)),
    _one(
        "NAND4X1",
        2.8158,
        "A B C D",
        (2.8, 3.1, 3.4, 3.6),
        "!(A & B & C & D)",
        (32, 4.6, 6.5),
        composed=True,
    ),
    _one("NOR2X1", 2.3465, "A B", (2.2, 2.3), "!(A | B)", (22, 2.3, 3.6)),
    _one("NOR3X1", 2.8158, "A B C", (3.0, 3.1, 3.3), "!(A | B | C)", (32, 5.3, 5.6)),
    _one(
        "NOR4X1",
        3.2851,
        "A B C D",
        (3.8, 3.9, 4.1, 4.3),
        "!(A | B | C | D)",
        (45, 8.3, 7.6),
        composed=True,
    ),
    _one("AND2X1", 2.3465, "A B", (2.1, 2.1), "A & B", (33, 3.4, 16), BUFFERED),
    _one("AND2X2", 2.8158, "A B", (1.8, 1.8), "A & B", (35, 4.6, 25), DOUBLE),
    _one("AND3X1", 2.8158, "A B C", (2.4, 2.7, 2.9), "A & B & C", (39, 4.6, 17), BUFFERED, True),
    _one(
        "AND4X1",
        3.2851,
        "A B C D",
        (2.8, 3.1, 3.4, 3.6),
        "A & B & C & D",
        (46, 5.9, 19),
        BUFFERED,
        True,
    ),
    _one("OR2X1", 2.3465, "A B", (2.4, 2.3), "A | B", (40, 4.1, 14), BUFFERED),
    _one("OR2X2", 2.8158, "A B", (2.3, 2.3), "A | B", (42, 5.7, 23), DOUBLE),
    _one("OR3X1", 3.2851, "A B C", (3.0, 3.1, 3.3), "A | B | C", (52, 7.0, 16), BUFFERED, True),
    _one(
        "OR4X1",
        3.7544,
        "A B C D",
        (3.8, 3.9, 4.1, 4.3),
        "A | B | C | D",
        (65, 10, 18),
        BUFFERED,
        True,
    ),
    _one("XOR2X1", 4.6930, "A B", (5.2, 5.4), "A ^ B", (34, 8.0, 45), BUFFERED),
    _one("XNOR2X1", 4.6930, "A B", (4.8, 5.3), "!(A ^ B)", (34, 8.1, 30), BUFFERED),
    _one("AOI21X1", 2.8158, "A B C", (2.7, 2.7, 2.4), "!((A & B) | C)", (25, 3.7, 3.7)),
    _one(
        "AOI22X1",
        3.2851,
        "A B C D",
        (2.7, 2.8, 2.8, 2.9),
        "!((A & B) | (C & D))",
        (32, 5.6, 6.8),
    ),
    _one("OAI21X1", 2.8158, "A B C", (2.7, 2.7, 2.0), "!((A | B) & C)", (26, 3.6, 5.1)),
    _one(
        "OAI22X1",
        3.2851,
        "A B C D",
        (2.7, 2.7, 2.8, 2.8),
        "!((A | B) & (C | D))",
        (32, 5.2, 7.0),
        composed=True,
    ),
    _one("MUX2X1", 3.7544, "A B S", (2.7, 2.7, 4.0), "!(S ? A : B)", (33, 6.1, 19)),
    Figures(
        "HAX1",
        4.6930,
        (("A", 4.3), ("B", 3.6)),
        (Output("YC", "A & B", 44, 5.2), Output("YS", "A ^ B", 51, 4.9)),
        BUFFERED,
        48,
    ),
    Figures(
        "FAX1",
        8.9167,
        (("A", 11.8), ("B", 9.6), ("C", 7.6)),
        (
            Output("YC", "(A & B) | (A & C) | (B & C)", 62, 7.4),
            Output("YS", "A ^ B ^ C", 74, 7.8),
        ),
        BUFFERED,
        39,
    ),
)

_HEADER = """\
/* cosearch45: a standard-cell library of 45 nm class for estimates, not for manufacture.
 * Written by hw/cells/cosearch45.py; edit the figures there. A linear model per cell:
 *   delay = d0 + R load + k (slew - 40 ps), output slew = s0 + Rs load,
 *   constant internal energy per output edge, constant leakage.
 * The figures are rounded summaries of what is published of cells in the FreePDK45 process at
 * 1.1 V, 27 C (J. E. Stine et al., FreePDK, MSE 2007, with the OSU standard-cell set; areas
 * confirmed by V. Mrazek et al., EvoApprox8b, DATE 2017). Cells marked "composed" are not in that
 * set: their figures follow from their neighbours by logical effort (Sutherland et al., 1999).
 */
library (cosearch45) {
  technology (cmos);
  delay_model : table_lookup;
  time_unit : "1ps";
  voltage_unit : "1V";
  current_unit : "1mA";
  pulling_resistance_unit : "1kohm";
  leakage_power_unit : "1nW";
  capacitive_load_unit (1, ff);
  nom_process : 1.0;
  nom_voltage : 1.1;
  nom_temperature : 27.0;
  operating_conditions (typical) {
    process : 1.0;
    voltage : 1.1;
    temperature : 27.0;
  }
  default_operating_conditions : typical;
  input_threshold_pct_rise : 50;
  input_threshold_pct_fall : 50;
  output_threshold_pct_rise : 50;
  output_threshold_pct_fall : 50;
  slew_lower_threshold_pct_rise : 20;
  slew_lower_threshold_pct_fall : 20;
  slew_upper_threshold_pct_rise : 80;
  slew_upper_threshold_pct_fall : 80;
  default_cell_leakage_power : 0.0;
  default_fanout_load : 1.0;
  default_input_pin_cap : 1.5;
  default_output_pin_cap : 0.0;
  default_max_transition : 1000.0;
  lu_table_template (timing) {
    variable_1 : input_net_transition;
    variable_2 : total_output_net_capacitance;
    index_1 ("SLEWS");
    index_2 ("LOADS");
  }
"""

# The published set's positive-edge flip-flop: for registered wrappers, not used in the costs.
_FLIP_FLOP = """\
  cell (DFFPOSX1) {
    area : 7.9781;
    cell_leakage_power : 55;
    ff (IQ, IQN) {
      clocked_on : "CLK";
      next_state : "D";
    }
    pin (CLK) {
      direction : input;
      clock : true;
      capacitance : 8.2;
    }
    pin (D) {
      direction : input;
      capacitance : 1.6;
      timing () {
        related_pin : "CLK";
        timing_type : setup_rising;
        rise_constraint (scalar) { values ("60"); }
        fall_constraint (scalar) { values ("60"); }
      }
      timing () {
        related_pin : "CLK";
        timing_type : hold_rising;
        rise_constraint (scalar) { values ("0"); }
        fall_constraint (scalar) { values ("0"); }
      }
    }
    pin (Q) {
      direction : output;
      function : "IQ";
      max_capacitance : 100;
      timing () {
        related_pin : "CLK";
        timing_type : rising_edge;
        timing_sense : non_unate;
TABLES
      }
    }
  }
"""


def liberty_text() -> str:
    """The whole library."""
    header = _HEADER.replace("SLEWS", _row(SLEWS_PS)).replace("LOADS", _row(LOADS_FF))
    flip_flop = _FLIP_FLOP.replace("TABLES", _timing_tables(70.0, BUFFERED))
    return header + "".join(_cell(cell) for cell in CELLS) + flip_flop + "}\n"


def _cell(cell: Figures) -> str:
    lines = [
        f"  cell ({cell.name}) {{{' /* composed */' if cell.composed else ''}",
        f"    area : {cell.area_um2:.4f};",
        f"    cell_leakage_power : {cell.leakage_nw:g};",
    ]
    for pin, capacitance in cell.pins:
        lines += [f"    pin ({pin}) {{", "      direction : input;"]
        lines += [f"      capacitance : {capacitance:g};", "    }"]
    for output in cell.outputs:
        lines += _output(cell, output)
    return "\n".join([*lines, "  }"]) + "\n"


def _output(cell: Figures, output: Output) -> Iterator[str]:
    function = output.function.replace("S ? A : B", "(S & A) | (!S & B)")
    inputs = tuple(pin for pin, _ in cell.pins)
    yield f"    pin ({output.pin}) {{"
    yield "      direction : output;"
    yield f'      function : "{function}";'
    yield f"      max_capacitance : {cell.drive.max_load_ff:g};"
    for index, pin in enumerate(inputs):
        yield "      timing () {"
        yield f'        related_pin : "{pin}";'
        yield f"        timing_sense : {_sense(function, inputs, index)};"
        yield _timing_tables(output.delay_ps, cell.drive)
        yield "      }"
    for pin in inputs:
        yield "      internal_power () {"
        yield f'        related_pin : "{pin}";'
        for edge in ("rise", "fall"):
            yield f'        {edge}_power (scalar) {{ values ("{output.energy_fj:g}"); }}'
        yield "      }"
    yield "    }"


def _timing_tables(delay_ps: float, drive: Drive) -> str:
    delays = [
        [
            delay_ps + drive.slew_effect * (slew - REFERENCE_SLEW_PS) + drive.delay_per_ff * load
            for load in LOADS_FF
        ]
        for slew in SLEWS_PS
    ]
    slews = [[drive.slew_ps + drive.slew_per_ff * load for load in LOADS_FF] for _ in SLEWS_PS]
    parts = []
    for names, values in (
        (("cell_rise", "cell_fall"), delays),
        (("rise_transition", "fall_transition"), slews),
    ):
        rows = ", ".join(f'"{_row(row)}"' for row in values)
        parts += [f"        {name} (timing) {{ values ({rows}); }}" for name in names]
    return "\n".join(parts)


def _row(values: tuple[float, ...] | list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _sense(function: str, inputs: tuple[str, ...], index: int) -> str:
    """Whether the output can only follow the input, only oppose it, or both."""
    table = boolean_table(function, inputs)
    assert table is not None
    states = [state for state in range(1 << len(inputs)) if not state >> index & 1]
    steps = {(table >> (state | 1 << index) & 1) - (table >> state & 1) for state in states}
    if -1 not in steps:
        return "positive_unate"
    return "negative_unate" if 1 not in steps else "non_unate"


if __name__ == "__main__":
    write_text(DEFAULT_LIBRARY, liberty_text())
    sys.stdout.write(f"{DEFAULT_LIBRARY.name}: {len(CELLS) + 1} cells\n")
