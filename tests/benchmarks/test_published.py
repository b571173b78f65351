"""The comparison with published figures, on circuits and figures that were made up for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measurement import Measurement
from benchmarks.published import distinct, heads, last_digits, measurements
from hw import Netlist, Port, build_multiplier, default_library, mapped_cost, synthesise, verilog
from hw.liberty import DEFAULT_LIBRARY

NAMES = ("truncated_k2", "truncated_k6", "broken_array_h2_v6")


def renamed(netlist: Netlist) -> Netlist:
    ports = [Port(name, port.nets) for name, port in zip("ABO", _ports(netlist), strict=True)]
    return replace(netlist, inputs=tuple(ports[:2]), outputs=(ports[2],), net_names={})


def _ports(netlist: Netlist) -> tuple[Port, ...]:
    return (*netlist.inputs, *netlist.outputs)


def write_mapped(folder: Path, name: str) -> None:
    mapped = synthesise(build_multiplier(f"mul8u_{name}").netlist, default_library())
    cost = mapped_cost(mapped, default_library(), model="published-comparable")
    head = (
        f"Area   (45) = {cost.area_um2:.0f}\nDelay  (45) = {cost.delay_ps * 1e-3:.3f}\n"
        f"Power  (45) = {cost.power_mw * 1.01e3:.2f}"
    )
    text = verilog(renamed(mapped), module=f"mul8_{name}", header=head)
    (folder / f"mul8_{name}_pdk45.v").write_text(text)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measurement]:
    folder = tmp_path_factory.mktemp("circuits")
    for name in NAMES:
        write_mapped(folder, name)
    text = "// MAE = 0.75\n// WCE = 1\n// MRE% = 0.40 %\n// EP% = 20.00 %\n// PDK45_PWR = 0.3 mW\n"
    body = "uint16_t mul8u_one(uint8_t B, uint8_t A) { return (A * B) ^ ((A & B) & 1); }"
    (folder / "mul8u_one.c").write_text(text + body)
    all_of_them = measurements(folder, DEFAULT_LIBRARY, default_library())
    return {measurement.metric: measurement for measurement in all_of_them}


def test_mapped_netlists(found: dict[str, Measurement]) -> None:
    what = "3 mapped netlists, cosearch45"
    assert found[f"{what}: power, Pearson"].value == pytest.approx(1)
    assert found[f"{what}: power, Spearman"].value == pytest.approx(1)
    assert found[f"{what}: power, mean absolute error"].value == pytest.approx(100 / 101, rel=0.01)
    assert found[f"{what}: areas that differ in a printed digit"].value == 0
    assert found[f"{what}: delay, Pearson"].value == pytest.approx(1)


def test_error_metrics(found: dict[str, Measurement]) -> None:
    """The error is one where both are odd, a quarter of the pairs; 0.75 and 20 % are wrong."""
    said = {metric: measurement.value for metric, measurement in found.items()}
    what = "of 1 C functions: printed figures off by more than one last digit"
    assert said[f"MAE {what} (mul8u_one 0.25 for 0.75)"] == 1
    assert said[f"EP {what} (mul8u_one 25 for 20.00)"] == 1
    assert said[f"WCE {what}"] == 0


@pytest.mark.parametrize(
    ("value", "printed", "off"),
    [(2.345, "2.35", 0.5), (731.4, "731", 0.4), (5576768.0, "55767.68e2", 0.0), (1.26, "1.2", 0.6)],
)
def test_last_digits(value: float, printed: str, off: float) -> None:
    assert last_digits(value, printed) == pytest.approx(off, abs=1e-5)


def test_files_that_repeat_count_once(tmp_path: Path) -> None:
    for folder, area in (("one", 5), ("two", 5), ("three", 6)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mul8u_x.v").write_text(f"// PDK45_AREA = {area} um2\n")
        (tmp_path / folder / "other.v").write_text("// PDK45_AREA = 7 um2\n")
    assert len(list(heads(tmp_path, "*.v"))) == 3
    assert len(distinct(heads(tmp_path, "*.v"))) == 2
