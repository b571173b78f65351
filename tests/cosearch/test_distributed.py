"""Several processes: two give what one gives, and hold the same bits; what ends one ends all."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cosearch.world import ALONE, CommonError, World, world_of
from hw.errors import InputError

from .processes import PATIENCE_S, REPOSITORY, heed_interrupts
from .several import STRATEGIES, results

Results = dict[str, Any]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _two(*arguments: str, cwd: Path) -> "list[subprocess.Popen[str]]":
    """Two processes of `python -m arguments`, as torchrun would start them."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env={
                **os.environ,
                **meeting,
                "RANK": str(rank),
                "PYTHONPATH": str(REPOSITORY),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
        for rank in range(2)
    ]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    folder = tmp_path_factory.mktemp("two")
    for process in _two("tests.cosearch.several", str(folder), cwd=REPOSITORY):
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def one() -> Results:
    return results(ALONE)


def test_a_batch_norm_and_a_range_are_those_of_the_whole_batch(
    one: Results, two: list[Results]
) -> None:
    alone, parts = one["layers"], [part["layers"] for part in two]
    for key in ("result", "gradient"):
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), alone[key])
    torch.testing.assert_close(sum(part["weight"] for part in parts), alone["weight"])
    for part in parts:
        torch.testing.assert_close(part["mean"], alone["mean"])
        torch.testing.assert_close(part["variance"], alone["variance"])
        assert torch.equal(part["high"], alone["high"])
        assert torch.equal(part["batches"], alone["batches"])


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_processes_equal_one_with_the_whole_batch(
    name: str, one: Results, two: list[Results]
) -> None:
    """In float64, without quantisation, whose roundings would flip: equal to 1e-9."""
    for key, value in one["smooth"][name].items():
        for part in two:
            found = part["smooth"][name][key]
            torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-9, msg=key)


def test_both_processes_hold_the_same_bits(two: list[Results]) -> None:
    first, second = two
    for net in ("supernet", "network"):
        for key, value in first["emulated"][net].items():
            assert torch.equal(value, second["emulated"][net][key]), key
    assert first["emulated"]["train_loss"] == second["emulated"]["train_loss"]


def test_the_emulated_search_and_a_training_equal_those_of_one_process(
    one: Results, two: list[Results]
) -> None:
    """In float32: to rounding without quantisation, with it to what a flipped level makes: images
    times 1 + 1e-7 change the loss of the first pass as much.
    """
    alone = one["emulated"]
    assert sum(part["emulated"]["loss"] for part in two) / 2 == pytest.approx(
        alone["loss"], rel=2e-3
    )
    found = two[0]["emulated"]
    assert found["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-2)
    assert found["loss of training"] == pytest.approx(alone["loss of training"], rel=1e-5)
    for key, value in alone["network"].items():
        torch.testing.assert_close(found["network"][key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_a_mismatch_names_what_differs_and_where(one: Results, two: list[Results]) -> None:
    assert one["mismatch"] == ""
    for part in two:
        assert part["mismatch"] == (
            "all processes must hold the same numbers, but not those of process 0 are the "
            "alphas and betas of process 1"
        )


def test_the_world_of_torchrun() -> None:
    assert world_of({}) == ALONE and ALONE.is_alone and ALONE.is_first
    both = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert world_of(both) == World(3, 4, 1, 2)
    assert world_of({"RANK": "1", "WORLD_SIZE": "2"}) == World(1, 2, 1, 2)
    with pytest.raises(InputError, match="variables of torchrun must be whole numbers, not RANK=x"):
        world_of({"RANK": "x", "WORLD_SIZE": "2"})
    with pytest.raises(InputError, match="the rank of a process must be 0 … 1, not 2"):
        World(2, 2)


def test_parts_of_a_batch_are_equal() -> None:
    numbers = list(range(9))
    assert [numbers[World(rank, 2).span(9)] for rank in (0, 1)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    World(0, 4).check_batch_size("search.batch_size", 8)
    for size in (4, 10):
        with pytest.raises(
            CommonError, match=f"must be a multiple of .* and at least two .*, not {size}"
        ):
            World(0, 4).check_batch_size("search.batch_size", size)


SETTINGS = (
    "threads=2",
    "space.channels=4",
    "space.nodes=1",
    "space.operations=none,skip_connect,sep_conv_3x3",
    "multipliers.candidates=mul8s_array,mul8s_truncated_k7",
    "multipliers.built_also=",
    "search.epochs=1",
    "search.batch_size=128",
    "search.checkpoint_minutes=1e-9",
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with its multipliers."""
    from typer.testing import CliRunner

    from cosearch.cli import app

    overrides = [argument for setting in SETTINGS for argument in ("-o", setting)]
    result = CliRunner().invoke(app, ["lut", "--out", str(tmp_path / "run"), *overrides])
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def _started(run: Path) -> "list[subprocess.Popen[str]]":
    """Two processes that search, once there is a checkpoint."""
    checkpoint = run / "search" / "checkpoint.pt"
    processes = _two("cosearch", "search", "run", cwd=run.parent)
    deadline = time.monotonic() + PATIENCE_S
    while not checkpoint.exists():
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return processes


def _ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err


def test_what_ends_one_ends_all_and_torchrun_goes_on(run: Path) -> None:
    first, second = _started(run)
    second.send_signal(signal.SIGKILL)
    _ended(second)
    code, err = _ended(first)
    assert code == 2 and err.startswith("error: all processes must go on to the end"), err
    assert err.count("\n") == 1

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, f"--master-port={_free_port()}", "-m", "cosearch", "search", "run"],
        cwd=run.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "goes on after epoch 0 and " in done.stdout
    assert done.stdout.count("epoch 1/1") == 1
    assert "search" in json.loads((run / "run.json").read_text())["stages"]
