"""The refinement of a small trained run: measured, chosen, fine-tuned, resumed, evaluated."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from typer.testing import CliRunner

import cosearch.refining
from cosearch.assignment import Assignment, assigned, inner_layers
from cosearch.cli import app
from cosearch.config import Config, overridden
from cosearch.evaluation import evaluation, operation_of
from cosearch.genotype import Genotype
from cosearch.layers import layer_macs
from cosearch.metrics import read_metrics, record_metrics
from cosearch.pipeline import run_stage
from cosearch.progress import Progress
from cosearch.refinement import REFINEMENTS, Measured, Problem
from cosearch.refinement.betas import mixed_layers
from cosearch.refinement.problem import re_estimated
from cosearch.refinement.sensitivity import sensitivity_scores
from cosearch.refining import RefinementSettings, chosen_multipliers, problem_of, refine
from cosearch.run_folder import RunFolder
from cosearch.supernet import Supernet
from cosearch.task import Task, read_genotype
from cosearch.training import trained_network
from hw.errors import InputError
from hw.files import read_json, write_json
from lut import Candidates

QUIET = Progress(quiet=True)
SMALL = [
    "threads=1",
    "space.channels=4",
    "space.nodes=1",
    "space.operations=none,skip_connect,sep_conv_3x3,dil_conv_3x3",
    "multipliers.candidates=mul8s_array,mul8s_truncated_k7,mul8s_truncated_k9",
    "multipliers.built_also=",
    "train.epochs=1",
]
SETTINGS = RefinementSettings(0.55, epochs=2, images=64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose genotype was drawn, not searched, with trained networks."""
    folder = tmp_path_factory.mktemp("refining") / "run"
    run = RunFolder.create(folder, overridden(Config(), SMALL))
    run_stage(run, "lut", QUIET)
    write_json(run.genotype, _drawn(run).to_json())
    (run.path / "search").mkdir()
    run.finish("search", 0.0)
    run_stage(run, "train", QUIET)
    return run


def _drawn(run: RunFolder) -> Genotype:
    task = Task.of(run)
    luts = task.library.luts(run.config.multipliers.candidates)
    torch.manual_seed(1)
    net = Supernet(task.space, Candidates(luts), Candidates(luts[:1]))
    with torch.no_grad():
        for parameter in net.architecture_parameters():
            parameter.normal_()
        net.alphas["normal"][0, 2] = 9
        net.alphas["reduction"][0, 3] = 9
    return net.genotype()


@pytest.fixture(scope="module")
def refined(trained: RunFolder) -> RunFolder:
    """By the command; the functions are called by the other tests."""
    out = trained.path.with_name("refined")
    budget = ["--energy-budget", str(SETTINGS.energy_budget)]
    rest = ["--epochs", str(SETTINGS.epochs), "--images", str(SETTINGS.images), "--out", str(out)]
    result = CliRunner().invoke(app, ["refine", str(trained.path), *budget, *rest])
    assert result.exit_code == 0, result.output
    assert "energy relative to exact int8: 0." in result.output
    assert f"go on with: cosearch run --resume {out}" in result.output
    return RunFolder.open(out)


@pytest.fixture
def problem(trained: RunFolder) -> Problem:
    return problem_of(trained, Task.of(trained), read_genotype(trained), SETTINGS)


def test_the_sensitivity_of_a_layer_is_the_difference_of_two_networks(
    trained: RunFolder, problem: Problem, tmp_path: Path
) -> None:
    """Against a network that is built with the assignment, its batch norms estimated by hand."""
    before = {name: value.clone() for name, value in problem.network.state_dict().items()}
    scores = sensitivity_scores(problem, tmp_path, QUIET)
    assert all(torch.equal(v, before[n]) for n, v in problem.network.state_dict().items())
    for layer, index in ((0, 2), (3, 1)):
        chosen = problem.found.copy()
        chosen[layer] = index
        growth = _direct_loss(trained, problem, chosen) - _direct_loss(
            trained, problem, problem.found
        )
        assert -scores[layer, index] == pytest.approx(growth, abs=1e-6)
    assert all(scores[layer, index] == 0 for layer, index in enumerate(problem.found))


