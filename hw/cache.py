"""Results kept in a folder, by the digest of all that they depend on.

A key is the SHA-256 of the netlist, the cell library, the operands, the energy model and the
version: the source that computes it, Yosys and numpy. An entry is one small JSON file, written
whole or not at all (``files.py``), so any number of processes may share a folder and be killed at
any moment; the worst that happens is that two of them compute the same. A file that cannot be read
is computed anew.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .activity import EnergyModel
from .costs import CLOCK_MHZ, Cost, Operands, mapped_cost
from .errors import InputError
from .files import read_json, write_json
from .liberty import CellLibrary
from .netlist import GATE_KINDS, Gate, GateKind, Netlist, Port
from .synthesis import synthesise

FOLDER_VARIABLE = "COSEARCH_CACHE"
VERSIONED = ("pyosys", "numpy", "numba")
MEASURING = (
    "activity",
    "costs",
    "kernels",
    "liberty",
    "liberty_text",
    "netlist",
    "simulation",
    "synthesis",
    "timing",
    "verilog",
    "waveforms",
    "yosys",
    "yosys_json",
)
"""The modules whose source a remembered mapping or cost depends on."""


@dataclass(frozen=True)
class Cache:
    """A folder of results; created when the first is written.

    With ``only_known``, ``Unknown`` is raised where something would have to be computed.
    """

    folder: Path
    only_known: bool = False

    @classmethod
    def usual(cls) -> "Cache":
        """``$COSEARCH_CACHE``, else ``cosearch`` in the user's cache folder."""
        given = os.environ.get(FOLDER_VARIABLE)
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        return cls(Path(given) if given else Path(home) / "cosearch")

    def remembered(self, key: str, compute: Callable[[], Any]) -> Any:
        """The JSON value under ``key``; computed and written where there is none, or no whole one.

        What cannot be written (no space, no permission) is merely not remembered.
        """
        path = self.folder / key[:2] / f"{key}.json"
        try:
            return read_json(path)["value"]
        except (InputError, OSError, KeyError, TypeError):
            if self.only_known:
                raise Unknown(key) from None
            value = compute()
        with contextlib.suppress(OSError):
            write_json(path, {"value": value})
        return value


class Unknown(Exception):  # noqa: N818 # no error, an answer
    """There is no result under that key."""


def cached_netlist(name: str, cache: Cache) -> Netlist:
    """The netlist of a built-in family's multiplier, remembered."""
    from .multipliers import build_multiplier

    key = _key("netlist", name, circuits_version())

    def built() -> Any:
        return mapping_to_json(build_multiplier(name).netlist)

    try:
        return mapping_from_json(name, cache.remembered(key, built), GATE_KINDS)
    except (InputError, KeyError, TypeError, ValueError):
        return build_multiplier(name).netlist


def cached_mapping(netlist: Netlist, library: CellLibrary, cache: Cache) -> Netlist:
    """``synthesise``, remembered."""
    key = _key("mapping", netlist_digest(netlist), library_digest(library))

    def mapped() -> Any:
        return mapping_to_json(synthesise(netlist, library))

    try:
        return mapping_from_json(netlist.name, cache.remembered(key, mapped), library.kinds)
    except (InputError, KeyError, TypeError, ValueError):
        return synthesise(netlist, library)


def cached_cost(
    netlist: Netlist,
    library: CellLibrary,
    cache: Cache,
    operands: Operands | None = None,
    *,
    model: EnergyModel = "workload zero-delay",
    clock_mhz: float = CLOCK_MHZ,
) -> Cost:
    """The cost of a netlist of gates, synthesised on the library; remembered."""
    given = operands or Operands()
    key = _key(
        "cost",
        netlist_digest(netlist),
        library_digest(library),
        operands_digest(given),
        model,
        repr(float(clock_mhz)),
    )

    def cost() -> Any:
        mapped = cached_mapping(netlist, library, cache)
        return mapped_cost(mapped, library, given, model=model, clock_mhz=clock_mhz).to_json()

    try:
        return Cost.from_json(cache.remembered(key, cost))
    except (InputError, AttributeError, TypeError):
        return Cost.from_json(cost())


