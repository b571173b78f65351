"""Build, simulate, synthesise and measure the multipliers of the configuration."""

from pathlib import Path

from cosearch.array_figures import build_array_figures, write_array_figures
from cosearch.mapped_netlists import write_mapped_netlists
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from lut import LibraryEntry, MultiplierLibrary


def run(run: RunFolder, progress: Progress) -> None:
    """Write ``luts/``: tables, factors, error metrics, energy, delay and area, and the array's
    figures.
    """
    config = run.config
    library = MultiplierLibrary.build(
        [*config.multipliers.candidates, *config.multipliers.built_also],
        cells=Path(config.hardware.cells) if config.hardware.cells else None,
        clock_mhz=config.hardware.clock_mhz,
        circuits=Path(config.multipliers.circuits),
        together=config.multipliers.candidates,
        progress=lambda names: progress.track(names, "multipliers"),
    )
    library.save(run.luts)
    figures = build_array_figures(
        config.hardware, lambda names: progress.track(names, "accumulators")
    )
    write_array_figures(figures, run.luts)
    if config.search.operand_statistics == "gathered":
        names, circuits = config.multipliers.candidates, Path(config.multipliers.circuits)
        write_mapped_netlists(names, config.hardware, circuits, run.luts)
    for entry in library:
        progress.log(_line(entry))
    widest = config.hardware.accumulator_width
    addition = figures.addition(widest)
    progress.log(
        f"  {f'addition of {widest} bits':<26} {addition.energy_fj:24.1f} fJ, "
        f"{addition.delay_ps:5.0f} ps"
    )


def _line(entry: LibraryEntry) -> str:
    cost, metrics = entry.cost, entry.metrics
    return (
        f"  {entry.name:<26} rank {entry.lut.rank:>2}, MAE {metrics.mae:8.2f}, "
        f"{cost.energy_fj:6.1f} fJ, {cost.delay_ps:5.0f} ps, {cost.area_um2:5.0f} µm²"
    )