def _direct_loss(run: RunFolder, problem: Problem, chosen: np.ndarray) -> float:
    task, genotype = Task.of(run), read_genotype(run)
    network = trained_network("approximate", task, genotype, run)
    assigned(network, problem.assignment(genotype.digest, chosen), task.library, "straight_through")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.train()
            module.momentum = None
    with torch.no_grad():
        for batch in problem.statistics:
            network(batch.images)
        network.eval()
        images = torch.cat([batch.images for batch in problem.images])
        labels = torch.cat([batch.labels for batch in problem.images])
        return float(functional.cross_entropy(network(images).double(), labels))


@given(st.integers(0, 10_000), st.floats(0.3, 1.0))
@settings(max_examples=30)
def test_the_assignment_is_the_best_of_all(seed: int, budget: float) -> None:
    random = np.random.default_rng(seed)
    macs, energies = random.integers(1, 1000, 4), np.array([1.0, 0.6, 0.35])
    small = _problem_of_numbers(macs, energies, budget)
    scores = random.normal(size=(4, 3))
    every = [np.array(one) for one in itertools.product(range(3), repeat=4)]
    kept = [one for one in every if small.relative_energy(one) <= budget]
    if not kept:
        with pytest.raises(InputError, match="--energy-budget must be at least"):
            small.best_within_budget(scores)
        return
    chosen = small.best_within_budget(scores)
    assert small.relative_energy(chosen) <= budget
    best = max(float(scores[np.arange(4), one].sum()) for one in kept)
    assert float(scores[np.arange(4), chosen].sum()) == pytest.approx(best)


@pytest.mark.parametrize("method", REFINEMENTS)
def test_layers_keep_to_the_multipliers_that_they_may_have(
    method: str, trained: RunFolder, tmp_path: Path
) -> None:
    """Depthwise layers are exact, an operation has two of three candidates."""
    task = Task.of(trained)
    approximated = ("preprocess", "pointwise")
    entry = "sep_conv_3x3: mul8s_array mul8s_truncated_k7"
    multipliers = replace(task.config.multipliers, by_operation=(entry,))
    task = replace(
        task,
        config=replace(task.config, multipliers=multipliers),
        space=replace(task.space, approximated=approximated),
    )
    genotype = read_genotype(trained)
    one = problem_of(trained, task, genotype, replace(SETTINGS, energy_budget=0.99))
    assert 0 < one.least_energy < 0.99
    chosen = one.best_within_budget(REFINEMENTS[method](one, tmp_path, QUIET))
    tight = replace(one, budget=one.least_energy)
    for indices in (chosen, tight.best_within_budget(np.zeros(one.options.shape))):
        for path, index, row in zip(one.layers, indices, one.options, strict=True):
            layer = inner_layers(one.network)[path]
            assert row[index]
            if layer.geometry.groups > 1:
                assert index == 0
            elif operation_of(path, task, genotype) == "sep_conv_3x3":
                assert index < 2


def _problem_of_numbers(macs: np.ndarray, energies: np.ndarray, budget: float) -> Problem:
    layers = tuple(f"cells.{number}" for number in range(len(macs)))
    nothing = torch.nn.Identity()
    zeros = np.zeros(len(macs), np.int64)
    return Problem(
        nothing,
        layers,
        (),
        zeros,
        macs,
        100,
        100.0,
        energies,
        (),
        (),
        nothing,
        budget,
        "",  # type: ignore[arg-type]
    )


