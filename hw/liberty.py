"""Standard-cell libraries in the Liberty format: what costs need of them, in one set of units.

Times in ps, capacitances in fF, energies in fJ, leakage in nW, areas in µm², whatever the file's
units. Read are areas, functions, pin capacitances, leakage (by state where given), timing and
internal-power tables with their conditions; sequential, tri-state and ``dont_use`` cells are left
out. Format: Synopsys Liberty User Guide, version 2009.06, the open-source part.
"""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import InputError, unknown_name
from .netlist import GateKind

Array = npt.NDArray[np.float64]
DEFAULT_LIBRARY = Path(__file__).parent / "cells" / "cosearch45.lib"
VOLTAGE_SPREAD = 1.15
"""How far apart, as a ratio, the voltages in the files of one library may be."""


@dataclass(frozen=True)
class Table:
    """A figure by input slew (rows, ps) and output load (columns, fF)."""

    slews_ps: tuple[float, ...]
    loads_ff: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, slew_ps: float, load_ff: float) -> float:
        """Bilinear between the points, and beyond them along the outermost two."""
        i, u = _position(self.slews_ps, slew_ps)
        j, v = _position(self.loads_ff, load_ff)
        rows = self.values[i : i + 2] if len(self.slews_ps) > 1 else (self.values[0],) * 2
        low, high = ((row[j] + v * (row[j + 1] - row[j]) if v else row[j]) for row in rows)
        return low + u * (high - low)


@dataclass(frozen=True)
class TimingArc:
    """From an input to an output pin (by number): delays and output slews, both in ps.

    ``sense`` is +1, -1, or 0 where either edge of the input can cause either edge of the output.
    """

    input: int
    output: int
    sense: int
    delay_rise: Table
    delay_fall: Table
    slew_rise: Table
    slew_fall: Table


@dataclass(frozen=True)
class PowerArc:
    """Energy in fJ of an edge of ``output`` caused by ``input``, in states of the mask ``when``.

    Without an output it is that of an edge of the input itself; without an input, of any cause.
    Bit m of ``when`` is the state in which the inputs are the bits of m.
    """

    input: int | None
    output: int | None
    when: int
    rise: Table
    fall: Table


@dataclass(frozen=True)
class LibraryCell:
    """A combinational cell; pins are numbered in the order of ``kind``."""

    kind: GateKind
    area_um2: float
    leakage_nw: tuple[float, ...]
    """By input state, 2**inputs of them."""
    capacitances_ff: tuple[float, ...]
    """By input pin, the mean over both edges."""
    timing: tuple[TimingArc, ...]
    power: tuple[PowerArc, ...]

    @property
    def name(self) -> str:
        return self.kind.name


@dataclass(frozen=True)
class CellLibrary:
    """The combinational cells of a Liberty file, and its text for synthesis."""

    name: str
    voltage_v: float
    cells: Mapping[str, LibraryCell] = field(repr=False)
    text: str = field(repr=False)
    """The Liberty text itself; of a library in several files, one written from their cells."""

    @property
    def kinds(self) -> dict[str, GateKind]:
        """The cells as kinds of gates."""
        return {name: cell.kind for name, cell in self.cells.items()}


INSTALLED = {
    name: Path(f"/usr/share/qflow/tech/{name}/{file}_stdcells.lib")
    for name, file in (("osu018", "osu018"), ("osu035", "osu035"), ("osu050", "osu05"))
}
"""Libraries by name, where Debian's packages qflow-tech-osu018, -osu035 and -osu050 put them."""


