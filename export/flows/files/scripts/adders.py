"""The full and half adder of a Liberty file as what Yosys maps `$fa` to.

`python3 scripts/adders.py CELLS.lib FOLDER` writes into FOLDER: `boxes.v` (the adder cells,
without contents), `adders.v` (for `techmap`) and `gates.lib` (the library without them, for ABC,
which cannot use cells of two outputs). A library without adder cells gets an empty map: full adders
then become gates.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TABLES = {3: (0b11101000, 0b10010110), 2: (0b1000, 0b0110)}
"""Carry and sum of three and of two bits, as truth tables: bit i is the value for the pattern i."""


@dataclass(frozen=True)
class Adder:
    """Which output of a cell is the carry and which the sum, and which of them is inverted."""

    name: str
    area: float
    inputs: tuple[str, ...]
    carry: str
    carry_inverted: bool
    total: str
    total_inverted: bool


def groups(text: str, kind: str) -> Iterator[tuple[str, str]]:
    """Name and body of each `kind (name) { body }`."""
    for match in re.finditer(rf"\b{kind}\s*\(\s*\"?([^\s\")]+)\"?\s*\)\s*\{{", text):
        yield match[1], text[match.end() : closing(text, match.end()) - 1]


def closing(text: str, start: int) -> int:
    """The place after the brace that closes one opened just before `start`."""
    depth = 1
    for match in re.finditer(r"[{}]", text[start:]):
        depth += 1 if match[0] == "{" else -1
        if not depth:
            return start + match.end()
    raise SystemExit("the Liberty file must close every brace that it opens")


def attribute(body: str, name: str) -> str:
    """The value of a simple attribute, or nothing."""
    match = re.search(rf"\b{name}\s*:\s*(?:\"([^\"]*)\"|([^\s;]+))\s*;", body)
    return (match[1] if match[1] is not None else match[2]) if match else ""


class Expression:
    """A Liberty function: `!` or `'`, then `^`, then `&` or `*` or nothing, then `|` or `+`."""

    def __init__(self, text: str, inputs: tuple[str, ...]) -> None:
        self.tokens = re.findall(r"\w+|\S", text)
        states, bits = range(1 << len(inputs)), enumerate(inputs)
        self.full = (1 << len(states)) - 1
        self.values = {"0": 0, "1": self.full}
        for bit, name in bits:
            self.values[name] = sum(1 << state for state in states if state >> bit & 1)

    def table(self) -> int:
        """The truth table. KeyError or IndexError where the text is no function of the inputs."""
        result = self._or()
        if self.tokens:
            raise KeyError(self.tokens[0])
        return result

    def _or(self) -> int:
        result = self._and()
        while self.tokens[:1] in (["|"], ["+"]):
            self.tokens.pop(0)
            result |= self._and()
        return result

    def _and(self) -> int:
        result = self._xor()
        while self.tokens and self.tokens[0] not in "|+)":
            if self.tokens[0] in "&*":
                self.tokens.pop(0)
            result &= self._xor()
        return result

    def _xor(self) -> int:
        result = self._not()
        while self.tokens[:1] == ["^"]:
            self.tokens.pop(0)
            result ^= self._not()
        return result

    def _not(self) -> int:
        token = self.tokens.pop(0)
        if token == "!":
            return self.full ^ self._not()
        if token == "(":
            result = self._or()
            self.tokens.pop(0)
        else:
            result = self.values[token]
        while self.tokens[:1] == ["'"]:
            self.tokens.pop(0)
            result ^= self.full
        return result


def adders(text: str) -> Iterator[Adder]:
    """Every usable full or half adder of a library without comments."""
    for name, body in groups(text, "cell"):
        pins = list(groups(body, "pin"))
        inputs = tuple(pin for pin, text in pins if attribute(text, "direction") == "input")
        outputs = {pin: attribute(text, "function") for pin, text in pins if pin not in inputs}
        if len(inputs) in TABLES and len(outputs) == 2 and attribute(body, "dont_use") != "true":
            yield from as_adder(name, float(attribute(body, "area") or 0), inputs, outputs)


def as_adder(
    name: str, area: float, inputs: tuple[str, ...], functions: dict[str, str]
) -> Iterator[Adder]:
    """The cell as an adder, if it is one."""
    try:
        tables = {pin: Expression(text, inputs).table() for pin, text in functions.items()}
    except (KeyError, IndexError):
        return
    full = (1 << (1 << len(inputs))) - 1
    carry, total = TABLES[len(inputs)]
    first, second = tables
    for one, other in ((first, second), (second, first)):
        if tables[one] in (carry, full ^ carry) and tables[other] in (total, full ^ total):
            yield Adder(
                name, area, inputs, one, tables[one] != carry, other, tables[other] != total
            )


def instance(adder: Adder, operands: str) -> str:
    """Verilog: the cell, with X the carry and Y the sum of `operands`."""
    pins = [f".{pin}({net})" for pin, net in zip(adder.inputs, operands, strict=True)]
    pins += [f".{adder.carry}(carry)", f".{adder.total}(total)"]
    carry, total = "~" * adder.carry_inverted, "~" * adder.total_inverted
    return (
        f"wire carry, total; {adder.name} adder ({', '.join(pins)}); "
        f"assign X = {carry}carry; assign Y = {total}total;"
    )


def techmap(full: Adder, half: Adder | None) -> str:
    """What becomes of `$fa`; one whose C is a constant 0 is a half adder."""
    gates = "assign X = A & B; assign Y = A ^ B;"
    return f"""module \\$fa (A, B, C, X, Y);
  parameter WIDTH = 1;
  parameter _TECHMAP_CONSTMSK_C_ = 0;
  parameter _TECHMAP_CONSTVAL_C_ = 0;
  input A, B, C;
  output X, Y;
  wire _TECHMAP_FAIL_ = WIDTH != 1;
  generate
    if (_TECHMAP_CONSTMSK_C_ == 1 && _TECHMAP_CONSTVAL_C_ == 0) begin
      {gates if half is None else instance(half, "AB")}
    end else begin
      {instance(full, "ABC")}
    end
  endgenerate
