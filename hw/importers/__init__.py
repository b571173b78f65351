"""Multipliers from elsewhere: one importer a file, one registry.

Each takes a ``Source`` and returns an ``Imported``: the table always, the netlist where there are
gates. Foreign code is read, not run; the one exception is a component of Amaranth, which is Python.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..errors import InputError, unknown_name
from . import amaranth_component, c_function, lut_header, table_file, verilog_file
from .imported import Imported as Imported
from .source import Source as Source

IMPORTERS: Mapping[str, Callable[[Source], Imported]] = {
    "amaranth": amaranth_component.imported,
    "verilog": verilog_file.imported,
    "c": c_function.imported,
    "table": table_file.imported,
    "lut_header": lut_header.imported,
}

_SUFFIXES = {".v": "verilog", ".c": "c", ".npy": "table", ".csv": "table", ".h": "lut_header"}


def import_multiplier(source: Source, kind: str | None = None) -> Imported:
    """What ``source`` holds; the kind of importer is told by the file's suffix where not given."""
    kind = kind or _kind(source)
    if kind not in IMPORTERS:
        raise unknown_name("kind of importer", kind, IMPORTERS)
    return IMPORTERS[kind](source)


def distinct(imports: Iterable[Imported]) -> dict[str, Imported]:
    """By name; ``InputError`` where one name stands for two circuits with different tables."""
    found: dict[str, Imported] = {}
    for each in imports:
        other = found.setdefault(each.name, each)
        if other.digest != each.digest:
            raise InputError(
                f"multiplier {each.name!r} must be one circuit, not two: {other.origin} has the "
                f"table {other.digest[:12]}, {each.origin} {each.digest[:12]}"
            )
    return found


def _kind(source: Source) -> str:
    suffix = Path(source.place).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if ":" in source.place:
        return "amaranth"
    raise InputError(
        f"{source.place} must be a file in {', '.join(sorted(_SUFFIXES))} or module:Class, "
        "or its kind must be given"
    )