def find_library(cells: str | os.PathLike[str] = "") -> CellLibrary:
    """The library that ``cells`` names.

    Nothing: the embedded one; ``osu018`` and its like: the one that Debian's package installed; a
    path, or several separated by commas: a Liberty file, or one that lies in several files; a
    folder: all the ``.lib`` and ``.lib.gz`` files in it, as one library.
    """
    text = os.fspath(cells)
    if not text:
        return default_library()
    if text in INSTALLED:
        if not INSTALLED[text].exists():
            raise InputError(
                f"cell library {text} must be installed (Debian: apt install qflow-tech-{text}), "
                f"but there is no {INSTALLED[text]}"
            )
        return read_liberty(INSTALLED[text])
    if Path(text).is_dir():
        found = sorted({*Path(text).glob("*.lib"), *Path(text).glob("*.lib.gz")})
        if not found:
            raise InputError(f"{text} must be a folder with .lib files, not without any")
        return read_liberty(*found)
    if "," not in text and "/" not in text and not Path(text).exists():
        raise unknown_name("cell library that is not a file", text, INSTALLED)
    return read_liberty(*(part.strip() for part in text.split(",")))


def read_liberty(path: str | os.PathLike[str], *others: str | os.PathLike[str]) -> CellLibrary:
    """The library in a ``.lib`` or ``.lib.gz`` file; or in several, as one under the first's name.

    They may have no cell twice; one without usable cells is passed over.
    """
    if not others:
        return library_from_text(_liberty_text(path), str(path))
    parts = []
    for each in (path, *others):
        try:
            parts.append(library_from_text(_liberty_text(each), str(each)))
        except _NoCellsError:
            continue
    if not parts:
        raise InputError(f"{path} and what is with it must have combinational cells, not none")
    return _joined(parts)


def _joined(parts: list[CellLibrary]) -> CellLibrary:
    """One library, of the commonest voltage: ASAP7's own files of one corner say 0.77 and 0.7."""
    voltages = [part.voltage_v for part in parts]
    if max(voltages) > VOLTAGE_SPREAD * min(voltages):
        raise InputError(
            f"files of one library must be of one voltage, not {min(voltages)} V and "
            f"{max(voltages)} V"
        )
    from .liberty_text import liberty_text  # it needs the types of this module

    cells: dict[str, LibraryCell] = {}
    for part in parts:
        repeated = cells.keys() & part.cells.keys()
        if repeated:
            raise InputError(
                f"files of one library must have each cell once, not {min(repeated)} again in "
                f"{part.name}"
            )
        cells |= part.cells
    voltage = max(voltages, key=voltages.count)
    digest = hashlib.sha256("\0".join(part.text for part in parts).encode()).hexdigest()
    text = f"/* from files with the digest {digest} */\n{liberty_text(cells, voltage)}"
    return CellLibrary(parts[0].name, voltage, cells, text)


def _liberty_text(path: str | os.PathLike[str]) -> str:
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("latin-1")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"{path} must be a Liberty file, but there is no such file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} must be a Liberty file, not corrupt data ({error})") from None


class _NoCellsError(InputError):
    """A file without usable cells, as the sequential part of a library is."""


def library_from_text(text: str, what: str) -> CellLibrary:
    """The library in Liberty text; ``what`` names it in errors."""
    root = parse_liberty(text, what)
    units = _Units(root, what)
    cells = (_cell(group, units) for group in root.of("cell") if _is_usable(group))
    usable = {cell.name: cell for cell in cells if cell is not None}
    if not usable:
        raise _NoCellsError(f"{what} must have combinational cells with functions, not none")
    name = root.arguments[0] if root.arguments else "unnamed"
    return CellLibrary(name, units.voltage_v, usable, text)


@cache
def default_library() -> CellLibrary:
    """The embedded library of 45 nm class."""
    return read_liberty(DEFAULT_LIBRARY)


# The format: groups of attributes and groups.


@dataclass
class Group:
    """``kind (arguments) { … }``; a repeated attribute keeps its last value."""

    kind: str
    arguments: tuple[str, ...]
    attributes: dict[str, str] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def of(self, kind: str) -> Iterator["Group"]:
        """Its groups of that kind."""
        return (group for group in self.groups if group.kind == kind)

    def first(self, kind: str) -> "Group | None":
        return next(self.of(kind), None)

    def text(self, attribute: str, default: str = "") -> str:
        return self.attributes.get(attribute, default)

    def number(self, attribute: str, default: float = 0.0) -> float:
        value = self.attributes.get(attribute)
        if value is None:
            return default
        try:
            return float(value)
        except ValueError:
            name = " ".join((self.kind, *self.arguments))
            raise InputError(f"{attribute} of {name} must be a number, not {value!r}") from None


