"""Metrics files: rows are added, repeated epochs stand once, damage is named."""

from pathlib import Path

import pytest

from cosearch.metrics import read_metrics, record_metrics
from hw.errors import InputError


def test_rows_are_kept_in_order(tmp_path: Path) -> None:
    path = tmp_path / "search" / "metrics.jsonl"
    assert read_metrics(path) == []
    rows = [{"epoch": epoch, "loss": epoch / 3} for epoch in range(4)]
    for row in rows:
        record_metrics(path, row)
    assert read_metrics(path) == rows


def test_an_epoch_that_is_repeated_drops_what_followed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for network in ("exact", "fp32"):
        for epoch in range(4):
            record_metrics(path, {"network": network, "epoch": epoch, "loss": 1.0})
    record_metrics(path, {"network": "exact", "epoch": 2, "loss": 0.5})
    found = [(row["network"], row["epoch"], row["loss"]) for row in read_metrics(path)]
    assert found == [
        ("exact", 0, 1.0),
        ("exact", 1, 1.0),
        *(("fp32", epoch, 1.0) for epoch in range(4)),
        ("exact", 2, 0.5),
    ]


@pytest.mark.parametrize("line", ["{", "3", '{"loss": 1}', '{"epoch": "a"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n' + line + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2 must be ") as error:
        read_metrics(path)
    assert "\n" not in str(error.value)
