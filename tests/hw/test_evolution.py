"""Evolution: genomes against netlists, the compiled loop against plain numpy, small searches."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw import (
    CATALOGUE,
    InputError,
    Netlist,
    build_multiplier,
    default_library,
    multiplier_cost,
    parse_multiplier_name,
    truth_table,
)
from hw.evolution import EvolutionStep, EvolutionTask, _problem, _Search, evolve_multiplier
from hw.evolution_genome import FUNCTIONS, Genome, function_costs, genome_of, netlist_of
from hw.evolution_kernel import _mutate, _within
from hw.multipliers import find_multiplier, multiplier_shape, named_by_digest, save_multiplier

TINY = EvolutionTask("mul4u_array", mae=1.0, evaluations=2_000)


def counts(genome: Genome) -> dict[str, int]:
    return {name: int((genome.functions == n).sum()) for n, name in enumerate(FUNCTIONS)}


def test_adders_are_found() -> None:
    """An array of 8×8: 64 AND, 48 full and 8 half adders, nothing else."""
    found = counts(genome_of(build_multiplier("mul8u_array").netlist))
    assert {name: count for name, count in found.items() if count} == {
        "and": 64,
        "half_adder": 8,
        "full_adder": 48,
    }


@pytest.mark.parametrize("name", CATALOGUE[1::9])
def test_genomes_and_back(name: str) -> None:
    multiplier = build_multiplier(name)
    back = netlist_of(genome_of(multiplier.netlist), name)
    assert np.array_equal(
        truth_table(back, multiplier.signed), truth_table(multiplier.netlist, multiplier.signed)
    )


def test_costs_of_primitives() -> None:
    """Areas of the embedded library's cells; of half an adder, those of its gates."""
    costs = dict(zip(FUNCTIONS, function_costs(default_library()).tolist(), strict=True))
    areas = {name: cell.area_um2 for name, cell in default_library().cells.items()}
    assert costs["buf"] == [0, 0, 0, 0]
    assert costs["nand"] == [0, round(1000 * areas["NAND2X1"]), 0, round(1000 * areas["NAND2X1"])]
    assert costs["full_adder"][3] == round(1000 * areas["FAX1"])
    assert costs["half_adder"][2] == costs["and"][1]


def plain_within(genome: Genome, task: EvolutionTask) -> bool:
    """Bounds checked on the table, as the task states them, for uniform operands."""
    start = build_multiplier(task.start)
    table = truth_table(netlist_of(genome, "x"), start.signed).astype(np.int64)
    errors = table - truth_table(start.netlist, start.signed)
    unit = table.size / 100
    zero = not (table[0].any() or table[:, 0].any())
    return bool(
        abs(errors).mean() <= task.mae * unit
        and (task.wce is None or abs(errors).max() <= task.wce * unit)
        and (task.bias is None or abs(errors.mean()) <= task.bias * unit)
        and (zero or not task.keep_zero)
    )


@pytest.mark.parametrize(
    "task",
    [
        EvolutionTask("mul4u_array", mae=3.0),
        EvolutionTask("mul4s_array", mae=3.0, keep_zero=False),
        EvolutionTask("mul4u_array", mae=100.0, wce=12.5, keep_zero=False),
        EvolutionTask("mul4s_array", mae=100.0, wce=9.4, keep_zero=False),
        EvolutionTask("mul4s_array", mae=100.0, bias=1.0, keep_zero=False),
        EvolutionTask("mul6u_array", mae=3.0, bias=2.0),
        EvolutionTask("mul6s_array", mae=100.0, wce=12.0),
    ],
    ids=[
        "mae",
        "signed mae",
        "wce",
        "signed wce",
        "signed bias",
        "mae and bias",
        "signed wce zero",
    ],
)
def test_bounds_against_tables(task: EvolutionTask) -> None:
    """The compiled check of random mutants against the same in numpy."""
    problem = _problem(task, default_library())
    parent = genome_of(problem.start.netlist)
    random = np.array([7], np.uint64)
    seen = {True: 0, False: 0}
    for _ in range(150):
        genome = parent.copy()
        _mutate(genome.functions, genome.inputs, genome.outputs, parent.first_node_net, random, 3)
        nets = parent.first_node_net + 2 * len(parent.functions)
        used = np.zeros(nets, np.uint8)
        used[list(genome.used())] = 1
        words = np.zeros((nets, 64), np.uint64)
        words[1] = ~np.uint64(0)
        within = _within(
            *(genome.functions, genome.inputs, genome.outputs, genome.first_node_net),
            *(used, words, problem.stimuli, problem.exact, problem.weights, problem.zeros),
            *(problem.bounds, problem.start.signed),
        )
        assert within == plain_within(genome, task)
        seen[within] += 1
    assert min(seen.values()) > 5, seen


def test_a_search_is_in_bounds_cheaper_and_repeatable() -> None:
    steps: list[EvolutionStep] = []
    evolved = evolve_multiplier(TINY, progress=steps.append)
    exact = build_multiplier(TINY.start)
    table = truth_table(evolved.multiplier.netlist, signed=False)
    assert np.abs(table - truth_table(exact.netlist, signed=False)).mean() <= 0.01 * 256
    assert evolved.errors.mae == np.abs(table - truth_table(exact.netlist, signed=False)).mean()
    assert not table[0].any()
    assert not table[:, 0].any()
    assert evolved.cost.energy_fj < multiplier_cost(exact).energy_fj
    assert evolved.evaluations == 2_000 == steps[-1].evaluations
    assert "2000 evaluations" in str(steps[-1])
    assert evolve_multiplier(TINY) == evolved
    assert evolve_multiplier(replace(TINY, seed=1)).multiplier != evolved.multiplier


