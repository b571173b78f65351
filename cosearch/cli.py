"""The command line. This module imports nothing slow: each command imports what it uses.

What a user gave wrong, or what the system refuses, is one line on standard error and exit code 2;
an interruption is one line that says how to go on and exit code 130; a bug keeps its traceback.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cosearch.default_group import DEFAULT, DefaultGroup

if TYPE_CHECKING:
    from cosearch.config import Config
    from cosearch.run_folder import RunFolder

INTERRUPTED = 130
REFUSED = 2

app = typer.Typer(
    name="cosearch",
    help="Design a convolutional network together with the approximate multipliers it uses.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

lut_app = typer.Typer(
    cls=DefaultGroup,
    help="Build a run's multipliers (`lut RUN` is `lut build RUN`), evolve or import new ones.",
    no_args_is_help=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lut_app, name="lut")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file of settings.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder of a new run; default: runs/<time>-<name>."),
]
Name = Annotated[str | None, typer.Option(help="Name of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="KEY=VALUE", help="One setting; may be repeated."),
]
Cells = Annotated[
    str | None,
    typer.Option(
        "--cells",
        metavar="LIB",
        help="Cell library: .lib file, files by commas, folder, or osu018.",
    ),
]
OldRun = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")]
OptionalRun = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Folder of the run.", show_default=False)
]
Histogram = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Operand's distribution by bit pattern: .npy or numbers in text."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Do a finished stage again; old results move to replaced/.")
]


@app.command()
def run(
    folder: OptionalRun = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run RUN (or --out) where it stopped.")
    ] = False,
    config: ConfigFile = None,
    seed: Seed = None,
    out: Out = None,
    name: Name = None,
    cells: Cells = None,
    override: Overrides = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Mirror the metrics for TensorBoard, too.")
    ] = False,
) -> None:
    """The whole job: lut, search, train, evaluate, export and report, in a new run folder.

    An interrupted run goes on with: cosearch run --resume RUN
    """
    with _guard() as interrupted:
        if _followed():
            return
        from cosearch.pipeline import run_stages
        from cosearch.progress import Progress

        settings = [*_settings(override, cells), *(["tensorboard=true"] if tensorboard else [])]
        if resume:
            found = _resumed(folder, out, config, settings, seed, name)
        else:
            _refuse_folder(folder)
            found = _created(out, config, settings, seed, name)
        interrupted.advice = f"go on with: cosearch run --resume {found.path}"
        interrupted.folder = found.path
        typer.echo(f"run folder: {found.path}")
        run_stages(found, Progress())


@lut_app.command(DEFAULT)
def lut(
    folder: OptionalRun = None,
    force: Force = False,
    config: ConfigFile = None,
    seed: Seed = None,
    out: Out = None,
    name: Name = None,
    cells: Cells = None,
    override: Overrides = None,
) -> None:
    """Build the multipliers: netlists, tables, error metrics, energy, delay and area.

    Without RUN a new run folder is made, with the settings given here.
    """
    with _guard() as interrupted:
        if _followed():
            return
        if folder is not None:
            if out is not None:
                _refuse("--out must be left out where RUN is given")
            found = _reopened(folder, config, _settings(override, cells), seed, name)
        else:
            found = _created(out, config, _settings(override, cells), seed, name)
            typer.echo(f"run folder: {found.path}")
        _stage(found, "lut", force, interrupted)


@lut_app.command()
def evolve(
    start: Annotated[str, typer.Option(help="Circuit to start from.")] = "mul8s_array",
    mae: Annotated[float, typer.Option(help="Mean absolute error allowed, % of 2^16.")] = 0.2,
    wce: Annotated[float | None, typer.Option(help="Worst error allowed, % of 2^16.")] = None,
    bias: Annotated[float | None, typer.Option(help="Mean error allowed, % of 2^16.")] = None,
    any_zero: Annotated[bool, typer.Option("--any-zero", help="Allow 0·x other than 0.")] = False,
    a_histogram: Histogram = None,
    b_histogram: Histogram = None,
    evaluations: Annotated[int, typer.Option(help="Circuits tried.")] = 4_000_000,
    lines: Annotated[int, typer.Option(help="Lines of the first half; the best goes on.")] = 4,
    minutes: Annotated[float | None, typer.Option(help="Stop earlier, after so long.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    cells: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Liberty file; default: the embedded one.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of circuits.")] = Path(
        "circuits"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same command was stopped.")
    ] = False,
) -> None:
    """Evolve a multiplier of least energy whose errors stay in bounds, from an exact one."""
    with _guard() as interrupted:
        from cosearch.evolve import evolve as evolve_circuit
        from hw.evolution import EvolutionTask, read_histogram

        task = EvolutionTask(
            *(start, mae, wce, bias, not any_zero, seed, evaluations, lines),
            a_probabilities=read_histogram(a_histogram),
            b_probabilities=read_histogram(b_histogram),
        )
        interrupted.advice = "the same command with --resume goes on"
        seconds = None if minutes is None else 60 * minutes
        evolve_circuit(task, out, cells=cells, seconds=seconds, resume=resume, log=typer.echo)


@lut_app.command("import")
def import_(
    place: Annotated[
        str, typer.Argument(metavar="SOURCE", help="File (.c .v .h .npy .csv) or module:Class.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(help="amaranth, verilog, c, table, lut_header; default: by suffix."),
    ] = None,
    top: Annotated[str | None, typer.Option(help="Verilog module or C function.")] = None,
    operands: Annotated[
        str | None,
        typer.Option(metavar="FIRST,SECOND", help="Names of the operands; of a table: row,column."),
    ] = None,
    product: Annotated[str | None, typer.Option(help="Name of the output.")] = None,
    signed: Annotated[
        bool | None, typer.Option("--signed/--unsigned", help="What the operands are.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name, where the source's will not do.")] = None,
    cells: Cells = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of circuits.")] = Path(
        "circuits"
    ),
) -> None:
    """Read a multiplier from elsewhere, and keep it as a circuit that can be a candidate."""
    with _guard():
        from hw.importers import Source, import_multiplier
        from hw.liberty import find_library
        from hw.multipliers import save_multiplier

        library = None if cells is None else find_library(cells)
        ports = _two_names(operands)
        source = Source(place, name, signed, ports, product, top, library)
        multiplier = import_multiplier(source, kind).multiplier()
        path = save_multiplier(multiplier, out)
        typer.echo(f"{multiplier.origin}: {multiplier.name}, written to {path}")


@lut_app.command()
def cost(
    names: Annotated[list[str], typer.Argument(metavar="MULTIPLIER...", help="Names.")],
    stream: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recorded operand pairs, .npy (length, 2).")
    ] = None,
    a_histogram: Histogram = None,
    b_histogram: Histogram = None,
    clock: Annotated[float, typer.Option(metavar="MHZ", help="One operation a cycle.")] = 500.0,
    cells: Cells = None,
    circuits: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of evolved and imported circuits.")
    ] = Path("circuits"),
) -> None:
    """Print three energies, delay and area of multipliers; operands are uniform if not given."""
    with _guard():
        from cosearch.costs import cost_lines, read_stream
        from hw.costs import Operands
        from hw.evolution import read_histogram

        operands = Operands(
            read_histogram(a_histogram) or None,
            read_histogram(b_histogram) or None,
            read_stream(stream),
        )
        for line in cost_lines(
            names, operands, cells=cells or "", clock_mhz=clock, circuits=circuits
        ):
            typer.echo(line)


def _two_names(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    first, comma, second = (part.strip() for part in text.partition(","))
    if not (first and comma and second) or "," in second:
        _refuse(f"--operands must be two names like A,B, not {text!r}")
    return first, second


@app.command()
def search(folder: OldRun, force: Force = False) -> None:
    """Search the operations and multipliers of the cells: writes genotype.json."""
    _stage_on(folder, "search", force)


@app.command()
def train(folder: OldRun, force: Force = False) -> None:
    """Train the found network with its multipliers, with the exact one, and in fp32."""
    _stage_on(folder, "train", force)


@app.command()
def refine(
    folder: OldRun,
    energy_budget: Annotated[
        float, typer.Option(help="Largest energy relative to the exact multiplier everywhere.")
    ],
    method: Annotated[str, typer.Option(help="sensitivity or betas.")] = "sensitivity",
    epochs: Annotated[int, typer.Option(help="Of fine-tuning.")] = 5,
    images: Annotated[int, typer.Option(help="Images that losses are measured on.")] = 512,
    keep_norms: Annotated[
        bool, typer.Option("--keep-norms", help="Measure without re-estimating batch norms.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the new run; default: RUN-refined."),
    ] = None,
) -> None:
    """Choose a multiplier for every layer of a trained network within a budget, and fine-tune.

    Makes a new run with search and training finished. Interrupted, the same command goes on.
    """
    with _guard() as interrupted:
        from cosearch.progress import Progress
        from cosearch.refining import RefinementSettings, refine
        from cosearch.run_folder import RunFolder

        settings = RefinementSettings(energy_budget, method, epochs, images, keep_norms)
        found = RunFolder.open(folder)
        interrupted.advice = "the same command goes on"
        interrupted.folder = found.path
        target = found.path.with_name(f"{found.path.name}-refined") if out is None else out
        refined = refine(found, settings, target, Progress())
        typer.echo(f"refined run: {refined.path}")
        typer.echo(f"go on with: cosearch run --resume {refined.path}")


@app.command()
def evaluate(folder: OldRun, force: Force = False) -> None:
    """Accuracy and energy of the three networks on the test images: writes evaluation.json."""
    _stage_on(folder, "evaluate", force)


@app.command()
def export(
    folder: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of the run, or of a bundle to verify."),
    ],
    force: Force = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="New folder for a verified copy.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the bundle again, and write nothing else.")
    ] = False,
) -> None:
    """Write the bundle: model.onnx, rtl/, luts, golden data and manifest.json."""
    if verify:
        if force:
            _refuse_options("--verify checks what is there; leave --force out")
        _verify(folder, out)
        return
    if out is None or force or not (folder / "bundle").is_dir():
        _stage_on(folder, "export", force)
    if out is not None:
        _verify(folder, out)


def _verify(folder: Path, out: Path | None) -> None:
    """Check the bundle of a run, or a bundle itself; copy it to `out` where that is given."""
    with _guard():
        from export import copy_bundle
        from export import verify as verified

        bundle = folder / "bundle" if (folder / "bundle").is_dir() else folder
        found = verified(bundle) if out is None else copy_bundle(bundle, out)
        typer.echo(f"{out or bundle}: verified: {found}")


def _refuse_options(message: str) -> None:
    with _guard():
        _refuse(message)


@app.command()
def report(folder: OldRun, force: Force = False) -> None:
    """Print the summary and write report.html."""
    _stage_on(folder, "report", force)


@app.command()
def sweep(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="TOML file of settings.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the sweep; default: runs/<time>-sweep."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="DIR", help="Go on with the sweep in DIR, as it is."),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Strategies of the search, and random and nsga2.")
    ] = "darts,random,nsga2",
    weights: Annotated[str, typer.Option(help="Energy weights of the searches.")] = "0.1,1,3",
    seeds: Annotated[int, typer.Option(help="Number of seeds, from --seed on.")] = 1,
    budget_images: Annotated[
        int,
        typer.Option(
            help="Training images of a baseline; 0: as many as a strategy's searches see."
        ),
    ] = 0,
    epochs: Annotated[int, typer.Option(help="Epochs of the training that judges a genotype.")] = 5,
    population: Annotated[int, typer.Option(help="Genotypes in a generation of NSGA-II.")] = 10,
    finals: Annotated[
        int, typer.Option(help="Networks of a method and seed that are trained in full.")
    ] = 3,
    selections: Annotated[
        int, typer.Option(help="Genotypes of a search that are judged: its own and cheaper ones.")
    ] = 4,
    dearer: Annotated[
        int, typer.Option(help="Genotypes of a search that are judged besides: dearer ones.")
    ] = 0,
    jobs: Annotated[int, typer.Option(help="Processes that work at once.")] = 1,
    join: Annotated[
        bool, typer.Option("--join", help="Work on baselines that other processes have in hand.")
    ] = False,
    seed: Seed = None,
    cells: Cells = None,
    override: Overrides = None,
) -> None:
    """Compare searches and baselines: many runs, their Pareto fronts and hypervolumes.

    An interrupted sweep goes on with: cosearch sweep --resume DIR
    """
    with _guard() as interrupted:
        from cosearch.progress import Progress
        from cosearch.report.sweep_page import sweep_summary
        from cosearch.sweep.folder import SweepFolder
        from cosearch.sweep.plan import parsed_plan
        from cosearch.sweep.running import run_sweep
        from cosearch.sweep.selections import check_selections

        if jobs < 1:
            _refuse(f"jobs must be at least 1, not {jobs}")
        if resume is not None:
            _refuse_settings(context)
            found = SweepFolder.open(resume)
        else:
            base = _sweep_config(config, _settings(override, cells), seed, jobs)
            numbers = (budget_images, epochs, population, finals, selections, dearer)
            plan = parsed_plan(methods, weights, seeds, base.seed, numbers)
            check_selections(plan, base)
            found = SweepFolder.create(out, base, plan)
        interrupted.advice = f"go on with: cosearch sweep --resume {found.path}"
        interrupted.folder = found.path
        typer.echo(f"sweep folder: {found.path}")
        results = run_sweep(found, Progress(), jobs=jobs, join=join)
        if results is not None:
            typer.echo(f"{sweep_summary(results)}\nreport: {found.report}")


def _refuse_settings(context: typer.Context) -> None:
    """A sweep that goes on has its settings; only how it is worked on may be said."""
    for name in set(context.params) - {"resume", "jobs", "join"}:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            shown = "CONFIG" if name == "config" else f"--{name.replace('_', '-')}"
            _refuse(f"--resume must come without settings, which the sweep has, not with {shown}")


def _sweep_config(file: Path | None, override: list[str], seed: int | None, jobs: int) -> "Config":
    """Threads that are not given are the cores of one process."""
    from dataclasses import replace

    from cosearch.config import available_cores, load_config

    config = load_config(file, override, seed)
    return config if config.threads else replace(config, threads=max(1, available_cores() // jobs))


@app.command()
def doctor() -> None:
    """Say what this machine has of what the toolchain uses, and what to do about the rest."""
    with _guard():
        from cosearch.doctor import examination

        findings = examination(Path("runs"))
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            advice = f"  -> {finding.advice}" if finding.advice else ""
            typer.echo(f"{finding.subject:<{width}}  {finding.state}{advice}")
        if any(finding.fatal for finding in findings):
            raise typer.Exit(1)


def main() -> None:
    """The console script ``cosearch``."""
    app()


class _Interrupted:
    """What to tell the user who interrupts, and the run folder once there is one."""

    advice = "nothing was written"
    folder: Path | None = None


def _stage_on(folder: Path, name: str, force: bool) -> None:
    with _guard() as interrupted:
        if _followed():
            return
        from cosearch.run_folder import RunFolder

        _stage(RunFolder.open(folder), name, force, interrupted)


def _followed() -> bool:
    """Whether this was not the first of several processes, and has done its part."""
    from cosearch.world import world_of

    world = world_of()
    if world.is_first:
        return False
    from cosearch.pipeline import follow_stages

    follow_stages(world)
    return True


def _stage(found: "RunFolder", name: str, force: bool, interrupted: _Interrupted) -> None:
    from cosearch.pipeline import run_stage
    from cosearch.progress import Progress

    interrupted.advice = f"go on with: cosearch {name} {found.path}"
    interrupted.folder = found.path
    if not run_stage(found, name, Progress(), force=force):
        typer.echo(f"{name} is already finished in {found.path}; --force does it again")


def _settings(override: list[str] | None, cells: str | None) -> list[str]:
    """The overrides, the cell library's option as one of them."""
    return [*(override or []), *([] if cells is None else [f"hardware.cells={cells}"])]