def cached_float_cost(
    name: str, library: CellLibrary, cache: Cache, *, clock_mhz: float = CLOCK_MHZ
) -> Cost:
    """``float_multiplier_cost`` with its own draws, remembered."""
    from .float_cost import float_multiplier_cost

    what = (name, circuits_version(), library_digest(library), repr(float(clock_mhz)))

    def cost() -> Any:
        return float_multiplier_cost(name, library, clock_mhz=clock_mhz).to_json()

    try:
        return Cost.from_json(cache.remembered(_key("cost", "float", *what), cost))
    except (InputError, AttributeError, TypeError):
        return Cost.from_json(cost())


# What results depend on.


@cache
def version() -> str:
    """Digest of the source that maps and measures, and the versions of what it computes with."""
    folder = Path(__file__).parent
    return _source_digest((folder / f"{name}.py" for name in MEASURING), VERSIONED)


@cache
def circuits_version() -> str:
    """Digest of the source that makes netlists of names."""
    folder = Path(__file__).parent
    paths = [folder / f"{name}.py" for name in ("amaranth_netlist", "yosys", "yosys_json")]
    paths += sorted((folder / "multipliers").glob("*.py"))
    return _source_digest(paths, ("pyosys", "amaranth"))


def _source_digest(paths: Iterable[Path], packages: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in packages:
        digest.update(f"{name} {metadata.version(name)}".encode())
    return digest.hexdigest()


def netlist_digest(netlist: Netlist) -> str:
    """Of ports and gates with their functions; names of the circuit and its nets do not matter."""
    kinds = [netlist.kinds[name] for name in sorted(netlist.gate_counts())]
    return _key(
        *(f"{port.name} {port.nets}" for port in (*netlist.inputs, *netlist.outputs)),
        *(f"{kind.name} {kind.inputs} {kind.outputs} {kind.tables}" for kind in kinds),
        *(f"{gate.kind} {gate.inputs} {gate.outputs}" for gate in netlist.gates),
    )


@cache
def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def library_digest(library: CellLibrary) -> str:
    """Of the library's text and name."""
    return _key(library.name, _text_digest(library.text), repr(library.voltage_v))


def operands_digest(operands: Operands) -> str:
    """Of the histograms, scaled to a sum of one, or of the stream."""
    parts = []
    for histogram in operands.histograms:
        array = None if histogram is None else np.asarray(histogram, np.float64)
        parts.append("uniform" if array is None else _bytes_digest(array / (array.sum() or 1.0)))
    stream = None if operands.stream is None else np.asarray(operands.stream)
    parts.append("none" if stream is None else f"{stream.shape} {stream.dtype.kind}")
    parts.append("" if stream is None else _bytes_digest(stream.astype(np.int64)))
    return _key(*parts)


def _bytes_digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _key(*parts: str) -> str:
    """One digest of several texts; the parts' borders count."""
    text = json.dumps([version() if parts[0] in ("mapping", "cost") else "", *parts])
    return hashlib.sha256(text.encode()).hexdigest()


# Mapped netlists as JSON.


def mapping_to_json(netlist: Netlist) -> dict[str, Any]:
    """Ports and gates; net names are left out."""
    return {
        "inputs": [[port.name, port.nets] for port in netlist.inputs],
        "outputs": [[port.name, port.nets] for port in netlist.outputs],
        "gates": [[gate.kind, gate.inputs, gate.outputs] for gate in netlist.gates],
    }


def mapping_from_json(name: str, obj: Any, kinds: Mapping[str, GateKind]) -> Netlist:
    """The inverse; KeyError, TypeError, ValueError or InputError for what is no netlist."""
    inputs, outputs = (
        tuple(Port(port, tuple(nets)) for port, nets in obj[way]) for way in ("inputs", "outputs")
    )
    gates = tuple(Gate(kind, tuple(reads), tuple(drives)) for kind, reads, drives in obj["gates"])
    return Netlist(name, inputs, outputs, gates, {}, kinds)
