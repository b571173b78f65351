"""What is remembered, under which key, and what concurrent use, kills and damage do: nothing."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw import InputError, Operands, build_multiplier, default_library, mapped_cost, synthesise
from hw.cache import Cache, Unknown, cached_cost, cached_mapping, cached_netlist, operands_digest
from hw.survey import Survey, costs, survey

HW = Path(__file__).parents[2] / "hw"
NAME = "mul4u_array"
LIBRARY = default_library()
NETLIST = build_multiplier(NAME).netlist


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def entries(cache: Cache) -> list[Path]:
    return sorted(cache.folder.rglob("*.json"))


def test_remembered_is_what_was_computed(cache: Cache) -> None:
    mapped = synthesise(NETLIST, LIBRARY)
    expected = mapped_cost(mapped, LIBRARY)
    known = replace(cache, only_known=True)
    with pytest.raises(Unknown):
        cached_cost(NETLIST, LIBRARY, known)
    assert cached_cost(NETLIST, LIBRARY, cache) == expected
    assert cached_cost(NETLIST, LIBRARY, known) == expected
    assert cached_mapping(NETLIST, LIBRARY, known).gates == mapped.gates
    assert cached_netlist(NAME, cache).gates == NETLIST.gates
    assert cached_netlist(NAME, known).gates == NETLIST.gates


def test_everything_a_result_depends_on_is_in_its_key(cache: Cache) -> None:
    cached_cost(NETLIST, LIBRARY, cache)
    known = replace(cache, only_known=True)
    assert cached_cost(replace(NETLIST, name="other", net_names={}), LIBRARY, known)
    slower = replace(LIBRARY, text=LIBRARY.text + "\n")
    histogram = np.arange(16)
    for change in (
        lambda: cached_cost(build_multiplier("mul4s_array").netlist, LIBRARY, known),
        lambda: cached_cost(NETLIST, slower, known),
        lambda: cached_cost(NETLIST, LIBRARY, known, clock_mhz=100.0),
        lambda: cached_cost(NETLIST, LIBRARY, known, model="published-comparable"),
        lambda: cached_cost(NETLIST, LIBRARY, known, Operands(histogram)),
        lambda: cached_cost(NETLIST, LIBRARY, known, Operands(stream=np.zeros((9, 2), int))),
    ):
        with pytest.raises(Unknown):
            change()
    assert operands_digest(Operands(histogram)) == operands_digest(Operands(2.0 * histogram))
    assert operands_digest(Operands(histogram)) != operands_digest(Operands(None, histogram))


@pytest.mark.parametrize("damage", [b"", b'{"value": {"ener', b"[]", b'{"value": {"x": 1}}'])
def test_damaged_entries_are_computed_anew(cache: Cache, damage: bytes) -> None:
    expected = cached_cost(NETLIST, LIBRARY, cache)
    for path in entries(cache):
        path.write_bytes(damage)
    assert cached_cost(NETLIST, LIBRARY, cache) == expected


def test_what_cannot_be_written_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "cache")
    assert cached_cost(NETLIST, LIBRARY, cache) == cached_cost(NETLIST, LIBRARY, cache)


def _fill(folder: Path) -> None:
    while True:
        for path in folder.rglob("*.json"):
            path.unlink(missing_ok=True)
        costs(NAME, Survey(models=("workload zero-delay",), cache=Cache(folder)))


def test_processes_that_share_the_folder_and_are_killed(cache: Cache) -> None:
    """Two write and delete the same entries until they are killed; a third sees whole ones."""
    expected = costs(NAME, Survey(models=("workload zero-delay",), cache=cache))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(cache.folder,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert costs(NAME, Survey(models=("workload zero-delay",), cache=cache)) == expected
    for worker in workers:
        assert worker.pid is not None
        assert worker.is_alive()
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    assert costs(NAME, Survey(models=("workload zero-delay",), cache=cache)) == expected


def test_survey_in_processes_is_the_survey_in_one(tmp_path: Path) -> None:
    names = [NAME, "mul3s_array", "mul3u_array"]
    one = dict(survey(names, Survey(cache=Cache(tmp_path / "one")), processes=1))
    two = dict(survey(names, Survey(cache=Cache(tmp_path / "two")), processes=2))
    assert one == two
    assert list(two) == names
    assert set(one[NAME]) == {"published-comparable", "workload zero-delay", "workload real-delay"}
    with pytest.raises(InputError, match="must be a Liberty file, but there is no such file"):
        list(survey(names, Survey(cells=str(tmp_path / "none.lib"))))


def test_usual_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("COSEARCH_CACHE", raising=False)
    assert Cache.usual().folder == tmp_path / "cosearch"
    monkeypatch.setenv("COSEARCH_CACHE", str(tmp_path / "own"))
    assert Cache.usual().folder == tmp_path / "own"


def test_nothing_need_be_writable(tmp_path: Path) -> None:
    """Neither the package's folder nor any of the user's."""
    shutil.copytree(HW, tmp_path / "hw", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "hw" / "__pycache__").write_text("in the way of a folder")
    code = f"import hw; print(hw.multiplier_cost(hw.build_multiplier({NAME!r})))"
    environment = {**os.environ, "HOME": "/proc/none", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": "/proc/none"}
    environment.pop("NUMBA_CACHE_DIR", None)
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.startswith("Cost(energy_fj="), result.stderr
