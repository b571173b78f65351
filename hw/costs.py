"""What an operation costs: energy in its three parts, delay and area of the mapped netlist.

Energy per operation = switching + internal + leakage:
  switching  sum over nets of edges · C·V²/2, C the pins the net drives (inputs counted too)
  internal   sum over gates and edges of the library's internal energy at the net's slew and load
  leakage    state-dependent leakage power · clock period
The edges come from one of three models, which every cost names. The formulae: docs/hw.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .activity import (
    ENERGY_MODELS,
    Activity,
    EnergyModel,
    GateActivity,
    flip_activity,
    operand_activity,
    operand_stream,
    stream_activity,
)
from .errors import InputError, unknown_name
from .liberty import CellLibrary, LibraryCell, PowerArc, default_library
from .netlist import Gate, Netlist
from .synthesis import synthesise
from .timing import Timing, static_timing
from .waveforms import delayed_activity

if TYPE_CHECKING:
    from .multipliers import Multiplier

Array = npt.NDArray[np.float64]

CLOCK_MHZ = 500.0
"""One operation a cycle; the leakage energy depends on it, and the published-comparable energy."""

PUBLISHED_TOGGLES_PER_NS = 0.08213
"""Edges of each input bit in the published power figures of EvoApproxLib: a fit, see docs/hw.md."""


@dataclass(frozen=True)
class Cost:
    """Energy per operation and its parts, critical path, area, leakage, and what they hold for."""

    energy_fj: float
    switching_fj: float
    internal_fj: float
    leakage_fj: float
    delay_ps: float
    area_um2: float
    leakage_nw: float
    library: str
    clock_mhz: float
    activity: str
    model: EnergyModel = "workload zero-delay"

    @property
    def power_mw(self) -> float:
        """Energy times clock: one operation a cycle."""
        return self.energy_fj * self.clock_mhz * 1e-6

    def __add__(self, other: "Cost") -> "Cost":
        """Both circuits side by side: energies, areas and leakages add, the later one's delay."""
        if (self.library, self.clock_mhz) != (other.library, other.clock_mhz):
            raise InputError(
                f"costs that are added must be of one library and clock, not {self.library} at "
                f"{self.clock_mhz} MHz and {other.library} at {other.clock_mhz} MHz"
            )
        if self.model != other.model:
            raise InputError(
                f"costs that are added must be of one energy model, not {self.model} and "
                f"{other.model}"
            )
        activities = dict.fromkeys((self.activity, other.activity))
        return Cost(
            self.energy_fj + other.energy_fj,
            self.switching_fj + other.switching_fj,
            self.internal_fj + other.internal_fj,
            self.leakage_fj + other.leakage_fj,
            max(self.delay_ps, other.delay_ps),
            self.area_um2 + other.area_um2,
            self.leakage_nw + other.leakage_nw,
            self.library,
            self.clock_mhz,
            "; ".join(activities),
            self.model,
        )

    def to_json(self) -> dict[str, float | str]:
        """A flat object, one entry a field."""
        return asdict(self)

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "Cost":
        """The inverse of ``to_json``; ``InputError`` for anything else."""
        texts = ("library", "activity", "model")
        names = [field.name for field in fields(cls)]
        valid = set(obj) == set(names) and all(
            isinstance(obj[name], str if name in texts else int | float) for name in names
        )
        if not valid or obj["model"] not in ENERGY_MODELS:
            raise InputError(f"a cost must have the fields {', '.join(names)}, not {dict(obj)}")
        return cls(**obj)


@dataclass(frozen=True)
class Shares:
    """A power arc's share of rising and falling edges, by old (row) and new state (column)."""

    rise: Array
    fall: Array


def multiplier_cost(
    multiplier: "Multiplier",
    library: CellLibrary | None = None,
    *,
    clock_mhz: float = CLOCK_MHZ,
    a_probabilities: npt.ArrayLike | None = None,
    b_probabilities: npt.ArrayLike | None = None,
    stream: npt.ArrayLike | None = None,
    model: EnergyModel = "workload zero-delay",
) -> Cost:
    """The cost of one multiplication, synthesised on the library (the embedded one by default).

    Operands are uniform, or follow histograms by bit pattern (256 numbers for 8 bits), or are a
    recorded ``stream``: integers of shape (length, 2), bit patterns or two's-complement values.
    The published-comparable model knows no operands.
    """
    cells = library or default_library()
    mapped = synthesise(multiplier.netlist, cells)
    operands = Operands(a_probabilities, b_probabilities, stream)
    return mapped_cost(mapped, cells, operands, model=model, clock_mhz=clock_mhz)


