"""``cosearch lut evolve``: a search for a circuit, from its options to the file it is kept in."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from hw.evolution import EvolutionTask, Evolved, evolve_multiplier
from hw.liberty import CellLibrary, default_library, read_liberty
from hw.multipliers import save_multiplier


def evolve(
    task: EvolutionTask,
    folder: Path,
    *,
    cells: Path | None,
    seconds: float | None,
    resume: bool,
    log: Callable[[str], None],
) -> Path:
    """Search, and write the circuit into ``folder``; the file.

    The search's state is kept there until its evaluations are used up.
    """
    library = default_library() if cells is None else read_liberty(cells)
    state = folder / f"search-{task.digest()[:12]}.json"
    if not resume:
        state.unlink(missing_ok=True)
    evolved = evolve_multiplier(
        task,
        library,
        progress=lambda step: log(str(step)),
        checkpoint=state,
        seconds=seconds,
    )
    path = save_multiplier(evolved.multiplier, folder, _notes(task, evolved))
    log(_summary(task, evolved, library, path))
    if evolved.evaluations >= task.evaluations:
        state.unlink(missing_ok=True)
    else:
        log(f"{evolved.evaluations} of {task.evaluations} evaluations: --resume goes on")
    return path


def _notes(task: EvolutionTask, evolved: Evolved) -> dict[str, object]:
    return {
        "task": asdict(task),
        "evaluations": evolved.evaluations,
        "errors": asdict(evolved.errors),
        "cost": evolved.cost.to_json(),
    }


def _summary(task: EvolutionTask, evolved: Evolved, library: CellLibrary, path: Path) -> str:
    cost, errors = evolved.cost, evolved.errors
    return (
        f"{evolved.multiplier.name}: {cost.energy_fj:.1f} fJ, {cost.delay_ps:.0f} ps, "
        f"{cost.area_um2:.1f} µm² on {library.name}; MAE {errors.mae:.2f}, WCE {errors.wce}, "
        f"bias {errors.bias:.2f}\nwritten to {path}; as a candidate: "
        f'multipliers.candidates = ["mul8s_array", "{evolved.multiplier.name}"], '
        f'multipliers.circuits = "{path.parent}"'
    )