endmodule
"""


def box(adder: Adder) -> str:
    """The cell as a module without contents."""
    ports = [f"input {pin}" for pin in adder.inputs]
    ports += [f"output {adder.carry}", f"output {adder.total}"]
    return f"(* blackbox *) module {adder.name} ({', '.join(ports)}); endmodule\n"


def without(text: str, cells: list[str]) -> str:
    """The library without these cells."""
    for name in cells:
        head = re.search(rf"\bcell\s*\(\s*\"?{re.escape(name)}\"?\s*\)\s*\{{", text)
        assert head is not None
        text = text[: head.start()] + text[closing(text, head.end()) :]
    return text


def main() -> None:
    """Read the library, write the three files, say which adders there are."""
    library, folder = Path(sys.argv[1]), Path(sys.argv[2])
    text = re.sub(r"/\*.*?\*/", "", library.read_text("utf-8", "replace"), flags=re.DOTALL)
    found = sorted(adders(text), key=lambda adder: (adder.area, adder.name))
    full = next((adder for adder in found if len(adder.inputs) == 3), None)
    half = next((adder for adder in found if len(adder.inputs) == 2), None)
    chosen = [adder for adder in (full, half) if adder is not None]
    (folder / "boxes.v").write_text("".join(map(box, chosen)) or "// no adder cells\n")
    (folder / "adders.v").write_text("// no full adder\n" if full is None else techmap(full, half))
    (folder / "gates.lib").write_text(without(text, [adder.name for adder in found]))
    names = ", ".join(adder.name for adder in chosen)
    sys.stdout.write(f"adder cells of the library: {names or 'none'}\n")


if __name__ == "__main__":
    main()