@dataclass(frozen=True, eq=False)
class Operands:
    """What a circuit works on: a recorded stream, or independent draws (None: uniform)."""

    a_probabilities: npt.ArrayLike | None = None
    b_probabilities: npt.ArrayLike | None = None
    stream: npt.ArrayLike | None = None

    def __post_init__(self) -> None:
        if self.stream is not None and not self.uniform:
            raise InputError("operands must be histograms or a stream, not both")

    @property
    def uniform(self) -> bool:
        return self.a_probabilities is None and self.b_probabilities is None

    @property
    def histograms(self) -> list[npt.ArrayLike | None]:
        return [self.a_probabilities, self.b_probabilities]


def mapped_cost(
    mapped: Netlist,
    library: CellLibrary,
    operands: Operands | None = None,
    *,
    model: EnergyModel = "workload zero-delay",
    clock_mhz: float = CLOCK_MHZ,
) -> Cost:
    """The cost of a netlist of the library's cells with two operands, by one of the models."""
    activity = _activity(mapped, library, operands or Operands(), model, clock_mhz)
    return netlist_cost(mapped, library, activity, clock_mhz=clock_mhz)


def _activity(
    mapped: Netlist,
    library: CellLibrary,
    operands: Operands,
    model: EnergyModel,
    clock_mhz: float,
) -> Activity:
    if model == "published-comparable":
        if operands.stream is not None or not operands.uniform:
            raise InputError("operands must be left out of the published-comparable energy")
        return published_activity(mapped, clock_mhz)
    if model == "workload zero-delay":
        if operands.stream is not None:
            return stream_activity(mapped, operands.stream)
        return operand_activity(mapped, operands.histograms)
    if model != "workload real-delay":
        raise unknown_name("energy model", model, ENERGY_MODELS)
    if operands.stream is not None:
        return delayed_activity(mapped, library, operands.stream)
    drawn = operand_stream(mapped, operands.histograms)
    source = "uniform operands" if operands.uniform else "given operand histograms"
    found = delayed_activity(mapped, library, drawn)
    return replace(found, name=f"{len(drawn)} pairs of {source}, delays of {library.name}")


def published_activity(mapped: Netlist, clock_mhz: float = CLOCK_MHZ) -> Activity:
    """Each input bit flips ``PUBLISHED_TOGGLES_PER_NS`` times a ns, never two at once."""
    _check_clock(clock_mhz)
    bits = sum(port.width for port in mapped.inputs)
    flips = PUBLISHED_TOGGLES_PER_NS * bits * 1e3 / clock_mhz
    flip = flip_activity(mapped)
    rate = f"{PUBLISHED_TOGGLES_PER_NS} edges a ns of each input bit"
    return flip.scaled(flips, f"{flip.name}, {rate}")


def netlist_cost(
    mapped: Netlist, library: CellLibrary, activity: Activity, *, clock_mhz: float = CLOCK_MHZ
) -> Cost:
    """The cost of one operation of a netlist made of the library's cells."""
    _check_clock(clock_mhz)
    timing = static_timing(mapped, library)
    cells = [library.cells[gate.kind] for gate in mapped.gates]
    gates = list(zip(mapped.gates, cells, activity.gates, strict=True))
    switching = sum(
        activity.toggles(net) * load * library.voltage_v**2 / 2
        for net, load in timing.loads_ff.items()
    )
    shares = {kind: arc_shares(library.cells[kind]) for kind in mapped.gate_counts()}
    internal = sum(
        _internal_energy(gate, cell, changes, shares[gate.kind], timing)
        for gate, cell, changes in gates
    )
    leakage_nw = float(sum(each.states @ np.array(cell.leakage_nw) for _, cell, each in gates))
    leakage = leakage_nw / clock_mhz  # nW / MHz = fJ
    return Cost(
        energy_fj=switching + internal + leakage,
        switching_fj=switching,
        internal_fj=internal,
        leakage_fj=leakage,
        delay_ps=timing.delay_ps,
        area_um2=sum(cell.area_um2 for cell in cells),
        leakage_nw=leakage_nw,
        library=library.name,
        clock_mhz=clock_mhz,
        activity=activity.name,
        model=activity.model,
    )


