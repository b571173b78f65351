"""Self-checking benches that go through all operand pairs of a multiplier, in every form of it.

``tb/<module>_variants.v``, all forms side by side; ``tb/<module>_tb.v``, plain Verilog;
``tb/cocotb_multipliers.py``, for cocotb; ``tb/<module>.hex``, the products as bit patterns, a row
of the table a line.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files

from lut import LUT

from .converters import converted_width
from .names import ModuleNames, source_path
from .structural import comment

__all__ = ["BENCH_STAGES", "bench_files", "cocotb_files"]

BENCH_STAGES = (0, 1, 2, 3)
"""The pipelines that benches check."""


def bench_files(lut: LUT) -> Mapping[str, str]:
    """The bench of the multiplier ``lut.name``, by path under ``rtl/``."""
    names = ModuleNames(lut.name)
    return {
        f"tb/{names.structural}_variants.v": _variants(lut, names),
        f"tb/{names.structural}_tb.v": _bench(lut, names),
        table_path(names): _table(lut),
    }


def cocotb_files(luts: Sequence[LUT]) -> Mapping[str, str]:
    """The cocotb bench and the list of multipliers that it reads, by path under ``rtl/``."""
    program = files(__package__).joinpath("templates", "cocotb_multipliers.py").read_text()
    listed = json.dumps([_item(lut) for lut in luts], indent=2)
    return {"tb/cocotb_multipliers.py": program, "tb/multipliers.json": f"{listed}\n"}


def table_path(names: ModuleNames) -> str:
    """Where the products lie, under ``rtl/``."""
    return f"tb/{names.structural}.hex"


def _item(lut: LUT) -> dict[str, object]:
    names = ModuleNames(lut.name)
    sources = [source_path(module) for module in names.all(lut.a_signed)]
    return {
        "module": names.structural,
        "a_width": lut.a_width,
        "b_width": lut.b_width,
        "signed": lut.a_signed,
        "converted_width": converted_width(lut),
        "lut_sha256": lut.digest,
        "table": table_path(names),
        "sources": [*sources, f"tb/{names.structural}_variants.v"],
    }


def _table(lut: LUT) -> str:
    width = lut.a_width + lut.b_width
    patterns = lut.table.astype("int64") & ((1 << width) - 1)
    digits = -(-width // 4)
    return "".join(
        " ".join(f"{value:0{digits}x}" for value in row) + "\n" for row in patterns.tolist()
    )


def _variants(lut: LUT, names: ModuleNames) -> str:
    p = lut.a_width + lut.b_width
    outputs = ["structural", "behavioural", *(f"pipelined_{s}" for s in BENCH_STAGES)]
    operands = ".a(a), .b(b)"
    narrow = f".a({_low('a', lut.a_width)}), .b({_low('b', lut.b_width)})"
    converted = narrow if lut.a_signed else operands
    lines = [
        *comment(f"{lut.name} in every form of it, side by side"),
        f"module {names.structural}_variants(",
        f"  clk, a, b, {', '.join(outputs)}, converted",
        ");",
        "  input clk;",
        f"  input [{lut.a_width - 1}:0] a;",
        f"  input [{lut.b_width - 1}:0] b;",
        *(f"  output [{p - 1}:0] {output};" for output in outputs),
        f"  output [{converted_width(lut) - 1}:0] converted;",
        "",
        f"  {names.structural} s({operands}, .p(structural));",
        f"  {names.behavioural} f({operands}, .p(behavioural));",
        f"  {names.converted(lut.a_signed)} c({converted}, .p(converted));",
        *(
            f"  {names.pipelined} #(.STAGES({s})) p{s}(.clk(clk), {operands}, .p(pipelined_{s}));"
            for s in BENCH_STAGES
        ),
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _low(name: str, width: int) -> str:
    """All bits but the sign."""
    return f"{name}[{width - 2}:0]"


def _bench(lut: LUT, names: ModuleNames) -> str:
    a, b, p = lut.a_width, lut.b_width, lut.a_width + lut.b_width
    outputs = ["structural", "behavioural", *(f"pipelined_{s}" for s in BENCH_STAGES)]
    wide = converted_width(lut)
    pins = ",\n    ".join(f".{name}({name})" for name in ("clk", "a", "b", *outputs, "converted"))
    last = (1 << p) - 1
    return f"""\
