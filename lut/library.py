"""A multiplier library: tables, factors, error metrics and figures of a set of multipliers, on
disk.

A saved library is all that a search needs: no gate-level tool is imported to load one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.costs import Cost
from hw.errors import InputError, unknown_name
from hw.files import read_json, write_bytes, write_json

from .factors import Factors, JointBasis, joint_basis
from .metrics import ErrorMetrics, error_metrics
from .table import LUT

__all__ = ["LibraryEntry", "MultiplierLibrary"]

FORMAT = 1
INDEX = "library.json"
STORED_RANK_LIMIT = 64


@dataclass(frozen=True)
class LibraryEntry:
    """One multiplier: its LUT (which knows its factors where the rank is low) and its figures.

    ``circuit`` is the file of a circuit that no family describes (hw/multipliers/saved.py).
    """

    lut: LUT
    family: str
    cost: Cost
    metrics: ErrorMetrics
    circuit: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        return self.lut.name

    @property
    def digest(self) -> str:
        return self.lut.digest


@dataclass(frozen=True, eq=False)
class NamedBasis:
    """The joint basis of the tables with these names, in this order."""

    names: tuple[str, ...]
    basis: JointBasis

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NamedBasis):
            return NotImplemented
        mine, theirs = self.basis, other.basis
        return self.names == other.names and all(
            np.array_equal(a, b) for a, b in ((mine.u, theirs.u), (mine.v, theirs.v))
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class MultiplierLibrary:
    """Multipliers by name; `cell_library` and `clock_mhz` are those of their costs."""

    entries: tuple[LibraryEntry, ...]
    cell_library: str
    clock_mhz: float
    bases: tuple["NamedBasis", ...] = ()

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise InputError(f"multiplier names must differ, not be {repeated!r} twice")

    def __getitem__(self, name: str) -> LibraryEntry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise unknown_name("multiplier", name, [entry.name for entry in self.entries])

    def __iter__(self) -> Iterator[LibraryEntry]:
        return iter(self.entries)

    def luts(self, names: Sequence[str]) -> list[LUT]:
        return [self[name].lut for name in names]

    def basis(self, names: Sequence[str]) -> JointBasis:
        """One activation side for the named multipliers: stored, or computed (python-flint)."""
        for stored in self.bases:
            if stored.names == tuple(names):
                return stored.basis
        return joint_basis(self.luts(names))

    @classmethod
    def build(
        cls,
        names: Sequence[str],
        *,
        cells: Path | None = None,
        clock_mhz: float = 500.0,
        circuits: Path = Path("circuits"),
        together: Sequence[str] = (),
        progress: Callable[[Sequence[str]], Iterator[str]] = iter,
    ) -> "MultiplierLibrary":
        """Build, simulate, synthesise and measure each multiplier; `progress` wraps the names.

        `cells` as for `hw.find_library`; costs are remembered in `hw.cache`'s usual folder.

        Names of saved circuits are looked up in folder `circuits`. The joint basis of those named
        in `together` is stored with the library.
        """
        from hw.liberty import find_library

        library = find_library("" if cells is None else cells)
        entries = tuple(
            _entry(name, library, clock_mhz, circuits) for name in progress(list(names))
        )
        built = cls(entries, library.name, clock_mhz)
        if not together:
            return built
        return replace(built, bases=(NamedBasis(tuple(together), built.basis(together)),))

    def save(self, folder: Path) -> None:
        """Write ``<name>.npz`` for each multiplier, then the index that makes them a library.

        Circuits that no family describes are copied: the folder holds all that the library needs.
        """
        for entry in self.entries:
            write_bytes(folder / f"{entry.name}.npz", _archive(entry.lut))
            if entry.circuit is not None:
                write_bytes(folder / f"{entry.name}.json", entry.circuit.read_bytes())
        for number, stored in enumerate(self.bases):
            write_bytes(folder / _basis_file(number), _npz(u=stored.basis.u, v=stored.basis.v))
        write_json(
            folder / INDEX,
            {
                "format": FORMAT,
                "cell_library": self.cell_library,
                "clock_mhz": self.clock_mhz,
                "multipliers": [_to_json(entry) for entry in self.entries],
                "bases": [list(stored.names) for stored in self.bases],
            },
        )

    @classmethod
    def load(cls, folder: Path) -> "MultiplierLibrary":
        """Read a saved library; every table is checked against its digest, factors against the
        table.

        Raises InputError that names the file which is missing, damaged or of another format.
        """
        index = read_json(folder / INDEX)
        try:
            if index["format"] != FORMAT:
                raise InputError(
                    f"{folder / INDEX} must be of format {FORMAT}, not {index['format']}"
                )
            entries = tuple(_from_json(folder, item) for item in index["multipliers"])
            library = cls(entries, str(index["cell_library"]), float(index["clock_mhz"]))
            bases = tuple(
                _read_basis(folder / _basis_file(number), library, tuple(names))
                for number, names in enumerate(index["bases"])
            )
            return replace(library, bases=bases)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{folder / INDEX} must be a multiplier library, not lack {error}"
            ) from None


def _entry(name: str, library: Any, clock_mhz: float, circuits: Path) -> LibraryEntry:
    from hw.cache import Cache, cached_cost
    from hw.multipliers import build_multiplier, parse_saved_name

    multiplier = build_multiplier(name, circuits)
    circuit = None if parse_saved_name(name) is None else circuits / f"{name}.json"
    lut = LUT.of(multiplier)
    cost = cached_cost(multiplier.netlist, library, Cache.usual(), clock_mhz=clock_mhz)
    return LibraryEntry(lut, multiplier.family, cost, error_metrics(lut), circuit)


def _archive(lut: LUT) -> bytes:
    arrays: dict[str, Any] = {"table": lut.table}
    if lut.rank <= STORED_RANK_LIMIT:
        arrays |= {"u": lut.factors.u, "v": lut.factors.v}
    return _npz(**arrays)


def _npz(**arrays: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _basis_file(number: int) -> str:
    return f"basis-{number}.npz"


def _read_basis(path: Path, library: MultiplierLibrary, names: tuple[str, ...]) -> NamedBasis:
    """The stored basis; InputError when it does not reproduce the tables it is named for."""
    arrays = _read_archive(path)
    basis = JointBasis(arrays["u"], arrays["v"])
    if len(basis.v) != len(names) or not all(
        np.array_equal(basis.factors(index).table, lut.table)
        for index, lut in enumerate(library.luts(names))
    ):
        raise InputError(f"{path} must reproduce the tables of {', '.join(names)}, it does not")
    return NamedBasis(names, basis)


def _to_json(entry: LibraryEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "family": entry.family,
        "sha256": entry.digest,
        "a_signed": entry.lut.a_signed,
        "b_signed": entry.lut.b_signed,
        "rank": entry.lut.rank,
        "metrics": entry.metrics.to_json(),
        "cost": entry.cost.to_json(),
    } | ({} if entry.circuit is None else {"circuit": f"{entry.name}.json"})


def _from_json(folder: Path, item: dict[str, Any]) -> LibraryEntry:
    name = str(item["name"])
    if Path(name).name != name:
        raise InputError(f"a multiplier's name must be a plain file name, not {name!r}")
    path = folder / f"{name}.npz"
    arrays = _read_archive(path)
    lut = LUT(
        arrays["table"], a_signed=bool(item["a_signed"]), b_signed=bool(item["b_signed"]), name=name
    )
    if lut.digest != item["sha256"]:
        raise InputError(f"{path} must hold the table of digest {item['sha256']}, not {lut.digest}")
    if "u" in arrays:
        lut = lut.with_factors(Factors(arrays["u"], arrays["v"]))
    else:
        lut.__dict__["rank"] = int(item["rank"])
    return LibraryEntry(
        lut,
        str(item["family"]),
        Cost.from_json(item["cost"]),
        ErrorMetrics(**item["metrics"]),
        folder / f"{name}.json" if "circuit" in item else None,
    )


def _read_archive(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} must exist, it is missing; run `cosearch lut` again") from None
    try:
        with np.load(BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in ("table", "u", "v") if name in archive.files}
    except Exception as error:  # whatever the bytes provoke, they are what is wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} must be an intact .npz of a LUT, not damaged ({reason})"
        ) from None