_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\\[ \t\r]*\n", re.DOTALL)
_STATEMENT = re.compile(
    r"""\s*;?\s*(?:
    (?P<name>[\w.\[\]]+)\s*:\s*(?P<value>"[^"]*"|[^;{}\n"]*?)\s*(?:;|(?=[\n}]))
    |(?P<kind>\w+)\s*\((?P<arguments>(?:"[^"]*"|[^")])*)\)\s*(?P<open>\{?)
    |(?P<close>\})
    |(?P<end>\Z))""",
    re.VERBOSE,
)


def parse_liberty(text: str, what: str) -> Group:
    """The ``library`` group of Liberty text."""
    text = _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)
    top = Group("file", ())
    stack = [top]
    position = 0
    while True:
        match = _STATEMENT.match(text, position)
        if match is None or (match["close"] and len(stack) == 1):
            line = text.count("\n", 0, position) + 1
            raise InputError(f"{what} must be Liberty text; line {line} is not")
        if match["end"] is not None:
            break
        _take(match, stack)
        position = match.end()
    library = top.first("library")
    if len(stack) > 1 or library is None:
        raise InputError(f"{what} must be one whole Liberty library, not a part of one")
    return library


def _take(match: re.Match[str], stack: list[Group]) -> None:
    if match["name"]:
        stack[-1].attributes[match["name"]] = match["value"].strip('"').strip()
    elif match["close"]:
        stack.pop()
    elif match["open"]:
        group = Group(match["kind"], _arguments(match["arguments"]))
        stack[-1].groups.append(group)
        stack.append(group)
    else:
        stack[-1].attributes[match["kind"]] = match["arguments"]


def _arguments(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip('"').strip() for part in text.split(",") if part.strip())


# From the file's groups and units to cells.


class _Units:
    """Factors from the file's units to ours, and its table templates."""

    def __init__(self, library: Group, what: str) -> None:
        amount, unit = (*_arguments(library.text("capacitive_load_unit", "1,pf")), "pf")[:2]
        self.capacitance = float(amount) * {"ff": 1.0, "pf": 1e3}[unit.lower()]
        self.time = _factor(library.text("time_unit", "1ns"), {"s": 1e12}, what)
        self.leakage = _factor(library.text("leakage_power_unit", "1nW"), {"w": 1e9}, what)
        volt = _factor(library.text("voltage_unit", "1V"), {"v": 1.0}, what)
        self.energy = self.capacitance * volt**2
        self.voltage_v = _voltage(library) * volt
        self.default_leakage = library.number("default_cell_leakage_power")
        self.default_capacitance = library.number("default_input_pin_cap")
        self.templates = {
            group.arguments[0]: group
            for kind in ("lu_table_template", "power_lut_template")
            for group in library.of(kind)
        }


def _factor(text: str, units: Mapping[str, float], what: str) -> float:
    match = re.fullmatch(r"\s*([\d.eE+-]+)\s*([munpfMk]?)([A-Za-z])\s*", text)
    if match is None or match[3].lower() not in units:
        raise InputError(f"units of {what} must be like '1ns', not {text!r}")
    prefix = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "k": 1e3, "M": 1e6}
    return float(match[1]) * prefix[match[2]] * units[match[3].lower()]


def _voltage(library: Group) -> float:
    wanted = library.text("default_operating_conditions")
    for group in library.of("operating_conditions"):
        if wanted in ("", *group.arguments) and "voltage" in group.attributes:
            return group.number("voltage")
    return library.number("nom_voltage", 1.0)


_SEQUENTIAL = ("ff", "latch", "statetable", "ff_bank", "latch_bank", "bus", "bundle")


def _is_usable(cell: Group) -> bool:
    """Combinational, driving nothing but functions of its inputs, and meant to be used."""
    outputs = [pin for pin in cell.of("pin") if pin.text("direction") == "output"]
    return (
        bool(outputs)
        and all(pin.text("function") and not pin.text("three_state") for pin in outputs)
        and not any(cell.first(kind) for kind in _SEQUENTIAL)
        and cell.text("dont_use").lower() != "true"
        and cell.text("is_isolation_cell").lower() != "true"
    )


