"""A cell library written as Liberty text: what mapping needs, functions, areas, loads and timing.

For libraries that lie in several files, which ABC does not join: one text, ps and fF throughout,
one timing group from each input to each output, without powers and conditions.
"""

from collections.abc import Iterable, Iterator, Mapping

from .liberty import LibraryCell, Table, TimingArc

_HEAD = """library (joined) {
  delay_model : table_lookup;
  time_unit : "1ps";
  voltage_unit : "1V";
  current_unit : "1mA";
  leakage_power_unit : "1nW";
  pulling_resistance_unit : "1kohm";
  capacitive_load_unit (1, ff);
  nom_voltage : %g;
"""
_SENSES = {1: "positive_unate", -1: "negative_unate", 0: "non_unate"}


def liberty_text(cells: Mapping[str, LibraryCell], voltage_v: float) -> str:
    """The cells as one library."""
    tables = [table for cell in cells.values() for arc in cell.timing for table in _tables(arc)]
    sizes = sorted({(len(table.slews_ps), len(table.loads_ff)) for table in tables})
    lines = [_HEAD % voltage_v]
    for size in sizes:
        lines += _template(*size)
    for cell in cells.values():
        if cell.kind.inputs:
            lines += _cell(cell)
    return "\n".join([*lines, "}", ""])


def _template(slews: int, loads: int) -> Iterator[str]:
    yield f"  lu_table_template (t_{slews}_{loads}) {{"
    yield "    variable_1 : input_net_transition;"
    yield "    variable_2 : total_output_net_capacitance;"
    yield f'    index_1 ("{_numbers(range(1, slews + 1))}");'
    yield f'    index_2 ("{_numbers(range(1, loads + 1))}");'
    yield "  }"


def _cell(cell: LibraryCell) -> Iterator[str]:
    yield f"  cell ({cell.name}) {{"
    yield f"    area : {cell.area_um2:.6g};"
    for pin, capacitance in zip(cell.kind.inputs, cell.capacitances_ff, strict=True):
        yield f"    pin ({pin}) {{ direction : input; capacitance : {capacitance:.6g}; }}"
    for output, pin in enumerate(cell.kind.outputs):
        yield f"    pin ({pin}) {{"
        yield "      direction : output;"
        yield f'      function : "{_function(cell.kind.inputs, cell.kind.tables[output])}";'
        for arc in _first_of_each_input(cell, output):
            yield from _timing(cell, arc)
        yield "    }"
    yield "  }"


def _first_of_each_input(cell: LibraryCell, output: int) -> Iterable[TimingArc]:
    arcs: dict[int, TimingArc] = {}
    for arc in cell.timing:
        if arc.output == output:
            arcs.setdefault(arc.input, arc)
    return arcs.values()


def _timing(cell: LibraryCell, arc: TimingArc) -> Iterator[str]:
    yield "      timing () {"
    yield f'        related_pin : "{cell.kind.inputs[arc.input]}";'
    yield f"        timing_sense : {_SENSES[arc.sense]};"
    names = ("cell_rise", "cell_fall", "rise_transition", "fall_transition")
    for name, table in zip(names, _tables(arc), strict=True):
        yield f"        {name} (t_{len(table.slews_ps)}_{len(table.loads_ff)}) {{"
        yield f'          index_1 ("{_numbers(table.slews_ps)}");'
        yield f'          index_2 ("{_numbers(table.loads_ff)}");'
        rows = ", ".join(f'"{_numbers(row)}"' for row in table.values)
        yield f"          values ({rows});"
        yield "        }"
    yield "      }"


def _tables(arc: TimingArc) -> tuple[Table, Table, Table, Table]:
    return arc.delay_rise, arc.delay_fall, arc.slew_rise, arc.slew_fall


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _function(inputs: tuple[str, ...], table: int) -> str:
    """A sum of minterms."""
    terms = [
        "(" + " & ".join(p if state >> i & 1 else f"!{p}" for i, p in enumerate(inputs)) + ")"
        for state in range(1 << len(inputs))
        if table >> state & 1
    ]
    return " | ".join(terms) or "0"