def test_the_refined_run_keeps_the_budget_as_its_evaluation_states_it(
    trained: RunFolder, refined: RunFolder
) -> None:
    stated = read_json(refined.assignment)
    result = evaluation(refined)
    relative = 1 - result["energy_saved"]
    assert relative == pytest.approx(stated["relative_energy"], rel=1e-12)
    assert stated["relative_energy"] <= SETTINGS.energy_budget < stated["relative_energy_before"]
    by_layer = {row["layer"]: row["multiplier"] for row in result["layers"]}
    for path, choice in stated["layers"].items():
        assert by_layer[path] == choice["name"]
    assert len({choice["name"] for choice in stated["layers"].values()}) > 1
    again = problem_of(refined, Task.of(refined), read_genotype(refined), SETTINGS)
    names = [again.luts[index].name for index in again.found]
    assert names == [stated["layers"][path]["name"] for path in again.layers]
    assert refined.finished("train") and not refined.finished("evaluate")
    assert read_genotype(refined) == read_genotype(trained)
    assert refined.weights("exact").read_bytes() == trained.weights("exact").read_bytes()


def test_later_stages_take_the_assignment(refined: RunFolder) -> None:
    for stage in ("evaluate", "export", "report"):
        run_stage(refined, stage, QUIET)
    manifest = read_json(refined.bundle / "manifest.json")
    names = {choice["name"] for choice in read_json(refined.assignment)["layers"].values()}
    assert names | {"mul8s_array"} == {m["name"] for m in manifest["multipliers"]}
    assert manifest["notes"]["assignment"]["layers"] == read_json(refined.assignment)["layers"]
    page = refined.report.read_text()
    assert "Sensitivity of layers to multipliers" in page
    svg = refined.assignment.with_name("sensitivities.svg").read_text()
    assert svg.startswith("<svg") and "--blue" in svg


def test_an_interrupted_refinement_ends_with_the_same_files(
    trained: RunFolder, refined: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while it measures, begins, trains and ends."""
    shutil.rmtree(trained.path / "refining")
    again = trained.path.with_name("again")
    with monkeypatch.context() as patch:
        patch.setattr(Problem, "measured", _stopping_after(9, Problem.measured))
        with pytest.raises(KeyboardInterrupt):
            refine(trained, SETTINGS, again, QUIET)
    assert (trained.path / "refining" / "sensitivities.json").exists() and not again.exists()
    functions = {
        "shutil.copytree": (1, shutil.copytree),
        "cosearch.training.record_metrics": (1, record_metrics),
        "cosearch.refining._move": (0, shutil.copytree),
    }
    for name, (count, function) in functions.items():
        with monkeypatch.context() as patch:
            patch.setattr(name, _stopping_after(count, function))
            with pytest.raises(KeyboardInterrupt):
                refine(trained, SETTINGS, again, QUIET)
        assert not again.exists()
    monkeypatch.setattr(cosearch.refining, "chosen_multipliers", None)  # not chosen once more
    refine(trained, SETTINGS, again, QUIET)
    for file in ("refine/assignment.json", "refine/sensitivities.json", "train/approximate.pt"):
        assert (again / file).read_bytes() == (refined.path / file).read_bytes()
    rows = read_metrics(again / "train" / "metrics.jsonl")
    assert [row["epoch"] for row in rows if row["network"] == "approximate"] == [1, 2]


def _stopping_after(count: int, function: Callable[..., object]) -> Callable[..., object]:
    done = 0

    def stopping(*arguments: object) -> object:
        nonlocal done
        done += 1
        if done > count:
            raise KeyboardInterrupt
        return function(*arguments)

    return stopping


def test_a_far_forecast_is_put_right_by_measuring(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two layers that are harmless alone and ruinous together: the second choice parts them."""
    layers = len(problem.layers)
    cheap = int(problem.energies_fj.argmin())
    worst = np.sort(np.argsort(-problem.macs)[:2])

    def measured(self: Problem, chosen: np.ndarray) -> Measured:
        both = bool((chosen[worst] == cheap).all())
        spread = 0.01 * float((chosen != 0).sum()) / layers
        return Measured(1.0 + spread + 5.0 * both, 0.5)

    monkeypatch.setattr(Problem, "measured", measured)
    loose = replace(problem, found=np.zeros(layers, np.int64), budget=problem.least_energy * 1.35)
    chosen = chosen_multipliers(loose, "sensitivity", tmp_path, QUIET)
    assert chosen.forecast is not None and chosen.corrected
    assert chosen.measured.loss < 1.1
    assert loose.relative_energy(chosen.multipliers) <= loose.budget


def test_mixed_layers_with_one_hot_shares_are_the_assignment(problem: Problem) -> None:
    images = problem.images[0].images
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(problem.luts), len(problem.layers))
    shares = torch.nn.functional.one_hot(torch.from_numpy(chosen), len(problem.luts)).float()
    still = replace(problem, statistics=())
    with torch.no_grad(), still._with(chosen):
        expected = still.network(images)
    with torch.no_grad(), mixed_layers(still, lambda: shares):
        assert torch.equal(still.network(images), expected)
    with torch.no_grad(), re_estimated(problem.network, problem.statistics):
        pass
    assert not any(module.training for module in problem.network.modules())


