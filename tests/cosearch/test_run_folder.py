"""Run folders: made whole, opened checked, resumed from what is finished, and never overwritten."""

import json
import multiprocessing
from pathlib import Path

import pytest

from cosearch.config import Config
from cosearch.run_folder import STAGE_FILES, RunFolder, is_run, versions
from hw.errors import InputError

from .example_run import finished_run
from .processes import run_python


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        RunFolder.open(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_new_run_holds_configuration_seed_and_versions(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config(seed=3))
    record = json.loads((run.path / "run.json").read_text())
    assert (record["format"], record["name"], record["seed"]) == (1, "digits", 3)
    assert record["stages"] == {}
    assert record["versions"] == versions()
    assert {"python", "torch", "amaranth", "pyosys"} <= set(record["versions"])
    assert run.config.threads >= 1
    assert RunFolder.open(run.path).config == run.config


def test_nothing_is_left_beside_a_new_run(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", Config())
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_default_folders_are_named_by_time_and_never_collide(tmp_path: Path) -> None:
    runs = [RunFolder.create(None, Config(name="x"), root=tmp_path / "runs") for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.path.parent == tmp_path / "runs" and "-x" in run.path.name for run in runs)


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert is_run(RunFolder.create(tmp_path, Config()).path)


def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(InputError, match="must be a new or an empty folder; it is not empty"):
        RunFolder.create(tmp_path, Config())
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_existing_run_is_refused_with_advice(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", Config())
    with pytest.raises(InputError, match=r"go on with it by --resume .*run"):
        RunFolder.create(tmp_path / "run", Config())


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="it is a file"):
        RunFolder.create(tmp_path / "file", Config())
    assert "not a path that is no folder" in refused(tmp_path / "file")


def test_a_folder_that_is_no_run_is_refused_with_the_nearest(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config())
    assert refused(tmp_path).endswith(f"did you mean {str(run.path)!r}?")
    (run.path / "luts").mkdir()
    assert refused(run.path / "luts").endswith(f"did you mean {str(run.path)!r}?")


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "stages": {"lut": 3}}'],
)
def test_a_damaged_record_is_refused(tmp_path: Path, record: str) -> None:
    run = RunFolder.create(tmp_path / "run", Config())
    (run.path / "run.json").write_text(record)
    assert "run.json must " in refused(run.path)


@pytest.mark.parametrize("content", [None, b"seed = ", b"\xff", b"sed = 3"])
def test_a_damaged_configuration_is_refused(tmp_path: Path, content: bytes | None) -> None:
    run = RunFolder.create(tmp_path / "run", Config())
    if content is None:
        (run.path / "config.toml").unlink()
    else:
        (run.path / "config.toml").write_bytes(content)
    refused(run.path)


def test_finished_stages_are_remembered(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    again = RunFolder.open(run.path)
    assert [stage for stage in STAGE_FILES if again.finished(stage)] == list(STAGE_FILES)[:5]
    assert again.record["stages"]["lut"] == {"seconds": 9.1}


def test_a_stage_whose_files_are_gone_is_not_finished(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    run.genotype.unlink()
    assert not run.finished("search")
    assert run.finished("train")


def test_setting_aside_keeps_every_file_and_reopens_the_later_stages(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    before = {p.name: p.read_bytes() for p in run.path.rglob("*.json*") if p.name != "run.json"}
    aside = run.set_aside("search")
    assert aside == run.path / "replaced" / "1"
    after = {p.name: p.read_bytes() for p in run.path.rglob("*.json*") if p.name != "run.json"}
    assert after == before
    again = RunFolder.open(run.path)
    assert [stage for stage in STAGE_FILES if again.finished(stage)] == ["lut"]
    assert not again.search_metrics.exists()
    assert (aside / "search" / "metrics.jsonl").is_file()


def test_setting_aside_twice_uses_a_new_place(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    run.set_aside("export")
    run.bundle.mkdir()
    assert run.set_aside("export") == run.path / "replaced" / "2"
    assert run.set_aside("export") is None


def test_the_paths_of_a_run(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config())
    found = [
        run.luts,
        run.genotype,
        run.search_checkpoint,
        run.search_metrics,
        run.weights("exact"),
        run.train_checkpoint("fp32"),
        run.train_metrics,
        run.evaluation,
        run.bundle,
        run.report,
    ]
    assert [path.relative_to(run.path).as_posix() for path in found] == [
        "luts",
        "genotype.json",
        "search/checkpoint.pt",
        "search/metrics.jsonl",
        "train/exact.pt",
        "train/fp32-checkpoint.pt",
        "train/metrics.jsonl",
        "evaluation.json",
        "bundle",
        "report.html",
    ]


def hold(path: Path, ready: "multiprocessing.synchronize.Event", done: object) -> None:
    with RunFolder.open(path).locked():
        ready.set()
        done.wait(30)  # type: ignore[attr-defined]


def test_a_run_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config())
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(run.path, ready, done))
    other.start()
    assert ready.wait(30)
    with pytest.raises(InputError, match="one process at a time"), run.locked():
        pass
    done.set()
    other.join(30)
    with run.locked():
        pass


def test_a_folder_without_permission_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    create = (
        "from pathlib import Path; from cosearch.config import Config; "
        "from cosearch.run_folder import RunFolder; "
        "RunFolder.create(Path('locked/run'), Config())"
    )
    result = run_python("-c", create, cwd=tmp_path)
    assert "PermissionError" in result.stderr
    assert not any((tmp_path / "locked").iterdir())