def _cell(group: Group, units: _Units) -> LibraryCell | None:
    """The cell; None where a function names pins that are no inputs, or there are too many."""
    pins = {pin.arguments[0]: pin for pin in group.of("pin") if pin.arguments}
    inputs = tuple(name for name, pin in pins.items() if pin.text("direction") == "input")
    outputs = tuple(name for name, pin in pins.items() if pin.text("direction") == "output")
    tables = [boolean_table(pins[name].text("function"), inputs) for name in outputs]
    if len(inputs) > 8 or any(table is None for table in tables):
        return None
    kind = GateKind(
        group.arguments[0], inputs, outputs, tuple(table for table in tables if table is not None)
    )
    return LibraryCell(
        kind,
        group.number("area"),
        _leakage(group, inputs, units),
        tuple(_capacitance(pins[name], units) for name in inputs),
        tuple(_timing(pins, kind, units)),
        tuple(_power(pins, kind, units)),
    )


def _capacitance(pin: Group, units: _Units) -> float:
    both = [pin.number(f"{edge}_capacitance", -1.0) for edge in ("rise", "fall")]
    if min(both) >= 0:
        return sum(both) / 2 * units.capacitance
    return pin.number("capacitance", units.default_capacitance) * units.capacitance


def _leakage(cell: Group, inputs: tuple[str, ...], units: _Units) -> tuple[float, ...]:
    """By state: the value of the state's condition, else the unconditional one."""
    states = 1 << len(inputs)
    by_state: list[list[float]] = [[] for _ in range(states)]
    overall: list[float] = []
    for group in cell.of("leakage_power"):
        value = group.number("value")
        mask = boolean_table(group.text("when"), inputs) if group.text("when") else None
        if mask is None:
            overall.append(value)
        for state in range(states):
            if mask is not None and mask >> state & 1:
                by_state[state].append(value)
    known = [value for values in by_state for value in values]
    otherwise = overall or ([sum(known) / len(known)] if known else [units.default_leakage])
    base = cell.number("cell_leakage_power", otherwise[0])
    return tuple(
        (sum(values) / len(values) if values else base) * units.leakage for values in by_state
    )


def _timing(pins: Mapping[str, Group], kind: GateKind, units: _Units) -> Iterator[TimingArc]:
    senses = {"positive_unate": 1, "negative_unate": -1, "non_unate": 0}
    for output, name in enumerate(kind.outputs):
        for group in pins[name].of("timing"):
            if group.text("timing_type", "combinational") not in _COMBINATIONAL:
                continue
            for related in group.text("related_pin").split():
                if related in kind.inputs:
                    pin = kind.inputs.index(related)
                    sense = senses.get(group.text("timing_sense"), 0)
                    tables = [_table(group.first(part), units, units.time) for part in _TIMINGS]
                    yield TimingArc(pin, output, sense, *tables)


_COMBINATIONAL = ("combinational", "combinational_rise", "combinational_fall")
_TIMINGS = ("cell_rise", "cell_fall", "rise_transition", "fall_transition")


def _power(pins: Mapping[str, Group], kind: GateKind, units: _Units) -> Iterator[PowerArc]:
    every = (1 << (1 << len(kind.inputs))) - 1
    for name, pin in pins.items():
        output = kind.outputs.index(name) if name in kind.outputs else None
        for group in pin.of("internal_power"):
            condition = group.text("when")
            when = boolean_table(condition, kind.inputs) if condition else every
            both = group.first("power")
            rise, fall = (
                _table(both or group.first(edge), units, units.energy)
                for edge in ("rise_power", "fall_power")
            )
            for cause in _causes(group, name, kind):
                if when:
                    yield PowerArc(cause, output, when, rise, fall)