def _created(
    out: Path | None, file: Path | None, override: list[str], seed: int | None, name: str | None
) -> "RunFolder":
    from cosearch.config import load_config
    from cosearch.mirror import check_mirror
    from cosearch.run_folder import RunFolder

    config = load_config(file, override, seed, name=name)
    check_mirror(config)
    return RunFolder.create(out, config)


def _resumed(
    folder: Path | None,
    out: Path | None,
    file: Path | None,
    override: list[str],
    seed: int | None,
    name: str | None,
) -> "RunFolder":
    """The run to go on with; one that was stopped before its folder was made begins."""
    if folder is not None and out is not None:
        _refuse("--out must be left out where RUN is given")
    if folder is not None:
        return _reopened(folder, file, override, seed, name)
    if out is None:
        _refuse("--resume must come with the folder of a run: cosearch run --resume RUN")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return _created(out, file, override, seed, name)
    return _reopened(out, file, override, seed, name)


def _reopened(
    folder: Path, file: Path | None, override: list[str], seed: int | None, name: str | None
) -> "RunFolder":
    """The run at ``folder``; refused where settings are given that are not its own."""
    from cosearch.config import load_config, overridden
    from cosearch.run_folder import RunFolder

    found = RunFolder.open(folder)
    if file is not None:
        _refuse_differences(found.config, load_config(file, override, seed, name=name))
    elif override or seed is not None or name is not None:
        _refuse_differences(found.config, overridden(found.config, override, seed=seed, name=name))
    return found


