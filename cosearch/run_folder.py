"""A run folder: everything one run reads and writes, and the record of which stages are finished.

``run.json`` makes a folder a run. A stage counts as finished when it is recorded there and what it
wrote is still there. What is to be done anew is first moved into ``replaced/``: nothing is lost.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

from cosearch.config import Config, parse_config
from hw.errors import InputError
from hw.files import read_json, write_json, write_text

FORMAT = 1
ROLES = ("approximate", "exact", "fp32")

# What each stage writes, in the order of the stages.
STAGE_FILES: dict[str, tuple[str, ...]] = {
    "lut": ("luts",),
    "search": ("genotype.json", "search"),
    "train": ("train",),
    "evaluate": ("evaluation.json",),
    "export": ("bundle",),
    "report": ("report.html",),
}

# What goes with the result of a stage in a refined run (cosearch/refining.py).
BESIDE: dict[str, tuple[str, ...]] = {"search": ("refine",)}

# The distributions whose versions decide a result.
VERSIONED = (
    "cosearch",
    "torch",
    "numpy",
    "amaranth",
    "pyosys",
    "python-flint",
    "scikit-learn",
    "onnx",
    "onnxruntime",
    "optuna",
)


class RunFolder:
    """An existing run folder; ``create`` makes one and ``open`` finds one."""

    def __init__(self, path: Path, config: Config, record: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self._record = record

    @classmethod
    def create(cls, path: Path | None, config: Config, root: Path = Path("runs")) -> "RunFolder":
        """A new run at ``path``, which must be new or empty; default: ``root/<time>-<name>``.

        Threads and device are resolved first: the stored configuration says what was used.
        """
        config = config.resolved()
        target = _unused(root, config.name) if path is None else Path(path)
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise InputError(f"{target} must be a new or an empty folder; {_advice(target)}")
        record = _new_record(config)
        if target.exists():
            _write_start(target, config, record)
        else:
            _write_start_beside(target, config, record)
        return cls(target, config, record)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """The run at ``path``; ``InputError`` where there is none or its record is damaged."""
        folder = Path(path)
        if not is_run(folder):
            kind = "a folder without run.json" if folder.is_dir() else "a path that is no folder"
            raise InputError(f"{folder} must be the folder of a run, not {kind}{_near(folder)}")
        record = _checked_record(folder / "run.json")
        return cls(folder, _stored_config(folder / "config.toml"), record)

    @property
    def record(self) -> Mapping[str, Any]:
        """What ``run.json`` says: format, name, seed, created, versions, seconds of the stages."""
        return self._record

    @property
    def luts(self) -> Path:
        return self.path / "luts"

    @property
    def genotype(self) -> Path:
        return self.path / "genotype.json"

    @property
    def search_checkpoint(self) -> Path:
        return self.path / "search" / "checkpoint.pt"

    @property
    def search_metrics(self) -> Path:
        return self.path / "search" / "metrics.jsonl"

    @property
    def search_operands(self) -> Path:
        return self.path / "search" / "operands.json"

    @property
    def train_metrics(self) -> Path:
        return self.path / "train" / "metrics.jsonl"

    @property
    def assignment(self) -> Path:
        """Multipliers of the layers, where the run is a refined one."""
        return self.path / "refine" / "assignment.json"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def weights(self, role: str) -> Path:
        """The trained weights of the network in ``role``, one of ``ROLES``."""
        assert role in ROLES, role
        return self.path / "train" / f"{role}.pt"

    def train_checkpoint(self, role: str) -> Path:
        """The checkpoint of the training of the network in ``role``."""
        assert role in ROLES, role
        return self.path / "train" / f"{role}-checkpoint.pt"

    def finished(self, stage: str) -> bool:
        """Whether ``stage`` is recorded as finished and its files are there."""
        recorded = stage in self._record["stages"]
        return recorded and all((self.path / name).exists() for name in STAGE_FILES[stage])

    def finish(self, stage: str, seconds: float) -> None:
        """Record that ``stage`` is finished and how long it took."""
        assert stage in STAGE_FILES, stage
        stages = {**self._record["stages"], stage: {"seconds": round(seconds, 3)}}
        self._store(stages)

    def set_aside(self, stage: str) -> Path | None:
        """Move what ``stage`` and later stages wrote into ``replaced/``; the folder it went to.

        The last stage's files go first, so that a killed process leaves a run whole up to a stage.
        """
        order = list(STAGE_FILES)
        later = order[order.index(stage) :]
        files = [n for s in reversed(later) for n in (*STAGE_FILES[s], *BESIDE.get(s, ()))]
        names = [name for name in files if (self.path / name).exists()]
        aside = self._next_replaced() if names else None
        if aside is not None:
            aside.mkdir(parents=True)
            for name in names:
                (self.path / name).rename(aside / name)
        self._store({s: v for s, v in self._record["stages"].items() if s not in later})
        return aside

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; ``InputError`` where another process holds it."""
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{self.path} must be used by one process at a time, not by two; "
                    "wait for the other to end or stop it"
                ) from None
            yield

    def _store(self, stages: dict[str, Any]) -> None:
        record = {**self._record, "stages": stages}
        write_json(self.path / "run.json", record)
        self._record = record

    def _next_replaced(self) -> Path:
        folder = self.path / "replaced"
        number = 1
        while (folder / str(number)).exists():
            number += 1
        return folder / str(number)


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder."""
    return (path / "run.json").is_file()


def versions() -> dict[str, str]:
    """The versions of Python and of what decides a result; nothing is imported to find them."""
    found = {"python": python_version()}
    for name in VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _new_record(config: Config) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": config.name,
        "seed": config.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "stages": {},
    }


def _write_start(folder: Path, config: Config, record: Mapping[str, Any]) -> None:
    write_text(folder / "config.toml", config.to_toml())
    write_json(folder / "run.json", record)


def _write_start_beside(target: Path, config: Config, record: Mapping[str, Any]) -> None:
    """Make the folder beside ``target``, then rename it: the run is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        _write_start(beside, config, record)
        beside.chmod(target.parent.stat().st_mode & 0o777)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _unused(root: Path, name: str) -> Path:
    """``root/<time>-<name>``, numbered where that exists."""
    stem = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name}"
    candidate, number = root / stem, 2
    while candidate.exists():
        candidate, number = root / f"{stem}-{number}", number + 1
    return candidate


def _advice(target: Path) -> str:
    if is_run(target):
        return f"it holds a run: go on with it by --resume {target}, or choose another --out"
    return "it is not empty" if target.is_dir() else "it is a file"


def _near(folder: Path) -> str:
    """A hint where a folder beside or inside ``folder`` is a run."""
    try:
        runs = sorted(p for p in folder.iterdir() if is_run(p)) if folder.is_dir() else []
    except OSError:
        return ""
    if runs:
        return f"; did you mean {str(runs[-1])!r}?"
    return f"; did you mean {str(folder.parent)!r}?" if is_run(folder.parent) else ""


def _checked_record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        shown = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise InputError(f"{path} must be the record of a run in format {FORMAT}, not {shown!r}")
    stages = record.get("stages")
    if not isinstance(stages, dict) or not all(
        isinstance(stage, dict) and isinstance(stage.get("seconds"), (int, float))
        for stage in stages.values()
    ):
        raise InputError(f"{path} must give the seconds of each finished stage, not {stages!r}")
    return record


def _stored_config(path: Path) -> Config:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise InputError(f"{path} must be the configuration of the run, but is missing") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be TOML in UTF-8 ({error})") from None
    return parse_config(text, str(path))
