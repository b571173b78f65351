"""The results of a run as its report needs them, read from the JSON files in the run folder."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosearch.genotype import Genotype
from cosearch.metrics import read_metrics
from cosearch.run_folder import ROLES, RunFolder
from hw.errors import InputError
from hw.files import read_json

Row = Mapping[str, Any]


@dataclass(frozen=True)
class NetworkResult:
    """One network on the test images; ``energy_nj`` of an inference, where it is defined.

    ``lines_nj``: all its lines of energy, empty where they are not known; so is ``latency_ms``.
    """

    role: str
    accuracy: float
    energy_nj: float | None
    macs: int
    lines_nj: Mapping[str, float] = field(default_factory=dict)
    latency_ms: float | None = None
    clocks: int | None = None
    period_ps: float | None = None


@dataclass(frozen=True)
class LayerResult:
    """One convolution: energy of an inference with the multiplier found, and with the exact."""

    layer: str
    operation: str
    multiplier: str
    sha256: str
    macs: int
    energy_nj: float
    exact_energy_nj: float


@dataclass(frozen=True)
class MultiplierResult:
    """One multiplier of the run's library; ``mre`` and ``ep`` are ratios."""

    name: str
    family: str
    signed: bool
    sha256: str
    rank: int
    mae: float
    wce: float
    mre: float
    ep: float
    energy_fj: float
    delay_ps: float
    area_um2: float
    candidate: bool


@dataclass(frozen=True)
class EnergyBasis:
    """What every energy of the report is stated for; `operands`: of the line of multiplications."""

    library: str
    clock_mhz: float
    activity: str
    counts: str
    operands: str = "uniform"

    def __str__(self) -> str:
        return f"{self.counts}; {self.library} at {self.clock_mhz:g} MHz; activity: {self.activity}"


@dataclass(frozen=True)
class Results:
    """All that a report shows."""

    folder: Path
    record: Row
    config_toml: str
    test_images: int
    networks: tuple[NetworkResult, ...]
    energy_saved: float
    basis: EnergyBasis
    layers: tuple[LayerResult, ...]
    multipliers: tuple[MultiplierResult, ...]
    genotype: Genotype
    search: tuple[Row, ...]
    training: tuple[Row, ...]
    bundle: tuple[str, ...]
    refinement: Row | None = None  # what assignment.json of a refined run holds
    sensitivities: Row | None = None

    @property
    def line_names(self) -> tuple[str, ...]:
        """Lines of energy that are known of the networks, in order."""
        return tuple(dict.fromkeys(name for one in self.networks for name in one.lines_nj))

    def network(self, role: str) -> NetworkResult:
        """The network in ``role``, one of ``run_folder.ROLES``."""
        return next(network for network in self.networks if network.role == role)


def read_results(run: RunFolder) -> Results:
    """The results in ``run``; ``InputError`` names a file that is not as its stage writes it."""
    evaluation = read_json(run.evaluation)
    with _reading(run.evaluation):
        networks = tuple(_network(role, evaluation["networks"][role]) for role in ROLES)
        layers = tuple(_layer(row) for row in evaluation["layers"])
        basis = _basis(evaluation["energy"])
        saved, images = float(evaluation["energy_saved"]), int(evaluation["test_images"])
    return Results(
        folder=run.path,
        record=run.record,
        config_toml=run.config.to_toml(),
        test_images=images,
        networks=networks,
        energy_saved=saved,
        basis=basis,
        layers=layers,
        multipliers=_multipliers(run),
        genotype=Genotype.from_json(read_json(run.genotype), str(run.genotype)),
        search=tuple(read_metrics(run.search_metrics)),
        training=tuple(read_metrics(run.train_metrics)),
        bundle=_files(run.bundle),
        refinement=_optional(run.assignment),
        sensitivities=_optional(run.assignment.with_name("sensitivities.json")),
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a malformed file provokes into an ``InputError`` that names the file."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path} must have the key {error.args[0]!r}") from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path} must be as its stage writes it ({error})") from None


def _network(role: str, row: Row) -> NetworkResult:
    energy = row["energy_nj"]
    lines = row.get("energy_lines_nj") or {}
    latency, clocks, period = (row.get(key) for key in ("latency_ms", "clocks", "period_ps"))
    return NetworkResult(
        role,
        float(row["accuracy"]),
        None if energy is None else float(energy),
        int(row["macs"]),
        {str(name): float(value) for name, value in lines.items()},
        None if latency is None else float(latency),
        None if clocks is None else int(clocks),
        None if period is None else float(period),
    )


def _layer(row: Row) -> LayerResult:
    return LayerResult(
        layer=str(row["layer"]),
        operation=str(row["operation"]),
        multiplier=str(row["multiplier"]),
        sha256=str(row["lut_sha256"]),
        macs=int(row["macs"]),
        energy_nj=float(row["energy_nj"]),
        exact_energy_nj=float(row["exact_energy_nj"]),
    )


def _basis(row: Row) -> EnergyBasis:
    return EnergyBasis(
        library=str(row["library"]),
        clock_mhz=float(row["clock_mhz"]),
        activity=str(row["activity"]),
        counts=str(row["counts"]),
        operands=str(row.get("operands", "uniform")),
    )


def _multipliers(run: RunFolder) -> tuple[MultiplierResult, ...]:
    path = run.luts / "library.json"
    index = read_json(path)
    candidates = run.config.multipliers.candidates
    with _reading(path):
        return tuple(_multiplier(row, row["name"] in candidates) for row in index["multipliers"])


def _multiplier(row: Row, candidate: bool) -> MultiplierResult:
    metrics, cost = row["metrics"], row["cost"]
    return MultiplierResult(
        name=str(row["name"]),
        family=str(row["family"]),
        signed=bool(row["a_signed"]),
        sha256=str(row["sha256"]),
        rank=int(row["rank"]),
        mae=float(metrics["mae"]),
        wce=float(metrics["wce"]),
        mre=float(metrics["mre"]),
        ep=float(metrics["ep"]),
        energy_fj=float(cost["energy_fj"]),
        delay_ps=float(cost["delay_ps"]),
        area_um2=float(cost["area_um2"]),
        candidate=candidate,
    )


def _optional(path: Path) -> Row | None:
    return read_json(path) if path.exists() else None


def _files(folder: Path) -> tuple[str, ...]:
    """The files under ``folder``, as paths relative to it, in order."""
    if not folder.is_dir():
        return ()
    found = (path for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(path.relative_to(folder).as_posix() for path in found))