def _refuse_differences(stored: "Config", asked: "Config") -> None:
    from cosearch.config import differing_keys

    before, now = stored.values(), asked.values()
    # 0 threads and device "auto" stand for whatever the run has.
    free = {"threads"} if not asked.threads else set()
    free |= {"device"} if asked.device == "auto" else set()
    keys = [key for key in differing_keys(stored, asked) if key not in free]
    if keys:
        shown = ", ".join(f"{key} ({now[key]!r}, not {before[key]!r})" for key in keys)
        _refuse(f"configuration must be the run's own when it goes on, not differ in {shown}")


def _refuse_folder(folder: Path | None) -> None:
    if folder is not None:
        _refuse(f"RUN must come with --resume; a new run is made with --out {folder}")


def _refuse(message: str) -> NoReturn:
    from hw.errors import InputError

    raise InputError(message)


@contextlib.contextmanager
def _guard() -> Iterator[_Interrupted]:
    """Turn errors of the user, of the system and interruptions into one line and an exit code."""
    interrupted = _Interrupted()
    previous = _heed(_interrupt)
    try:
        yield interrupted
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _forget_interruption()
        if _speaks():
            typer.echo(f"interrupted; {interrupted.advice}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        _silence_output()
        raise typer.Exit(REFUSED) from None
    except OSError as error:
        typer.echo(f"error: {_system_message(error, interrupted.folder)}", err=True)
        raise typer.Exit(REFUSED) from None
    except ValueError as error:
        from hw.errors import InputError

        if not isinstance(error, InputError):
            raise
        if _speaks(error):
            typer.echo(f"error: {error}", err=True)
        _leave_others(REFUSED)
        raise typer.Exit(REFUSED) from None
    finally:
        _restore(previous)


def _leave_others(code: int) -> None:
    """End at once where several processes work together: threads that wait for the others would
    abort an orderly end.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _speaks(error: ValueError | None = None) -> bool:
    """Not of what the first of several processes says for all."""
    from cosearch.world import CommonError

    own = error is not None and not isinstance(error, CommonError)
    return own or os.environ.get("RANK", "0") == "0"


REPEAT_S = 0.2


def _heed(handler: "signal._HANDLER") -> "dict[signal.Signals, signal._HANDLER]":
    """Set the handler of interruptions where that is possible; those before, to be restored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heeded = [signal.SIGTERM, signal.SIGALRM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        heeded.append(signal.SIGINT)
    return {number: signal.signal(number, handler) for number in heeded}


def _restore(previous: "dict[signal.Signals, signal._HANDLER]") -> None:
    if previous:
        signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in previous.items():
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt, and again a moment later: Python drops what is raised in a destructor."""
    signal.setitimer(signal.ITIMER_REAL, REPEAT_S)
    raise KeyboardInterrupt


def _forget_interruption() -> None:
    """Keep the exit code ours. Where ``exec`` of a text was interrupted (as importing a module with
    dataclasses runs it), ``python -m`` ends by SIGINT though it was caught, until another one ran.
    """
    exec("")


def _system_message(error: OSError, folder: Path | None) -> str:
    """``OSError`` in one line: what the system says, and of which file, or else of which run."""
    said = error.strerror or str(error) or type(error).__name__
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if not named and folder is not None:
        named = [str(folder)]
    return f"{said}: {' -> '.join(named)}" if named else said


def _silence_output() -> None:
    """The reader of our output is gone: let the interpreter's last flush find a reader."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
