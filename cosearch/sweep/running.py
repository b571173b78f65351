"""Runs a sweep: multipliers once, then every member, then the final networks, then the report.

What is finished is skipped and what was interrupted goes on, so a sweep may be stopped at any time,
and several processes may work on one folder.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from cosearch.pipeline import run_stage
from cosearch.progress import Progress
from cosearch.sweep.assessment import Limits, limits
from cosearch.sweep.finals import Final, chosen, is_done, train_final
from cosearch.sweep.folder import SweepFolder, claimed
from cosearch.sweep.members import check_baselines, check_budget, check_space, work_on
from cosearch.sweep.results import SweepResults, sweep_results
from cosearch.task import Task
from hw.errors import InputError
from hw.files import write_json, write_text

__all__ = ["run_sweep"]

POLL_S = 0.2


def run_sweep(
    sweep: SweepFolder, progress: Progress, *, jobs: int = 1, join: bool = False
) -> SweepResults | None:
    """Do what is left; the results, or None where other processes still have members in hand.

    jobs: processes that work on members of their own. join: work on baselines that other processes
    have in hand, too; then which genotypes are judged depends on who is faster.
    """
    check_baselines(sweep.plan)
    check_space(sweep.config.space)
    bounds = _prepared(sweep, progress)
    if jobs == 1:
        _work(sweep, bounds, progress, join)
    else:
        _in_processes(sweep, progress, jobs, join)
    left = _members_left(sweep) or _finals_left(sweep, bounds)
    if left:
        progress.log(f"in the hands of other processes: {', '.join(left)}")
        return None
    return _reported(sweep, bounds)


def _prepared(sweep: SweepFolder, progress: Progress) -> Limits:
    """Build the multipliers, check the budget, and measure the reference point."""
    with claimed(sweep.path / "locks" / "multipliers", wait=True):
        run = sweep.multipliers()
        run_stage(run, "lut", progress)
    task = Task.of(run)
    check_budget(sweep.plan, task)
    return limits(task)


def _work(
    sweep: SweepFolder,
    bounds: Limits,
    progress: Progress,
    join: bool,
    together: Callable[[], object] = lambda: None,
) -> None:
    """Members, then, where all are finished, final networks; `together` is called between."""
    _work_on_members(sweep, progress, join)
    together()
    if not _members_left(sweep):
        _work_on_finals(sweep, bounds, progress)


def _work_on_members(sweep: SweepFolder, progress: Progress, join: bool) -> None:
    members = sweep.plan.members
    for number, member in enumerate(members, 1):
        heading = f"[{number}/{len(members)}] {member.name}"
        if sweep.finished(member):
            progress.log(f"{heading} (already finished)")
            continue
        progress.stage(heading)
        with _closed(progress):
            work_on(sweep, member, progress, join=join)


def _work_on_finals(sweep: SweepFolder, bounds: Limits, progress: Progress) -> None:
    networks = _finals(sweep, bounds)
    progress.stage(f"{len(networks)} networks trained in full")
    with _closed(progress):
        for final in progress.track(networks, "networks"):
            train_final(sweep, final, progress)


def _finals(sweep: SweepFolder, bounds: Limits) -> list[Final]:
    """Each once, also where two methods found it."""
    plan = sweep.plan
    found = {
        (final.name, final.seed): final
        for method in plan.methods
        for seed in plan.seeds
        for final in chosen(sweep, method, seed, bounds)
    }
    return list(found.values())


def _members_left(sweep: SweepFolder) -> list[str]:
    """Members that are not finished, by name."""
    return [member.name for member in sweep.plan.members if not sweep.finished(member)]


def _finals_left(sweep: SweepFolder, bounds: Limits) -> list[str]:
    """Final networks that are not trained, by name."""
    return [final.name for final in _finals(sweep, bounds) if not is_done(sweep, final)]


def _reported(sweep: SweepFolder, bounds: Limits) -> SweepResults:
    from cosearch.report.sweep_page import sweep_page

    results = sweep_results(sweep, bounds)
    write_json(sweep.results, results.to_json())
    write_text(sweep.report, sweep_page(results, sweep.path.name, sweep.config.to_toml()))
    return results


@contextlib.contextmanager
def _closed(progress: Progress) -> Iterator[None]:
    """Bars are taken away, also where an interruption ends the work."""
    try:
        yield
    finally:
        progress.close()


def _in_processes(sweep: SweepFolder, progress: Progress, jobs: int, join: bool) -> None:
    """The work by `jobs` processes, which end with this one, whatever ends it."""
    context = multiprocessing.get_context("spawn")
    faults: SimpleQueue[str] = context.SimpleQueue()
    arguments = (sweep.path, join, context.Barrier(jobs), faults)
    workers = [context.Process(target=_worker, args=arguments) for _ in range(jobs)]
    progress.stage(f"{len(sweep.plan.members)} members, then final networks, by {jobs} processes")
    try:
        with _interrupts_held():
            for worker in workers:
                worker.start()
        with _closed(progress):
            names = _finished(sweep, workers)
            for name in progress.track(names, "members", len(sweep.plan.members)):
                progress.log(f"  {name}: finished")
        failed = [worker.exitcode for worker in workers if worker.exitcode]
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join()
    if not faults.empty():
        raise InputError(faults.get())
    if failed:
        raise RuntimeError(f"a process of the sweep ended with {failed[0]}; it may have said why")


def _finished(sweep: SweepFolder, workers: Sequence[BaseProcess]) -> Iterator[str]:
    """Names of members as they get finished, until the processes have ended or one has failed."""
    seen: set[str] = set()
    while True:
        ended = not any(worker.is_alive() for worker in workers)
        done = [m.name for m in sweep.plan.members if sweep.finished(m) and m.name not in seen]
        seen |= set(done)
        yield from done
        if ended or any(worker.exitcode for worker in workers):
            return
        time.sleep(POLL_S)


def _worker(path: Path, join: bool, barrier: Barrier, faults: "SimpleQueue[str]") -> None:
    """One process: its work in silence; what a user can mend is told to the process above."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sweep = SweepFolder.open(path)
        bounds = limits(Task.of(sweep.multipliers()))
        _work(sweep, bounds, Progress(quiet=True), join, together=barrier.wait)
    except (InputError, OSError) as error:
        faults.put(str(error))
        raise SystemExit(1) from None


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Interruptions wait until the end; processes started meanwhile never see any."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_with_parent() -> None:
    """Let nothing go on where the process above was killed; what is written is whole."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
