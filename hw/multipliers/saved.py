"""Circuits kept in files: a multiplier that no family describes, named by the digest of its gates.

``mul8u_evolved_3f2a90c1d4e5`` is 8×8 bits, unsigned, evolved, and 3f2a90c1d4e5 the first twelve
digits of the SHA-256 of its circuit; it lies in ``<folder>/mul8u_evolved_3f2a90c1d4e5.json``. The
name says which circuit it is, so it does not matter in which folder it is found: a file with
another circuit is refused.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json, write_json
from ..netlist import GATE_KINDS, Gate, Netlist, Port
from .multiplier import Multiplier, Shape

FORMAT = 1
DIGITS = 12
_NAME = re.compile(rf"mul(\d+)(?:x(\d+))?([su])_([a-z]+)_([0-9a-f]{{{DIGITS}}})")


@dataclass(frozen=True)
class SavedName:
    """What the name of a saved circuit says."""

    shape: Shape
    family: str
    digest: str

    def __str__(self) -> str:
        widths = dict.fromkeys((self.shape.a_width, self.shape.b_width))
        sign = "s" if self.shape.signed else "u"
        return f"mul{'x'.join(map(str, widths))}{sign}_{self.family}_{self.digest}"


def parse_saved_name(name: str) -> SavedName | None:
    """What ``name`` says if it is that of a saved circuit; no file is looked at."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    a_width, b_width, sign, family, digest = match.groups()
    parsed = SavedName(Shape(int(a_width), int(b_width or a_width), sign == "s"), family, digest)
    if str(parsed) != name:
        raise InputError(f"multiplier must be named {str(parsed)!r}, not {name!r}")
    return parsed


def named_by_digest(family: str, netlist: Netlist, signed: bool, origin: str) -> Multiplier:
    """A multiplier of these generic gates under the name that its digest gives it."""
    canonical = _renumbered(netlist)
    a_width, b_width = (port.width for port in canonical.inputs)
    shape = Shape(a_width, b_width, signed)
    name = str(SavedName(shape, family, _digest(canonical, signed)))
    netlist = replace(canonical, name=name)
    return Multiplier(name, family, (), a_width, b_width, signed, netlist, origin)


def save_multiplier(
    multiplier: Multiplier, folder: str | os.PathLike[str], notes: Mapping[str, Any] | None = None
) -> Path:
    """Write a multiplier named by its digest to ``<folder>/<name>.json``; ``notes`` for readers."""
    path = Path(folder) / f"{multiplier.name}.json"
    netlist = multiplier.netlist
    circuit = {
        "format": FORMAT,
        "name": multiplier.name,
        "origin": multiplier.origin,
        "notes": dict(notes or {}),
        "inputs": {port.name: list(port.nets) for port in netlist.inputs},
        "outputs": {port.name: list(port.nets) for port in netlist.outputs},
        "gates": [[gate.kind, list(gate.inputs), list(gate.outputs)] for gate in netlist.gates],
    }
    write_json(path, circuit)
    return path


def load_multiplier(path: str | os.PathLike[str]) -> Multiplier:
    """The multiplier in a file that ``save_multiplier`` wrote; ``InputError`` for any other."""
    circuit = read_json(path)
    try:
        if circuit["format"] != FORMAT:
            raise InputError(f"{path} must be of format {FORMAT}, not {circuit['format']!r}")
        name, origin, netlist = str(circuit["name"]), str(circuit["origin"]), _netlist(circuit)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} must be a saved circuit, not lack or garble {error}") from None
    parsed = parse_saved_name(name)
    if parsed is None or _digest(netlist, parsed.shape.signed) != parsed.digest:
        raise InputError(f"{path} must hold the circuit that its name {name!r} says, not another")
    multiplier = named_by_digest(parsed.family, netlist, parsed.shape.signed, origin)
    if multiplier.name != name:
        raise InputError(f"{path} must hold a circuit named {multiplier.name!r}, not {name!r}")
    return multiplier


def find_multiplier(name: str, folder: str | os.PathLike[str]) -> Multiplier:
    """The saved circuit of that name in a folder."""
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        raise InputError(f"saved circuit {name} must lie in {path}, but there is no such file")
    multiplier = load_multiplier(path)
    if multiplier.name != name:
        raise InputError(f"{path} must hold circuit {name}, not {multiplier.name}")
    return multiplier


def _netlist(circuit: Mapping[str, Any]) -> Netlist:
    inputs, outputs = (
        tuple(Port(name, tuple(map(int, nets))) for name, nets in circuit[way].items())
        for way in ("inputs", "outputs")
    )
    gates = tuple(
        Gate(str(kind), tuple(map(int, reads)), tuple(map(int, drives)))
        for kind, reads, drives in circuit["gates"]
    )
    return Netlist(str(circuit["name"]), inputs, outputs, gates)


def _renumbered(netlist: Netlist) -> Netlist:
    """Ports named a, b and p, nets numbered from 2 on as they are driven, no net names."""
    if any(GATE_KINDS.get(gate.kind) != netlist.kinds[gate.kind] for gate in netlist.gates):
        raise InputError(f"gates of {netlist.name} must be generic ones to be saved, not cells")
    numbers = {0: 0, 1: 1}
    driven = [net for port in netlist.inputs for net in port.nets]
    driven += [net for gate in netlist.gates for net in gate.outputs]
    numbers |= {net: number for number, net in enumerate(driven, 2)}

    def moved(nets: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(numbers[net] for net in nets)

    a, b = netlist.inputs
    (p,) = netlist.outputs
    gates = tuple(
        Gate(gate.kind, moved(gate.inputs), moved(gate.outputs)) for gate in netlist.gates
    )
    ports = Port("a", moved(a.nets)), Port("b", moved(b.nets))
    return Netlist(netlist.name, ports, (Port("p", moved(p.nets)),), gates)


def _digest(netlist: Netlist, signed: bool) -> str:
    """The first digits of the SHA-256 of what the circuit is, whatever it is called."""
    ports = [port.nets for port in (*netlist.inputs, *netlist.outputs)]
    gates = [(gate.kind, gate.inputs, gate.outputs) for gate in netlist.gates]
    text = json.dumps([signed, ports, gates], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
