"""Another generator's circuits have the tables of ours: ArithsGen, read through its Verilog.

J. Klhůfek, V. Mrázek, "ArithsGen: Arithmetic Circuit Generator for Hardware Accelerators", DDECS
2022. What it calls truncated leaves out low bits of both operands; our truncation of columns is
its broken array without a horizontal cut. Its broken carry-save arrays (1.1.4) are not compared:
with cuts 2 and 7 or 3 and 8 they lose carries of products that they keep.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ariths_gen.multi_bit_circuits import approximate_multipliers, multipliers
from ariths_gen.wire_components.buses import Bus

from hw import build_multiplier, read_verilog, truth_table, write_text

Circuit = Callable[[Bus, Bus], object]


def approximate(name: str, **cuts: int) -> Circuit:
    return lambda a, b: getattr(approximate_multipliers, name)(a, b, name="other", **cuts)


def exact(name: str) -> Circuit:
    return lambda a, b: getattr(multipliers, name)(a, b, name="other")


CIRCUITS: dict[str, Circuit] = {
    "mul8u_array": exact("UnsignedArrayMultiplier"),
    "mul8s_array": exact("SignedArrayMultiplier"),
    "mul8u_wallace": exact("UnsignedWallaceMultiplier"),
    "mul8s_wallace": exact("SignedWallaceMultiplier"),
    "mul8u_dadda": exact("UnsignedDaddaMultiplier"),
    "mul8s_dadda": exact("SignedDaddaMultiplier"),
    **{
        f"mul8u_truncated_operands_k{k}": approximate(
            "UnsignedTruncatedArrayMultiplier", truncation_cut=k
        )
        for k in (1, 3)
    },
    **{
        f"mul8u_truncated_k{k}": approximate(
            "UnsignedBrokenArrayMultiplier", horizontal_cut=0, vertical_cut=k
        )
        for k in (4, 9)
    },
    **{
        f"mul8u_broken_array_h{h}_v{v}": approximate(
            "UnsignedBrokenArrayMultiplier", horizontal_cut=h, vertical_cut=v
        )
        for h, v in ((1, 5), (2, 7), (3, 8))
    },
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_same_table(name: str, tmp_path: Path) -> None:
    text = io.StringIO()
    CIRCUITS[name](Bus(N=8, prefix="a"), Bus(N=8, prefix="b")).get_v_code_flat(text)
    write_text(tmp_path / "other.v", text.getvalue())
    other = read_verilog(tmp_path / "other.v", "other")
    ours = build_multiplier(name)
    assert [port.name for port in other.inputs] == ["a", "b"]
    assert np.array_equal(truth_table(other, ours.signed), truth_table(ours.netlist, ours.signed))
