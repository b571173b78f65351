"""FPGA figures where nextpnr is installed, and what is said where it is not."""

import importlib.util

import pytest

from hw import InputError, build_multiplier
from hw.fpga import FPGA_FAMILIES, fpga_figures

NETLIST = build_multiplier("mul3u_array").netlist


@pytest.mark.parametrize("family", FPGA_FAMILIES)
def test_figures(family: str) -> None:
    if importlib.util.find_spec(f"yowasp_nextpnr_{family}") is None:
        pytest.skip("no nextpnr (pip install 'cosearch[fpga]')")
    figures = fpga_figures(NETLIST, family, seeds=(1,))
    assert 8 <= figures.luts <= 30
    assert figures.cells[FPGA_FAMILIES[family].lut] == figures.luts
    assert 50 < figures.fmax_mhz < 2_000
    assert fpga_figures(NETLIST, family, seeds=(1,)) == figures


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"must be installed \(pip install 'cosearch\[fpga\]'\)"):
        fpga_figures(NETLIST, "ice40")
    with pytest.raises(InputError, match="FPGA family must be one of ecp5, ice40, not 'xc7'"):
        fpga_figures(NETLIST, "xc7")