def test_an_interrupted_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw.evolution.CHUNK", 400)
    checkpoint = tmp_path / "search.json"

    def interrupt(step: EvolutionStep) -> None:
        if step.evaluations == 800:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evolve_multiplier(TINY, checkpoint=checkpoint, progress=interrupt)
    steps: list[EvolutionStep] = []
    evolved = evolve_multiplier(TINY, checkpoint=checkpoint, progress=steps.append)
    assert steps[0].evaluations == 1200
    assert evolved == evolve_multiplier(TINY)
    with pytest.raises(InputError, match="must be the checkpoint of this search, not of another"):
        evolve_multiplier(replace(TINY, mae=2.0), checkpoint=checkpoint)
    checkpoint.write_text(json.dumps(json.loads(checkpoint.read_text()) | {"best": {}}))
    with pytest.raises(InputError, match="must be a checkpoint of evolution, not lack 'functions'"):
        evolve_multiplier(TINY, checkpoint=checkpoint)


def test_time_limit() -> None:
    assert evolve_multiplier(TINY, seconds=0).evaluations == 0


def test_operand_distribution() -> None:
    """Errors count where the operands are; the weighted MAE is never above the bound."""
    few = (8.0, 8.0, *[1.0] * 4, *[0.01] * 10)
    task = EvolutionTask(
        "mul4u_array", mae=0.2, evaluations=4_000, a_probabilities=few, b_probabilities=few
    )
    evolved = evolve_multiplier(task)
    errors = np.abs(
        truth_table(evolved.multiplier.netlist, signed=False) - np.outer(np.arange(16), range(16))
    )
    weights = np.outer(few, few) / sum(few) ** 2
    assert (errors * weights).sum() == pytest.approx(evolved.errors.mae)
    assert 0 < evolved.errors.mae <= 0.002 * 256
    assert errors.mean() > 0.01 * 256
    assert evolved.cost.activity.startswith("given operand histograms")


def test_start_from_an_approximate_circuit() -> None:
    task = EvolutionTask("mul4u_truncated_k3", mae=2.0, evaluations=400)
    assert evolve_multiplier(task).errors.mae <= 0.02 * 256
    with pytest.raises(
        InputError, match=r"mae must be at least that of mul4u_truncated_k3, .*1.66"
    ):
        evolve_multiplier(replace(task, mae=1.0))
    with pytest.raises(InputError, match="must keep 0·x = 0, not be mul4u_truncated_constant_k3"):
        evolve_multiplier(replace(task, start="mul4u_truncated_constant_k3"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mae": -1.0}, "mae must be 0 to 100 percent, not -1.0"),
        ({"wce": 101.0}, "wce must be 0 to 100 percent"),
        ({"evaluations": 0}, "evaluations must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"start": "mul16u_array"}, "must have 6 to 20 bits together to be evolved, not 32"),
        ({"a_probabilities": (1.0, 2.0)}, "histogram of operand 'a' must be 16 numbers"),
        ({"b_probabilities": (0.0,) * 16}, "histogram of operand 'b' must not be all zero"),
    ],
)
def test_bad_tasks(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _Search(replace(TINY, **changes), default_library())


# Saved circuits.


def renamed(netlist: Netlist) -> Netlist:
    return replace(netlist, name="other", net_names={})


def test_saved_circuit_takes_the_road_of_a_built_in_one(tmp_path: Path) -> None:
    netlist = build_multiplier("mul4s_truncated_k2").netlist
    multiplier = named_by_digest("evolved", netlist, True, "a test")
    path = save_multiplier(multiplier, tmp_path, {"seed": 1})
    assert path == tmp_path / f"{multiplier.name}.json"
    assert multiplier.name.startswith("mul4s_evolved_")
    assert build_multiplier(multiplier.name, tmp_path) == multiplier
    assert named_by_digest("evolved", renamed(netlist), True, "x").name == multiplier.name
    assert named_by_digest("evolved", netlist, False, "x").name[5:] != multiplier.name[5:]
    assert multiplier_shape(multiplier.name) == parse_multiplier_name("mul4s_array").shape
    assert np.array_equal(truth_table(multiplier.netlist, True), truth_table(netlist, True))


def test_saved_circuits_that_are_not_what_they_say(tmp_path: Path) -> None:
    multiplier = named_by_digest("evolved", build_multiplier("mul4u_array").netlist, False, "x")
    name = multiplier.name
    with pytest.raises(InputError, match=f"saved circuit {name} must lie in .*no such file"):
        find_multiplier(name, tmp_path)
    path = save_multiplier(multiplier, tmp_path)
    circuit = json.loads(path.read_text())
    other = named_by_digest("evolved", build_multiplier("mul4u_truncated_k2").netlist, False, "x")
    for changes, message in (
        ({"format": 9}, "must be of format 1, not 9"),
        ({"gates": circuit["gates"][:-1]}, "must be a net driven before it|must hold the circuit"),
        ({"name": "mul4u_evolved_000000000000"}, "must hold the circuit that its name"),
        ({"gates": 3}, "must be a saved circuit, not lack or garble"),
        (
            json.loads(save_multiplier(other, tmp_path).read_text()),
            f"must hold circuit {name}, not",
        ),
    ):
        path.write_text(json.dumps(circuit | changes))
        with pytest.raises(InputError, match=message):
            find_multiplier(name, tmp_path)
    with pytest.raises(InputError, match=r"must be named 'mul4u_evolved_0{12}'"):
        multiplier_shape("mul4x4u_evolved_000000000000")
