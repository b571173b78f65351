"""Every catalogue entry over all operand pairs against a definition written without circuits."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from hw import (
    CATALOGUE,
    FAMILIES,
    InputError,
    build_multiplier,
    multiplier_cost,
    parse_multiplier_name,
    read_verilog,
    truth_table,
    verilog,
    write_text,
)
from hw.multipliers import Family, Shape
from tests.hw.multiplier_definitions import DEFINITIONS, defined_table, operand


def table_of(name: str) -> npt.NDArray[np.int32]:
    multiplier = build_multiplier(name)
    return truth_table(multiplier.netlist, multiplier.signed)


@pytest.mark.parametrize("name", CATALOGUE)
def test_all_pairs(name: str) -> None:
    assert np.array_equal(table_of(name), defined_table(name))


def test_zero_times_anything() -> None:
    """Every family either keeps zero in all its designs, or has one in which it does not."""
    kept = dict.fromkeys(FAMILIES, True)
    for name in CATALOGUE:
        table = defined_table(name)
        zero = not table[0].any() and not table[:, 0].any()
        kept[parse_multiplier_name(name).family.name] &= zero
    assert kept == {name: family.keeps_zero for name, family in FAMILIES.items()}


@pytest.mark.parametrize("name", ["mul8s_array", "mul8u_array", "mul5x3s_array", "mul2u_array"])
def test_exact(name: str) -> None:
    shape = parse_multiplier_name(name).shape
    a, b = operand(shape.a_width, shape.signed), operand(shape.b_width, shape.signed)
    assert np.array_equal(table_of(name), np.outer(a, b))


def drawn_name(data: st.DataObject, family: Family, shape: Shape) -> str | None:
    """A member of the family, if it has any of that shape."""
    a, b = shape.a_width, shape.b_width
    design = family.name
    room = b
    for parameter in family.parameters:
        high = parameter.high(shape)
        if (family.name, parameter.letter) == ("perforated", "r"):
            high = min(high, room)
        if high < parameter.low:
            return None
        value = data.draw(st.integers(parameter.low, high))
        room -= value
        design += f"_{parameter.letter}{value}"
    return f"mul{a if a == b else f'{a}x{b}'}{'s' if shape.signed else 'u'}_{design}"


@given(st.data())
@settings(max_examples=35)
def test_any_shape_and_parameters(data: st.DataObject) -> None:
    shape = Shape(
        data.draw(st.integers(2, 6)), data.draw(st.integers(2, 6)), data.draw(st.booleans())
    )
    name = drawn_name(data, FAMILIES[data.draw(st.sampled_from(sorted(FAMILIES)))], shape)
    if name is not None:
        assert np.array_equal(table_of(name), defined_table(name)), name


SMALL = [
    "mul3s_truncated_k2",
    "mul3u_broken_array_h1_v2",
    "mul3s_wallace",
    "mul3u_dadda",
    "mul3s_booth",
    "mul3s_booth_approximate_c3",
    "mul3s_truncated_variable_k3",
    "mul3u_truncated_constant_k3",
    "mul3s_perforated_f1_r1",
    "mul3s_recursive_d2",
    "mul3u_lower_or_k3",
    "mul3s_drum_k2",
    "mul3s_mitchell",
    "mul3u_iterative_log_i1",
    "mul3s_roba",
]


@pytest.mark.parametrize("name", SMALL)
def test_amaranth_simulator_agrees(name: str) -> None:
    """The component itself, in Amaranth's own simulator, against the netlist's table."""
    simulated(name, 3)


@pytest.mark.parametrize("design", ["momeni", "venkatachalam", "saturating"])
def test_amaranth_simulator_agrees_on_compressors(design: str) -> None:
    """Four bits: the narrowest in which a column has four bits."""
    simulated(f"mul4u_compressor_{design}_k5", 4)


def simulated(name: str, width: int) -> None:
    component = build_multiplier(name).component()
    table = table_of(name)

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        for a in range(1 << width):
            for b in range(1 << width):
                ctx.set(component.a, a)
                ctx.set(component.b, b)
                await ctx.delay(1e-6)
                assert ctx.get(component.p) == table[a, b] & ((1 << 2 * width) - 1)

    simulator = Simulator(component)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_verilog_reads_back(family: str, tmp_path: Path) -> None:
    """The netlist in our Verilog, read by Yosys, has the same table."""
    name = next(n for n in CATALOGUE if parse_multiplier_name(n).family.name == family)
    write_text(tmp_path / "multiplier.v", verilog(build_multiplier(name).netlist))
    back = read_verilog(tmp_path / "multiplier.v", name)
    assert np.array_equal(truth_table(back, name.startswith("mul8s")), table_of(name))


@pytest.mark.parametrize(
    "chain",
    [
        ["mul8u_dadda", *(f"mul8u_perforated_f0_r{r}" for r in (1, 2, 3))],
        [f"mul8s_truncated_variable_k{k}" for k in (5, 7, 9)],
        [f"mul8u_truncated_constant_k{k}" for k in (5, 7, 9)],
        [f"mul8u_iterative_log_i{i}" for i in (2, 1, 0)],
        [f"mul8u_drum_k{k}" for k in (6, 5, 4, 3)],
        [f"mul8u_recursive_d{d}" for d in (2, 4, 7)],
    ],
    ids=lambda chain: chain[-1],
)
def test_more_approximate_never_costs_more(chain: list[str]) -> None:
    costs = [multiplier_cost(build_multiplier(name)) for name in chain]
    assert [cost.energy_fj for cost in costs] == sorted((c.energy_fj for c in costs), reverse=True)
    assert [cost.area_um2 for cost in costs] == sorted((c.area_um2 for c in costs), reverse=True)


def relative_errors(name: str) -> npt.NDArray[np.float64]:
    """Of the pairs without a zero operand."""
    table = table_of(name).astype(np.float64)
    shape = parse_multiplier_name(name).shape
    product = np.outer(*(operand(width, shape.signed) for width in (shape.a_width, shape.b_width)))
    return (table / np.where(product == 0, 1, product) - 1)[product != 0]


@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_bound_of_drum(k: int) -> None:
    step = 2.0 ** (1 - k)
    errors = relative_errors(f"mul8u_drum_k{k}")
    assert -2 * step <= errors.min()
    assert errors.max() <= (1 + step) ** 2 - 1


def test_bounds_of_logarithms() -> None:
    errors = defined_table("mul8u_mitchell") - np.outer(np.arange(256), np.arange(256))
    assert errors.max() == 0
    assert (-errors <= np.outer(np.arange(256), np.arange(256)) / 9 + 1).all()
    for corrections in (0, 1, 2):
        relative = relative_errors(f"mul8u_iterative_log_i{corrections}")
        assert -(4.0 ** -(corrections + 1)) < relative.min()
        assert relative.max() == 0
    assert np.abs(relative_errors("mul8u_roba")).max() < 1 / 9 + 1e-12


def test_bounds_of_partial_products() -> None:
    exact = np.outer(np.arange(256), np.arange(256))
    for k in (5, 7, 9):
        columns = [min(c + 1, 15 - c) << c for c in range(k)]
        errors = table_of(f"mul8u_truncated_variable_k{k}") - exact
        assert -sum(columns[:-1]) <= errors.min()
        assert errors.max() <= columns[-1]
        errors = table_of(f"mul8u_truncated_constant_k{k}") - exact
        assert abs(errors.mean()) <= 2 ** (k - 1)
    for k in (5, 6, 7, 8, 9):
        errors = table_of(f"mul8u_lower_or_k{k}") - exact
        assert -7 * (2 ** (k - 1) - 1) <= errors.min()
        assert errors.max() <= 7 * 2 ** (k - 1)
    for c in (4, 6, 8):
        shape = operand(8, True)
        errors = table_of(f"mul8s_booth_approximate_c{c}") - np.outer(shape, shape)
        assert -4 * 2**c < errors.min()
        assert errors.max() == 0


def test_documented_errors() -> None:
    """MAE, WCE and bias in the table of docs/multipliers.md, to the printed digits."""
    text = Path(__file__).parents[2].joinpath("docs", "multipliers.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if "| mul8" in line]
    figures = {row[0]: tuple(row[4:7]) for row in rows if row[0] in CATALOGUE}
    assert set(CATALOGUE) - set(figures) == {
        name
        for name in CATALOGUE
        if parse_multiplier_name(name).family.name in ("truncated", "broken_array")
    }
    for name, printed in figures.items():
        shape = parse_multiplier_name(name).shape
        errors = defined_table(name) - np.outer(*[operand(8, shape.signed)] * 2)
        mae, wce, bias = np.abs(errors).mean(), np.abs(errors).max(), errors.mean()
        assert printed == (f"{mae:.2f}", f"{wce}", f"{bias:.2f}"), name


def test_every_family_has_a_definition() -> None:
    assert set(DEFINITIONS) == set(FAMILIES)


def test_catalogue_is_canonical_and_complete() -> None:
    assert len(set(CATALOGUE)) == len(CATALOGUE)
    assert all(str(parse_multiplier_name(name)) == name for name in CATALOGUE)
    assert {parse_multiplier_name(name).family.name for name in CATALOGUE} == set(FAMILIES)
    assert all(name == family.name for name, family in FAMILIES.items())


def test_what_a_multiplier_carries() -> None:
    multiplier = build_multiplier("mul8x6s_broken_array_h2_v5")
    assert (multiplier.a_width, multiplier.b_width, multiplier.signed) == (8, 6, True)
    assert multiplier.parameters == (("h", 2), ("v", 5))
    assert "Mahdiani" in multiplier.origin
    assert [port.name for port in multiplier.netlist.inputs] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mul8u_perforated_f7_r2",
            r"parameters f \+ r of perforated must be at most 8 \(the rows\), not 9",
        ),
        ("mul8s_aray", "family of multiplier 'mul8s_aray' must be one of .*; did you mean 'array'"),
        (
            "mul8s_truncated_k15",
            r"parameter k of truncated \(columns left out\) must be 1 to 14, not 15",
        ),
        ("mul8s_truncated_k0", "must be 1 to 14, not 0"),
        ("mul8s_truncated", "must be _k<number>, not 'none'; did you mean 'mul8s_truncated_k"),
        ("mul8s_truncated_j3", "must be _k<number>, not '_j3'"),
        ("mul8s_broken_array_v6_h2", "must be _h<number>_v<number>, not '_v6_h2'"),
        ("mul8s_array_k3", "must be no parameters, not '_k3'"),
        ("mul8s_truncated_k06", "multiplier must be named 'mul8s_truncated_k6', not"),
        ("mul8x8s_array", "multiplier must be named 'mul8s_array', not 'mul8x8s_array'"),
        ("mul1s_array", "first operand must have 2 to 32 bits, not 1"),
        ("mul8x99u_array", "second operand must have 2 to 32 bits, not 99"),
        ("truncated", "multiplier must be named like"),
        ("", "multiplier must be named like"),
        ("mul8s_array\n", "multiplier must be named like .*did you mean 'mul8s_array'"),
    ],
)
def test_bad_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_multiplier_name(name)
    assert "\n" not in str(error.value)
