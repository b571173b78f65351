"""A C function in the style of EvoApproxLib, as gates: parsed and unrolled, never compiled or run.

Compiling would run a stranger's program on this machine, need a compiler, and give a table only.
Read symbolically, each integer is 64 nets (two's complement, sign-extended), each operator the
gates of its bits, constants folded: the circuit that the file describes, so that it has a cost too.

What is read: one function of two integers, declarations, assignments (also ``|= ^= &= += -=``),
``return``; operators ``~ ! & | ^ << >> + - *`` (shifts by constants), conversions, integer
constants. No conditions, loops, arrays, pointers or calls.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError
from ..netlist import FALSE, TRUE, Gate, Netlist, Port
from .imported import Imported
from .source import Source

WORD = 64
Bits = tuple[int, ...]


@dataclass(frozen=True)
class CType:
    """An integer type."""

    width: int
    signed: bool


_TYPES: Mapping[str, CType] = {
    **{f"int{n}_t": CType(n, True) for n in (8, 16, 32, 64)},
    **{f"uint{n}_t": CType(n, False) for n in (8, 16, 32, 64)},
    "char": CType(8, True),
    "short": CType(16, True),
    "int": CType(32, True),
    "long": CType(64, True),
    "unsigned": CType(32, False),
}
_MODIFIERS = {"const", "static", "inline", "signed", "register"}
_TOKEN = re.compile(
    r"\s*(0[xX][0-9a-fA-F]+|\d+|[A-Za-z_]\w*|<<=|>>=|<<|>>|[-+&|^]=|[-+*~!&|^=(){},;])"
)
_SUFFIX = re.compile(r"[uUlL]+")


def imported(source: Source) -> Imported:
    """Function ``top`` (the only one, where not given); its two parameters are the operands.

    Operands have 8 bits, or as many as the name says (``mul12u_…``) or their type has.
    """
    text = source.text("a C file")
    parser = _Parser(_tokens(text, source.place), source.place)
    function = parser.function()
    if source.top not in (None, function.name):
        raise InputError(
            f"function of {source.place} must be {function.name}, the one it has, not {source.top}"
        )
    name = source.called(function.name)
    first, second = source.ordered(list(function.parameters), f"function {function.name}")
    found = all(kind.signed for kind in function.parameters.values())
    signed = source.is_signed(name, True if found else _named_signedness(name))
    netlist = function.netlist(name, (first, second))
    return Imported.of_gates(netlist, signed, source.place)


def _named_signedness(name: str) -> bool | None:
    return None if re.match(r"mul\d+(?:x\d+)?[su]_", name) else False


def _operand_widths(name: str, kinds: list[CType]) -> list[int]:
    match = re.match(r"mul(\d+)(?:x(\d+))?[su]?_", name)
    if match:
        return [int(match[1]), int(match[2] or match[1])]
    return [kind.width for kind in kinds]


@dataclass(frozen=True)
class _Value:
    """64 nets, and whether a right shift fills with the sign."""

    bits: Bits
    signed: bool = True


class _Circuit:
    """Gates made on the way, each function of the same nets once."""

    def __init__(self, inputs: int) -> None:
        self.gates: list[Gate] = []
        self._next = 2 + inputs
        self._known: dict[tuple[str, tuple[int, ...]], int] = {}

    def gate(self, kind: str, *inputs: int) -> int:
        key = (kind, tuple(sorted(inputs)))
        if key not in self._known:
            self._known[key] = self._next
            self.gates.append(Gate(kind, inputs, (self._next,)))
            self._next += 1
        return self._known[key]

    def inverted(self, x: int) -> int:
        if x in (FALSE, TRUE):
            return TRUE - x
        return self.gate("not", x)

    def both(self, x: int, y: int) -> int:
        if FALSE in (x, y):
            return FALSE
        if TRUE in (x, y) or x == y:
            return y if x == TRUE else x
        return self.gate("and", x, y)

    def either(self, x: int, y: int) -> int:
        if TRUE in (x, y):
            return TRUE
        if FALSE in (x, y) or x == y:
            return y if x == FALSE else x
        return self.gate("or", x, y)

    def differ(self, x: int, y: int) -> int:
        if x == y:
            return FALSE
        for constant, other in ((x, y), (y, x)):
            if constant in (FALSE, TRUE):
                return self.inverted(other) if constant else other
        return self.gate("xor", x, y)

    def total(self, x: Bits, y: Bits, carry: int = FALSE) -> Bits:
        """x + y + carry, modulo 2^64."""
        bits = []
        for one, other in zip(x, y, strict=True):
            half = self.differ(one, other)
            bits.append(self.differ(half, carry))
            carry = self.either(self.both(one, other), self.both(half, carry))
        return tuple(bits)

    def product(self, x: Bits, y: Bits) -> Bits:
        total: Bits = (FALSE,) * WORD
        for place, bit in enumerate(y):
            if bit != FALSE:
                row = tuple(self.both(each, bit) for each in _shifted(x, place))
                total = self.total(total, row)
        return total


def _shifted(x: Bits, places: int) -> Bits:
    return ((FALSE,) * places + x)[:WORD]


def _constant(value: int) -> Bits:
    return tuple(TRUE if value >> bit & 1 else FALSE for bit in range(WORD))


def _converted(value: _Value, kind: CType) -> _Value:
    """The value as a variable of that type holds it."""
    filler = value.bits[kind.width - 1] if kind.signed else FALSE
    bits = value.bits[: kind.width] + (filler,) * (WORD - kind.width)
    return _Value(bits, kind.signed or kind.width < WORD)


Token = tuple[str, int]


def _tokens(text: str, place: str) -> list[Token]:
    """Tokens with their line numbers; comments and preprocessor lines left out."""
    blank = re.sub(
        r"/\*.*?\*/|//[^\n]*|^[ \t]*#[^\n]*",
        lambda match: "\n" * match[0].count("\n"),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    tokens: list[Token] = []
    position, line = 0, 1
    while blank[position:].strip():
        match = _TOKEN.match(blank, position)
        here = line + blank[position : match.end() if match else position + 1].count("\n")
        if match is None:
            raise InputError(
                f"line {here} of {place} must be plain integer C, not "
                f"{blank[position:].split()[0][:20]!r}"
            )
        tokens.append((match[1], here))
        line, position = here, match.end()
        suffix = _SUFFIX.match(blank, position) if match[1][0].isdigit() else None
        position = suffix.end() if suffix else position
    return tokens


@dataclass(frozen=True)
class _Function:
    name: str
    parameters: dict[str, CType]
    body: list[Token]
    result: CType
    place: str

    def netlist(self, name: str, operands: tuple[str, str]) -> Netlist:
        """The gates, with ports a and b (the operands in that order) and p."""
        kinds = [self.parameters[operand] for operand in operands]
        widths = _operand_widths(name, kinds)
        circuit = _Circuit(sum(widths))
        first = 2
        ports, values = [], {}
        for operand, kind, width, port in zip(operands, kinds, widths, "ab", strict=True):
            nets = tuple(range(first, first + width))
            first += width
            ports.append(Port(port, nets))
            filler = nets[-1] if kind.signed else FALSE
            values[operand] = _Value(nets + (filler,) * (WORD - width), kind.signed)
        run = _Parser(self.body, self.place, circuit, values, dict(self.parameters))
        product = _converted(run.body(), self.result).bits[: sum(widths)]
        return Netlist(name, tuple(ports), (Port("p", product),), tuple(circuit.gates))


class _Parser:
    """Recursive descent over tokens; expressions become nets of the circuit as they are read."""

    def __init__(
        self,
        tokens: list[Token],
        place: str,
        circuit: _Circuit | None = None,
        values: dict[str, _Value] | None = None,
        kinds: dict[str, CType] | None = None,
    ) -> None:
        self._tokens = tokens
        self._place = place
        self._at = 0
        self._circuit = circuit or _Circuit(0)
        self._values = values or {}
        self._kinds = kinds or {}

    # The function's head.

    def function(self) -> _Function:
        result = self._type()
        name = self._word()
        self._expect("(")
        parameters: dict[str, CType] = {}
        while self._peek() != ")":
            kind = self._type()
            parameters[self._word()] = kind
            if self._peek() != ")":
                self._expect(",")
        self._expect(")")
        self._expect("{")
        body = self._tokens[self._at : -1]
        if self._tokens[-1][0] != "}" or any(text in "{}" for text, _ in body):
            raise InputError(f"{self._place} must have one function without blocks, and no more")
        return _Function(name, parameters, body, result, self._place)

    # Statements.

    def body(self) -> _Value:
        """What the function returns."""
        while self._at < len(self._tokens):
            if self._take("return"):
                value = self._expression()
                self._expect(";")
                return value
            if self._is_type():
                self._declaration()
            else:
                self._assignment(self._word())
                self._expect(";")
        raise InputError(f"function of {self._place} must return its product")

    def _declaration(self) -> None:
        kind = self._type()
        while True:
            name = self._word()
            self._kinds[name] = kind
            if self._peek() == "=":
                self._assignment(name)
            if not self._take(","):
                break
        self._expect(";")

    def _assignment(self, name: str) -> None:
        if name not in self._kinds:
            raise self._error(f"a declared variable, not {name!r}")
        operator = self._next()
        if operator != "=" and operator[:-1] not in _BINARY:
            raise self._error(f"an assignment to {name}, not {operator!r}")
        value = self._expression()
        if operator != "=":
            value = self._combined(operator[:-1], self._variable(name), value)
        self._values[name] = _converted(value, self._kinds[name])

    # Expressions, by rising precedence: | ^ & shifts sums products.

    def _expression(self, level: int = 0) -> _Value:
        if level == len(_PRECEDENCE):
            return self._unary()
        value = self._expression(level + 1)
        while self._peek() in _PRECEDENCE[level]:
            operator = self._next()
            value = self._combined(operator, value, self._expression(level + 1))
        return value

    def _combined(self, operator: str, x: _Value, y: _Value) -> _Value:
        circuit = self._circuit
        signed = x.signed and y.signed
        if operator in _BITWISE:
            function = getattr(circuit, _BITWISE[operator])
            pairs = zip(x.bits, y.bits, strict=True)
            return _Value(tuple(function(one, other) for one, other in pairs), signed)
        if operator in ("<<", ">>"):
            places = self._number(y)
            if operator == "<<":
                return _Value(_shifted(x.bits, places), x.signed)
            filler = x.bits[-1] if x.signed else FALSE
            return _Value((x.bits[places:] + (filler,) * places)[:WORD], x.signed)
        if operator == "*":
            return _Value(circuit.product(x.bits, y.bits), signed)
        if operator == "-":
            negated = tuple(circuit.inverted(bit) for bit in y.bits)
            return _Value(circuit.total(x.bits, negated, TRUE), signed)
        return _Value(circuit.total(x.bits, y.bits), signed)

    def _unary(self) -> _Value:
        if self._take("~"):
            value = self._unary()
            return _Value(tuple(map(self._circuit.inverted, value.bits)), value.signed)
        if self._take("-"):
            return self._combined("-", _Value(_constant(0)), self._unary())
        if self._take("!"):
            some = FALSE
            for bit in self._unary().bits:
                some = self._circuit.either(some, bit)
            return _Value((self._circuit.inverted(some),) + (FALSE,) * (WORD - 1))
        if self._take("("):
            if self._is_type():
                kind = self._type()
                self._expect(")")
                return _converted(self._unary(), kind)
            value = self._expression()
            self._expect(")")
            return value
        token = self._next()
        if token[0].isdigit():
            return _Value(_constant(int(token, 8 if re.fullmatch(r"0\d+", token) else 0)))
        return self._variable(token)

    def _variable(self, name: str) -> _Value:
        if name not in self._values:
            raise self._error(f"a variable that has a value, not {name!r}")
        return self._values[name]

    def _number(self, value: _Value) -> int:
        if any(bit not in (FALSE, TRUE) for bit in value.bits):
            raise self._error("a shift by a constant")
        number = sum(bit << place for place, bit in enumerate(value.bits))
        if number >= WORD:
            raise self._error(f"a shift by 0 to {WORD - 1}, not {number}")
        return number

    # Tokens.

    def _is_type(self) -> bool:
        return self._peek() in _TYPES or self._peek() in _MODIFIERS

    def _type(self) -> CType:
        words = []
        while self._is_type():
            words.append(self._next())
        named = [word for word in words if word in _TYPES]
        if not named:
            raise self._error(f"an integer type, not {self._peek()!r}")
        kind = _TYPES[named[-1]]
        return CType(kind.width, kind.signed and "unsigned" not in named)

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        self._at += 1
        if self._at > len(self._tokens):
            raise self._error("a whole function, not the end of the file")
        return self._tokens[self._at - 1][0]

    def _take(self, token: str) -> bool:
        taken = self._peek() == token
        self._at += taken
        return taken

    def _expect(self, token: str) -> None:
        found = self._next()
        if found != token:
            raise self._error(f"{token!r}, not {found!r}")

    def _word(self) -> str:
        token = self._next()
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            raise self._error(f"a name, not {token!r}")
        return token

    def _error(self, what: str) -> InputError:
        index = min(max(self._at - 1, 0), len(self._tokens) - 1)
        line = self._tokens[index][1] if self._tokens else 1
        return InputError(f"line {line} of {self._place} must have {what}")


_BITWISE: Mapping[str, str] = {"&": "both", "|": "either", "^": "differ"}
_PRECEDENCE = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"), ("*",))
_BINARY = {operator for level in _PRECEDENCE for operator in level}
