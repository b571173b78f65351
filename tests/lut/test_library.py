"""A saved library: the same multipliers when read, and a clear error when anything is damaged."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.rtl import multiplier_verilog
from hw import build_multiplier
from hw.errors import InputError
from hw.multipliers import named_by_digest, save_multiplier
from lut import LUT, MultiplierLibrary

NAMES = ["mul8s_array", "mul8s_truncated_k7", "mul8u_broken_array_h2_v6"]


@pytest.fixture(scope="module")
def built() -> MultiplierLibrary:
    return MultiplierLibrary.build(NAMES)


@pytest.fixture
def saved(built: MultiplierLibrary, tmp_path: Path) -> Path:
    built.save(tmp_path)
    return tmp_path


def test_reads_back_what_was_built(built: MultiplierLibrary, saved: Path) -> None:
    loaded = MultiplierLibrary.load(saved)
    assert loaded == built
    for entry in loaded:
        factors = entry.lut.factors
        assert np.array_equal(factors.table, built[entry.name].lut.table)
        assert entry.lut.rank == factors.rank


def test_joint_basis_is_stored_and_checked(tmp_path: Path) -> None:
    names = NAMES[:2]
    built = MultiplierLibrary.build(names, together=names)
    built.save(tmp_path)
    loaded = MultiplierLibrary.load(tmp_path)
    assert loaded == built
    basis = loaded.basis(names)
    for index, name in enumerate(names):
        assert np.array_equal(basis.factors(index).table, loaded[name].lut.table)
    index = json.loads((tmp_path / "library.json").read_text())
    index["bases"] = [names[::-1]]
    (tmp_path / "library.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="basis-0.npz must reproduce the tables of"):
        MultiplierLibrary.load(tmp_path)


WITHOUT_GATE_LEVEL_TOOLS = """
import sys

for name in ("amaranth", "pyosys", "flint", "numba"):
    sys.modules[name] = None  # importing it fails as if it were not installed
import torch
from pathlib import Path
from cosearch.space import SearchSpace
from cosearch.supernet import Supernet
from lut import Candidates, MultiplierLibrary, approx_linear

library = MultiplierLibrary.load(Path(sys.argv[1]))
names = sys.argv[2:]
candidates = Candidates(library.luts(names), library.basis(names))
space = SearchSpace(4, 3, 2, ("skip_connect", "sep_conv_3x3"), 1, 10)
net = Supernet(space, candidates, Candidates(library.luts(names[:1])))
net(torch.rand(2, 1, 8, 8)).sum().backward()
ones = torch.ones(1, 4, dtype=torch.int8)
print(int(approx_linear(ones, ones, library[names[0]].lut)))
"""


def test_a_saved_library_needs_no_gate_level_tool(tmp_path: Path) -> None:
    names = NAMES[:2]
    MultiplierLibrary.build(names, together=names).save(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_GATE_LEVEL_TOOLS, str(tmp_path), *names],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "4\n", result.stderr


def test_figures_are_in_order(built: MultiplierLibrary) -> None:
    exact, truncated = built["mul8s_array"], built["mul8s_truncated_k7"]
    assert exact.lut.is_exact and exact.metrics.mae == 0 and exact.lut.rank == 1
    assert 0 < truncated.cost.energy_fj < exact.cost.energy_fj
    assert truncated.metrics.wce == sum(
        2 ** (i + j) for i in range(8) for j in range(8) if i + j < 7
    )


def test_evolved_circuit_is_kept_with_the_library(tmp_path: Path) -> None:
    """It is found by name in a folder, copied into the library's, and exported from there."""
    multiplier = named_by_digest(
        "evolved", build_multiplier("mul8s_truncated_k6").netlist, True, "x"
    )
    circuits = tmp_path / "circuits"
    save_multiplier(multiplier, circuits)
    MultiplierLibrary.build([multiplier.name], circuits=circuits).save(tmp_path / "luts")
    (circuits / f"{multiplier.name}.json").unlink()
    build_multiplier.cache_clear()
    entry = MultiplierLibrary.load(tmp_path / "luts")[multiplier.name]
    assert entry.family == "evolved"
    assert entry.digest == LUT.of(build_multiplier("mul8s_truncated_k6")).digest
    assert f"module cosearch_{multiplier.name}(a, b, p);" in multiplier_verilog(entry)
    with pytest.raises(InputError, match="must lie in"):
        MultiplierLibrary.build([multiplier.name], circuits=circuits)


def test_unknown_multiplier(built: MultiplierLibrary) -> None:
    with pytest.raises(InputError, match="did you mean 'mul8s_truncated_k7'"):
        built["mul8s_truncated_k8"]


def test_truncated_file(saved: Path) -> None:
    path = saved / "mul8s_truncated_k7.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="truncated_k7.npz must be an intact .npz"):
        MultiplierLibrary.load(saved)


def _loaded_or_error(folder: Path) -> MultiplierLibrary | str:
    try:
        return MultiplierLibrary.load(folder)
    except InputError as error:
        return str(error)


def test_every_single_changed_byte_is_found_or_harmless(
    built: MultiplierLibrary, saved: Path
) -> None:
    path = saved / "mul8s_truncated_k7.npz"
    data = path.read_bytes()
    for position in range(0, len(data), len(data) // 50):
        path.write_bytes(data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :])
        outcome = _loaded_or_error(saved)
        assert outcome == built or "\n" not in outcome


def test_exchanged_tables(saved: Path) -> None:
    (saved / "mul8s_array.npz").write_bytes((saved / "mul8s_truncated_k7.npz").read_bytes())
    with pytest.raises(InputError, match="mul8s_array.npz must hold the table of digest"):
        MultiplierLibrary.load(saved)


def test_missing_table_and_index(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (saved / "mul8s_array.npz").unlink()
    with pytest.raises(InputError, match="it is missing; run `cosearch lut` again"):
        MultiplierLibrary.load(saved)
    with pytest.raises(InputError, match="library.json must be a JSON file"):
        MultiplierLibrary.load(tmp_path_factory.mktemp("empty"))


def test_index_without_a_field_or_with_a_path(saved: Path) -> None:
    index = json.loads((saved / "library.json").read_text())
    del index["multipliers"][1]["sha256"]
    (saved / "library.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="must be a multiplier library, not lack 'sha256'"):
        MultiplierLibrary.load(saved)
    index["multipliers"] = [{"name": "../mul8s_array"}]
    (saved / "library.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="name must be a plain file name"):
        MultiplierLibrary.load(saved)
