"""The folder of a sweep: the plan, one run folder for each member and for each network that is
trained in full.

``sweep.json`` makes a folder a sweep. The multipliers are built once, in ``multipliers/``, and
copied into each run, so that every run is whole by itself.
"""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cosearch.config import Config, parse_config
from cosearch.run_folder import RunFolder, is_run
from cosearch.sweep.plan import Member, Plan
from hw.errors import InputError
from hw.files import read_json, write_json, write_text

__all__ = ["SweepFolder", "claimed", "is_sweep"]

INDEX = "sweep.json"


class SweepFolder:
    """An existing sweep; ``create`` makes one and ``open`` finds one."""

    def __init__(self, path: Path, config: Config, plan: Plan) -> None:
        self.path, self.config, self.plan = path, config, plan

    @classmethod
    def create(cls, path: Path | None, config: Config, plan: Plan) -> "SweepFolder":
        """A new sweep at `path`, which must be new or empty; default: ``runs/<time>-sweep``."""
        config = config.resolved()
        for member in plan.members:
            member.config(config)  # an InputError now rather than hours later
        target = path or Path("runs") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-sweep"
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            what = "a sweep: go on with it by --resume" if is_sweep(target) else "something"
            raise InputError(f"{target} must be a new or an empty folder, but it holds {what}")
        with _made_whole(target) as beside:
            write_text(beside / "config.toml", config.to_toml())
            write_json(beside / INDEX, plan.to_json())
        return cls(target, config, plan)

    @classmethod
    def open(cls, path: Path) -> "SweepFolder":
        """The sweep at `path`; InputError where there is none or it is damaged."""
        if not is_sweep(path):
            raise InputError(f"{path} must be the folder of a sweep, but has no {INDEX}")
        plan = Plan.from_json(read_json(path / INDEX), str(path / INDEX))
        file = path / "config.toml"
        try:
            text = file.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise InputError(f"{file} must be the configuration of the sweep ({error})") from None
        return cls(path, parse_config(text, str(file)), plan)

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def results(self) -> Path:
        """The figures of the report, as JSON."""
        return self.path / "results.json"

    def multipliers(self) -> RunFolder:
        """The run whose lut stage serves all members."""
        return self._run(self.path / "multipliers", self.config)

    def member(self, member: Member) -> RunFolder:
        """The member's run folder, made where it is not there."""
        return self._run_with_luts(self._member_path(member), member.config(self.config))

    def final(self, name: str, seed: int) -> RunFolder:
        """The run folder of a network that is trained in full."""
        config = replace(self.config, seed=seed)
        return self._run_with_luts(self.path / "finals" / f"{name}-seed{seed}", config)

    def evaluations(self, member: Member) -> Path:
        """What the member judged."""
        return self._member_path(member) / "evaluations.jsonl"

    def finished(self, member: Member) -> bool:
        return self._done(member).exists()

    def finish(self, member: Member) -> None:
        write_text(self._done(member), "")

    def lock(self, member: Member) -> Path:
        """Who works on the member holds it."""
        return self.path / "locks" / member.name

    def _member_path(self, member: Member) -> Path:
        return self.path / "members" / member.name

    def _done(self, member: Member) -> Path:
        return self._member_path(member) / "finished"

    def _run_with_luts(self, path: Path, config: Config) -> RunFolder:
        with claimed(self.path / "locks" / "folders", wait=True):
            run = self._run(path, config)
            if not run.luts.exists():
                with _made_whole(run.luts) as beside:
                    source = self.path / "multipliers" / "luts"
                    shutil.copytree(source, beside, dirs_exist_ok=True)
            if not run.finished("lut"):
                run.finish("lut", 0.0)
        return run

    def _run(self, path: Path, config: Config) -> RunFolder:
        return RunFolder.open(path) if is_run(path) else RunFolder.create(path, config)


def is_sweep(path: Path) -> bool:
    """Whether `path` is a sweep's folder."""
    return (path / INDEX).is_file()


@contextlib.contextmanager
def claimed(lock: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process now holds `lock`; it is let go at the end, also of a killed process.

    A lock of the operating system on a file (flock), which Linux keeps on NFS, too.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write into, which then takes its place: whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        yield beside
        beside.chmod(target.parent.stat().st_mode & 0o777)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