def test_betas_keep_the_budget_too(trained: RunFolder, tmp_path: Path) -> None:
    settings = replace(SETTINGS, method="betas", energy_budget=0.5, epochs=1)
    out = tmp_path / "by-betas"
    refined = refine(trained, settings, out, QUIET)
    stated = read_json(refined.assignment)
    assert stated["relative_energy"] <= 0.5 and stated["forecast_loss"] is None
    task = Task.of(refined)
    network = trained_network("approximate", task, read_genotype(refined), refined)
    macs = layer_macs(network, task.input_shape)
    energies = {entry.name: entry.cost.energy_fj for entry in task.library}
    inner = inner_layers(network)
    used = sum(macs[path] * energies[la.candidates.luts[0].name] for path, la in inner.items())
    used += sum(macs[path] for path in macs if path not in inner) * energies["mul8s_array"]
    assert used / (sum(macs.values()) * energies["mul8s_array"]) == pytest.approx(
        stated["relative_energy"]
    )


def test_what_is_wrong_is_one_line(trained: RunFolder, refined: RunFolder, tmp_path: Path) -> None:
    def said(*arguments: object) -> str:
        result = CliRunner().invoke(app, ["refine", *(str(argument) for argument in arguments)])
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        return line.removeprefix("error: ")

    run = trained.path
    assert said(run, "--energy-budget", 1.5).startswith("--energy-budget must be more than 0")
    assert "--energy-budget must be at least 0.4" in said(run, "--energy-budget", 0.1)
    assert "did you mean" in said(run, "--energy-budget", 0.5, "--method", "sensitivty")
    assert said(run, "--energy-budget", 0.5, "--epochs", 0).startswith("--epochs must be at least")
    occupied = said(run, "--energy-budget", 0.5, "--out", refined.path)
    assert occupied == f"--out must be a new or an empty folder, not {refined.path}"
    untrained = RunFolder.create(tmp_path / "untrained", trained.config)
    assert "cosearch train" in said(untrained.path, "--energy-budget", 0.5)


def test_an_assignment_of_another_genotype_is_refused(trained: RunFolder, problem: Problem) -> None:
    task, genotype = Task.of(trained), read_genotype(trained)
    other = replace(task, assignment=problem.assignment("0" * 64, problem.found))
    with pytest.raises(InputError, match="must be of the genotype of its run"):
        trained_network("approximate", other, genotype, trained)
    right = problem.assignment(genotype.digest, problem.found)
    assert Assignment.from_json(json.loads(json.dumps(right.to_json()))) == right
    less = Assignment(genotype.digest, dict(list(right.layers.items())[1:]))
    with pytest.raises(InputError, match="it differs at 'cells"):
        assigned(problem.network, less, task.library, "straight_through")
    with pytest.raises(InputError, match="must be an assignment"):
        Assignment.from_json({"format": 1})


def test_a_new_search_takes_the_assignment_away(refined: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(refined.path, copy)
    run = RunFolder.open(copy)
    aside = run.set_aside("search")
    assert aside is not None
    assert (aside / "refine" / "assignment.json").exists() and not run.assignment.exists()