def _causes(group: Group, pin: str, kind: GateKind) -> list[int | None]:
    """The inputs whose edges this internal power belongs to; an input's own power is its own."""
    related = [name for name in group.text("related_pin").split() if name in kind.inputs]
    if pin in kind.inputs:
        return [kind.inputs.index(pin)]
    return [kind.inputs.index(name) for name in related] or [None]


_SLEW = ("input_net_transition", "input_transition_time")
_LOAD = ("total_output_net_capacitance",)


def _table(group: Group | None, units: _Units, factor: float) -> Table:
    """The table with slews along the rows; a missing one is zero."""
    if group is None or not group.text("values"):
        return Table((0.0,), (0.0,), ((0.0,),))
    template = units.templates.get(group.arguments[0] if group.arguments else "", Group("", ()))
    variables = [template.text(f"variable_{n}") for n in (1, 2, 3)]
    axes = [_numbers(group.text(f"index_{n}") or template.text(f"index_{n}")) for n in (1, 2)]
    values = np.array(_numbers(group.text("values"))) * factor
    slews, loads = [0.0], [0.0]
    if variables[0] in _SLEW:
        slews = [value * units.time for value in axes[0]]
        loads = [value * units.capacitance for value in axes[1]] if variables[1] in _LOAD else loads
        shaped = values.reshape(len(slews), len(loads))
    elif variables[0] in _LOAD:
        loads = [value * units.capacitance for value in axes[0]]
        slews = [value * units.time for value in axes[1]] if variables[1] in _SLEW else slews
        shaped = values.reshape(len(loads), len(slews)).T
    else:
        shaped = values[:1].reshape(1, 1)
    return Table(tuple(slews), tuple(loads), tuple(tuple(row) for row in shaped.tolist()))


def _numbers(text: str) -> list[float]:
    return [float(part) for part in re.split(r'[\s,"]+', text) if part]


def _position(axis: tuple[float, ...], value: float) -> tuple[int, float]:
    """The interval of a sorted axis that is to be used, and where in it the value lies."""
    if len(axis) < 2:
        return 0, 0.0
    index = 0
    while index < len(axis) - 2 and value > axis[index + 1]:
        index += 1
    return index, (value - axis[index]) / (axis[index + 1] - axis[index])


# Boolean expressions: ! and ' bind strongest, then ^, then & * and juxtaposition, then | +.


def boolean_table(expression: str, variables: tuple[str, ...]) -> int | None:
    """The truth table of a Liberty expression (bit m: variables at the bits of m).

    None where it names anything that is not one of the variables.
    """
    tokens = re.findall(r"[\w.\[\]]+|[!'^&*|+()]", expression)
    full = (1 << (1 << len(variables))) - 1
    masks = {name: _variable_mask(i, len(variables)) for i, name in enumerate(variables)}
    parser = _Expression(tokens, {**masks, "0": 0, "1": full}, full)
    try:
        return parser.disjunction()
    except KeyError:
        return None


def _variable_mask(index: int, count: int) -> int:
    return sum(1 << state for state in range(1 << count) if state >> index & 1)


class _Expression:
    """Recursive descent over the tokens of one expression; values are truth tables."""

    def __init__(self, tokens: list[str], values: Mapping[str, int], full: int) -> None:
        self._tokens = [*tokens, ""]
        self._values = values
        self._full = full
        self._position = 0

    def disjunction(self) -> int:
        value = self._conjunction()
        while self._take("|", "+"):
            value |= self._conjunction()
        return value

    def _conjunction(self) -> int:
        value = self._exclusive()
        while self._take("&", "*") or self._tokens[self._position] not in ("", ")", "|", "+"):
            value &= self._exclusive()
        return value

    def _exclusive(self) -> int:
        value = self._inversion()
        while self._take("^"):
            value ^= self._inversion()
        return value

    def _inversion(self) -> int:
        if self._take("!"):
            return self._full ^ self._inversion()
        if self._take("("):
            value = self.disjunction()
            self._take(")")
        else:
            value = self._values[self._tokens[self._position]]
            self._position += 1
        while self._take("'"):
            value ^= self._full
        return value

    def _take(self, *tokens: str) -> bool:
        taken = self._tokens[self._position] in tokens
        self._position += taken
        return taken
