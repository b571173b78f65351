"""Every default candidate read by two programs, Yosys and Icarus: all 65,536 pairs, one table."""

from pathlib import Path

import numpy as np
import pytest

from cosearch.config import Config
from export.rtl import ModuleNames, simulated_table, source_path, verilog_table

from .multipliers import entry, files, icarus

SETTINGS = Config().multipliers


@icarus
@pytest.mark.parametrize("name", [*SETTINGS.candidates, *SETTINGS.built_also])
def test_yosys_and_icarus_give_the_table(name: str, tmp_path: Path) -> None:
    module, lut = ModuleNames(name).structural, entry(name).lut
    text = files(name)[source_path(module)]
    (tmp_path / f"{module}.v").write_text(text)
    assert np.array_equal(verilog_table(tmp_path / f"{module}.v", lut), lut.table)
    table = simulated_table(
        {f"{module}.v": text}, module, a_width=8, b_width=8, signed=lut.a_signed
    )
    assert np.array_equal(table, lut.table)