// All {last + 1} operand pairs of {lut.name}, in every form of it, against its table.
// From rtl/: iverilog -g2001 -Wall -y src -y tb -o bench tb/{names.structural}_tb.v && vvp -n bench
// Prints PASS or FAIL, and what is wrong first; ends with 1 on a failure under Icarus.
module {names.structural}_tb;
  parameter TABLE = "{table_path(names)}";

  reg clk;
  reg [{a - 1}:0] a;
  reg [{b - 1}:0] b;
  wire [{p - 1}:0] {", ".join(outputs)};
  wire [{wide - 1}:0] converted;
  reg [{p - 1}:0] products [0:{last}];
  integer step, errors;

  {names.structural}_variants variants(
    {pins}
  );

{_converted(lut, wide)}\
  // count a product that is not the one of the pair
  task check;
    input [{max(p, wide) - 1}:0] product, expected;
    input integer form, pair;
    if (product !== expected) begin
      errors = errors + 1;
      if (errors <= 10)
        $display("form %0d, pair %0h: must be %h, not %h", form, pair, expected, product);
    end
  endtask

  initial begin
    $readmemh(TABLE, products);
    errors = 0;
    clk = 1'b0;
    for (step = 0; step <= {last + BENCH_STAGES[-1] - 1}; step = step + 1) begin
      {{a, b}} = step <= {last} ? step[{p - 1}:0] : {p}'d{last};
      #1;
      check({_wide("structural", p, wide)}, {_wide("products[{a, b}]", p, wide)}, 0, step);
      check({_wide("behavioural", p, wide)}, {_wide("products[{a, b}]", p, wide)}, 1, step);
      check({_wide("converted", wide, p)}, {_wide(_converted_product(lut), wide, p)}, 2, step);
      check({_wide("pipelined_0", p, wide)}, {_wide("products[{a, b}]", p, wide)}, 10, step);
      clk = 1'b1;
      #1;
{_pipeline_checks(p, wide, last)}
      clk = 1'b0;
    end
    if (errors == 0) $display("PASS {names.structural}: {last + 1} pairs");
    else $display("FAIL {names.structural}: %0d wrong products", errors);
`ifdef __ICARUS__
    $finish_and_return(errors == 0 ? 0 : 1);
`else
    $finish;
`endif
  end
endmodule
"""


def _wide(value: str, width: int, other: int) -> str:
    """The value in the wider of two widths."""
    return value if width >= other else f"{{{other - width}'d0, {value}}}"


def _pipeline_checks(p: int, wide: int, last: int) -> str:
    """After an edge a pipeline of s stages gives the product of the pair s - 1 steps ago."""
    lines = []
    for stages in BENCH_STAGES[1:]:
        pair = f"step - {stages - 1}" if stages > 1 else "step"
        lines += [
            f"      if ({pair} >= 0 && {pair} <= {last})",
            f"        check({_wide(f'pipelined_{stages}', p, wide)}, "
            f"{_wide(f'products[{pair}]', p, wide)}, {10 + stages}, {pair});",
        ]
    return "\n".join(lines)


def _converted_product(lut: LUT) -> str:
    """What the multiplier for operands of the other kind must give."""
    if not lut.a_signed:
        return "converted_product(a, b)"
    return f"products[{{1'b0, {_low('a', lut.a_width)}, 1'b0, {_low('b', lut.b_width)}}}]"


def _converted(lut: LUT, wide: int) -> str:
    """The function that it takes for an unsigned multiplier."""
    a, b, p = lut.a_width, lut.b_width, lut.a_width + lut.b_width
    if lut.a_signed:
        return ""
    magnitudes = f"{{x[{a - 1}] ? -x : x, y[{b - 1}] ? -y : y}}"
    return f"""\
  // what the multiplier for two's complement operands must give
  function [{wide - 1}:0] converted_product;
    input [{a - 1}:0] x;
    input [{b - 1}:0] y;
    begin
      converted_product = {_wide(f"products[{magnitudes}]", p, wide)};
      if (x[{a - 1}] != y[{b - 1}]) converted_product = -converted_product;
      if (x == {a}'d0 || y == {b}'d0) converted_product = {wide}'d0;
    end
  endfunction

"""
