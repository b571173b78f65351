"""What benchmarks print: one JSON object a line, the machine first."""

import json

import pytest

from benchmarks.measurement import Measurement, print_machine, print_measurement, seconds


def test_the_machine_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_machine()
    (line,) = capsys.readouterr().out.splitlines()
    machine = json.loads(line)["machine"]
    assert {"cpu", "cores", "python", "torch"} <= set(machine)
    assert machine["cores"] >= 1


@pytest.mark.parametrize(
    ("measurement", "ok"),
    [
        (Measurement("lut", 12.0, "ms", 20.0), True),
        (Measurement("lut", 22.0, "ms", 20.0), False),
        (Measurement("accuracy", 0.97, "ratio", 0.96, better="higher"), True),
        (Measurement("accuracy", 0.95, "ratio", 0.96, better="higher"), False),
        (Measurement("fp32", 3.0, "ms"), None),
    ],
)
def test_a_measurement_is_one_line(
    capsys: pytest.CaptureFixture[str], measurement: Measurement, ok: bool | None
) -> None:
    print_measurement(measurement)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "metric": measurement.metric,
        "value": measurement.value,
        "unit": measurement.unit,
        "target": measurement.target,
        "ok": ok,
    }


def test_seconds_counts_the_shortest_of_several_runs() -> None:
    calls = []
    assert 0 <= seconds(lambda: calls.append(1), repetitions=3) < 1
    assert len(calls) == 4
