"""Files are written whole or not at all."""

import os
from pathlib import Path

import pytest

from hw import InputError, read_json, write_bytes, write_json, write_text


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "er.json", {"x": [1, 2.5, None, "×"]})
    assert read_json(tmp_path / "deep" / "er.json") == {"x": [1, 2.5, None, "×"]}


def test_failure_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_keeps_permissions_of_what_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", float("nan"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b""])
def test_corrupt_json_is_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.json must be a JSON file, not corrupt data") as error:
        read_json(path)
    assert "\n" not in str(error.value)


def test_missing_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="but there is no such file"):
        read_json(tmp_path / "none.json")
