"""Delay, and with a version that can power, against OpenSTA where it is installed."""

import shutil

import pytest

from benchmarks.opensta import CIRCUITS, compare
from hw import default_library


@pytest.mark.skipif(shutil.which("sta") is None, reason="no OpenSTA (Debian: apt install opensta)")
@pytest.mark.parametrize("name", CIRCUITS[::3])
def test_opensta_agrees(name: str) -> None:
    """On the embedded library, whose tables are linear, to the digits that it prints."""
    ratios = compare("sta", default_library(), name)
    assert ratios.delay == pytest.approx(1, abs=1e-4)
    if ratios.internal is not None:
        assert ratios.internal == pytest.approx(1, abs=1e-4)
        assert ratios.switching_without_inputs == pytest.approx(1, abs=1e-4)
