"""Every catalogue entry over all operand pairs against a definition written without circuits."""

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from hw import CATALOGUE, FAMILIES, InputError, build_multiplier, parse_multiplier_name, truth_table

Table = npt.NDArray[np.int64]


def operand(width: int, signed: bool) -> Table:
    """The value of each bit pattern."""
    patterns = np.arange(1 << width)
    return (
        np.where(patterns >> (width - 1), patterns - (1 << width), patterns) if signed else patterns
    )


def defined_table(name: str) -> Table:
    """Exact product minus the sum of the weighted bit products left out, modulo 2^(both widths)."""
    parsed = parse_multiplier_name(name)
    shape, parameters = parsed.shape, dict(parsed.named_parameters())
    rows = parameters.get("h", 0)
    columns = parameters.get("v", parameters.get("k", 0))
    a = operand(shape.a_width, shape.signed)[:, None]
    b = operand(shape.b_width, shape.signed)[None, :]
    total = a * b
    a_weights = [1 << i for i in range(shape.a_width)]
    b_weights = [1 << j for j in range(shape.b_width)]
    if shape.signed:
        a_weights[-1], b_weights[-1] = -a_weights[-1], -b_weights[-1]
    for i, a_weight in enumerate(a_weights):
        for j, b_weight in enumerate(b_weights):
            if j < rows or i + j < columns:
                total = total - (a >> i & 1) * (b >> j & 1) * a_weight * b_weight
    modulus = 1 << shape.p_width
    total %= modulus
    return np.where(total >= modulus // 2, total - modulus, total) if shape.signed else total


def table_of(name: str) -> npt.NDArray[np.int32]:
    multiplier = build_multiplier(name)
    return truth_table(multiplier.netlist, multiplier.signed)


@pytest.mark.parametrize("name", CATALOGUE)
def test_all_pairs(name: str) -> None:
    table = table_of(name)
    assert np.array_equal(table, defined_table(name))
    assert not table[0].any()
    assert not table[:, 0].any()


@pytest.mark.parametrize("name", ["mul8s_array", "mul8u_array", "mul5x3s_array", "mul2u_array"])
def test_exact(name: str) -> None:
    shape = parse_multiplier_name(name).shape
    a, b = operand(shape.a_width, shape.signed), operand(shape.b_width, shape.signed)
    assert np.array_equal(table_of(name), np.outer(a, b))


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_shape_and_parameters(data: st.DataObject) -> None:
    a, b = data.draw(st.integers(2, 6)), data.draw(st.integers(2, 6))
    widths = f"{a}" if a == b else f"{a}x{b}"
    design = data.draw(
        st.one_of(
            st.integers(1, a + b - 2).map("truncated_k{}".format),
            st.tuples(st.integers(0, b - 1), st.integers(0, a + b - 2)).map(
                lambda hv: f"broken_array_h{hv[0]}_v{hv[1]}"
            ),
        )
    )
    name = f"mul{widths}{data.draw(st.sampled_from('su'))}_{design}"
    assert np.array_equal(table_of(name), defined_table(name))


@pytest.mark.parametrize("name", ["mul3s_truncated_k2", "mul3u_broken_array_h1_v2"])
def test_amaranth_simulator_agrees(name: str) -> None:
    """The component itself, in Amaranth's own simulator, against the netlist's table."""
    component = build_multiplier(name).component()
    table = table_of(name)

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        for a in range(8):
            for b in range(8):
                ctx.set(component.a, a)
                ctx.set(component.b, b)
                await ctx.delay(1e-6)
                assert ctx.get(component.p) == table[a, b] & 0x3F

    simulator = Simulator(component)
    simulator.add_testbench(bench)
    simulator.run()


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