def _check_clock(clock_mhz: float) -> None:
    if not clock_mhz > 0:
        raise InputError(f"clock must be above 0 MHz, not {clock_mhz}")


def _internal_energy(
    gate: Gate,
    cell: LibraryCell,
    activity: GateActivity,
    shares: Sequence[Shares],
    timing: Timing,
) -> float:
    """The gate's internal energy per operation in fJ: over arcs, edges expected · energy."""
    energy = 0.0
    for arc, share in zip(cell.power, shares, strict=True):
        causes = gate.inputs if arc.input is None else (gate.inputs[arc.input],)
        slew = max(timing.slews_ps[net].mean for net in causes)
        load = 0.0 if arc.output is None else timing.loads_ff[gate.outputs[arc.output]]
        changes = activity.changes if arc.output is None else activity.output_changes[arc.output]
        rises, falls = float((changes * share.rise).sum()), float((changes * share.fall).sum())
        energy += rises * arc.rise.at(slew, load) + falls * arc.fall.at(slew, load)
    return energy


def arc_shares(cell: LibraryCell) -> list[Shares]:
    """For each power arc of the cell, its share of each transition between input states.

    An edge of an output is charged in equal shares to the arcs from the inputs that changed and
    whose condition the new state meets; where none does, to those from the inputs that changed.
    """
    by_output = {output: _output_shares(cell, output) for output in range(len(cell.kind.outputs))}
    return [
        _input_shares(cell, arc) if arc.output is None else by_output[arc.output][index]
        for index, arc in enumerate(cell.power)
    ]


def _output_shares(cell: LibraryCell, output: int) -> dict[int, Shares]:
    """By number of the arc, for the arcs of one output."""
    arcs = {index: arc for index, arc in enumerate(cell.power) if arc.output == output}
    if not arcs:
        return {}
    caused = {index: _caused(cell, arc) for index, arc in arcs.items()}
    meets = {index: caused[index] & _holds(cell, arc) for index, arc in arcs.items()}
    meeting, causing = (sum(each.values(), np.zeros(())) for each in (meets, caused))
    value = _bits(cell.kind.tables[output], 1 << len(cell.kind.inputs))
    rise, fall = ~value[:, None] & value[None, :], value[:, None] & ~value[None, :]
    shares = {}
    for index in arcs:
        met = meets[index] / np.maximum(meeting, 1)
        share = np.where(meeting > 0, met, caused[index] / np.maximum(causing, 1))
        shares[index] = Shares(np.where(rise, share, 0.0), np.where(fall, share, 0.0))
    return shares


def _input_shares(cell: LibraryCell, arc: PowerArc) -> Shares:
    """An input's own edges, where the new state meets the condition."""
    assert arc.input is not None, cell.name
    states = np.arange(1 << len(cell.kind.inputs))
    value = (states >> arc.input & 1).astype(bool)
    holds = _holds(cell, arc)
    rise, fall = ~value[:, None] & value[None, :], value[:, None] & ~value[None, :]
    return Shares(np.where(rise & holds, 1.0, 0.0), np.where(fall & holds, 1.0, 0.0))


def _caused(cell: LibraryCell, arc: PowerArc) -> npt.NDArray[np.bool_]:
    """Transitions [old, new] in which the arc's input changes (any change, for one without)."""
    states = np.arange(1 << len(cell.kind.inputs))
    changed = states[:, None] ^ states[None, :]
    return changed != 0 if arc.input is None else (changed >> arc.input & 1).astype(bool)


def _holds(cell: LibraryCell, arc: PowerArc) -> npt.NDArray[np.bool_]:
    """Transitions whose new state meets the arc's condition, as a row to be broadcast."""
    return _bits(arc.when, 1 << len(cell.kind.inputs))[None, :]


def _bits(table: int, count: int) -> npt.NDArray[np.bool_]:
    return np.array([bool(table >> state & 1) for state in range(count)])
