"""The examination of a machine: what is there, and advice for what is not."""

from pathlib import Path

import pytest

from cosearch import doctor
from cosearch.doctor import Finding, examination


def by_subject(folder: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examination(folder)}


def test_the_machine_is_examined(tmp_path: Path) -> None:
    findings = by_subject(tmp_path / "runs")
    expected = {"Python", "cores", "memory", "disk", "torch", "CUDA", "iverilog", "cell library"}
    assert expected <= set(findings)
    assert not any(finding.fatal for finding in findings.values())
    assert findings["torch"].state.startswith("2.13")
    assert str(tmp_path) in findings["disk"].state


def test_what_is_missing_gets_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-distribution",))
    monkeypatch.setattr(doctor, "OPTIONAL", (("no-such-extra", "to try"),))
    findings = by_subject(tmp_path)
    assert findings["iverilog"].state == "not found"
    assert findings["iverilog"].advice.endswith("apt-get install -y iverilog")
    assert not findings["iverilog"].fatal
    missing = findings["no-such-distribution"]
    assert missing.fatal
    assert missing.advice == "pip install -c constraints.txt no-such-distribution"
    assert not findings["no-such-extra"].fatal
    assert findings["no-such-extra"].advice.startswith("optional, to try: pip install")


def test_a_simulator_says_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "iverilog"
    tool.write_text("#!/bin/sh\necho 'Icarus Verilog version 12.0 (stable)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert by_subject(tmp_path)["iverilog"].state == f"12.0 ({tool})"


def test_a_simulator_that_does_not_run_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "iverilog"
    tool.write_bytes(b"\x7fELF no program")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert by_subject(tmp_path)["iverilog"].advice == "install iverilog anew"
