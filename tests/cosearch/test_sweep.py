"""A sweep through the command line: whole, interrupted, by several processes, and wrong input."""

import itertools
import json
import multiprocessing
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("optuna")

from cosearch import task as task_module
from cosearch.cli import app
from cosearch.config import Train
from cosearch.data import DataSet
from cosearch.progress import Progress
from cosearch.report.sweep_page import sweep_page, sweep_summary
from cosearch.run_folder import RunFolder
from cosearch.stages import lut as lut_stage
from cosearch.sweep import baselines, finals, members, running
from cosearch.sweep.assessment import Assessment, Limits
from cosearch.sweep.finals import evaluations_of
from cosearch.sweep.folder import SweepFolder, claimed
from cosearch.sweep.plan import METHODS, Member, Plan
from cosearch.sweep.records import Evaluation, read_evaluations
from cosearch.sweep.results import Advantage, Moment, Outcome, SweepResults, curve
from cosearch.sweep.running import run_sweep
from hw.errors import InputError

from .sweep_example import config, few_digits, library, sweep_folder
from .test_report import Balance

BUDGET = 4 * 48
PLAN = Plan(
    ("darts", "random", "nsga2"),
    (0.1, 1.0),
    (0,),
    BUDGET,
    epochs=1,
    population=2,
    finals=2,
    selections=2,
)
OPTIONS = (
    *("--weights", "0.1,1", "--budget-images", str(BUDGET)),
    *("--epochs", "1", "--population", "2", "--finals", "2"),
    *("--selections", "2"),
)
QUIET = Progress(quiet=True)
EXAMPLE = Limits(0.9, 100.0, 1000.0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few digits, and multipliers that need no synthesis."""

    def stage(run: RunFolder, progress: Progress) -> None:
        library().save(run.luts)

    monkeypatch.setattr(task_module, "load_data_set", few_digits)
    monkeypatch.setattr(lut_stage, "run", stage)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep from beginning to end, on few digits."""
    folder = tmp_path_factory.mktemp("straight") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_module, "load_data_set", few_digits)
        assert run_sweep(sweep_folder(folder, PLAN), QUIET) is not None
    return folder


def cosearch(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> str:
    result = cosearch(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def timeless(value: Any) -> Any:
    """JSON without seconds, and without what follows from them."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "seconds" not in k}
        return {key: timeless(one) for key, one in kept.items()}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def figures(folder: Path) -> Any:
    return timeless(json.loads((folder / "results.json").read_text()))


def test_a_sweep_has_all_it_says(straight: Path) -> None:
    sweep = SweepFolder.open(straight)
    names = {member.name for member in sweep.plan.members}
    assert names == {"darts-0.1-seed0", "darts-1-seed0", "random-seed0", "nsga2-seed0"}
    assert {path.name for path in (straight / "members").iterdir()} == names
    for member in sweep.plan.members:
        run = RunFolder.open(straight / "members" / member.name)
        assert run.finished("lut") and run.finished("search") is not member.is_baseline
    result = json.loads(sweep.results.read_text())
    for outcome in result["outcomes"]:
        # A search may find fewer genotypes than it is asked for, but one at least.
        assert outcome["judged"] in ((2, 3, 4) if outcome["method"] == "darts" else (4,))
        assert outcome["curve"][-1]["hypervolume"] == outcome["hypervolume"]
        assert 1 <= len(outcome["finals"]) <= 2
    # A search of one epoch sees 48 + 48 images, each of its judgements 48.
    images = [outcome["curve"][-1]["images"] for outcome in result["outcomes"]]
    judged = result["outcomes"][0]["judged"]
    assert judged > 2 and images == [2 * 96 + judged * 48, BUDGET, BUDGET]


def test_a_finished_sweep_does_nothing_again(straight: Path) -> None:
    before = figures(straight), (straight / "report.html").read_bytes()
    result = cosearch("sweep", "--resume", straight)
    assert result.exit_code == 0, result.output
    assert result.output.count("(already finished)") == 4
    assert "DARTS reaches the hypervolume of NSGA-II" in result.output
    assert (figures(straight), (straight / "report.html").read_bytes()) == before


def test_an_interrupted_sweep_ends_as_one_that_was_not(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text(config().to_toml())
    folder = tmp_path / "sweep"
    arguments: list[str | Path] = ["sweep", tmp_path / "c.toml", "--out", folder, *OPTIONS]
    places = ((members, "assess"), (baselines, "assess"), (finals, "integer_network"))
    for module, name in places:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _interrupted_at(getattr(module, name), 2))
            result = cosearch(*arguments)
        assert result.exit_code == 130, result.output
        assert f"go on with: cosearch sweep --resume {folder}" in result.stderr
        arguments = ["sweep", "--resume", folder]
    assert cosearch(*arguments).exit_code == 0
    assert figures(folder) == figures(straight)


def _interrupted_at(plain: Any, call: int) -> Any:
    """The function, interrupted at its so-manieth call."""
    calls = 0

    def function(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return plain(*arguments)

    return function


def test_what_another_process_has_in_hand_is_left_to_it(tmp_path: Path) -> None:
    plan = Plan(("random",), (0.1,), (0, 1), 48, epochs=1, finals=1)
    sweep = sweep_folder(tmp_path / "sweep", plan)
    with claimed(sweep.lock(plan.members[0])):
        assert run_sweep(sweep, QUIET) is None
        assert [sweep.finished(member) for member in plan.members] == [False, True]
        assert run_sweep(sweep, QUIET, join=True) is not None


def test_several_processes_find_what_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # other processes have whole digits
    plan = Plan(("random",), (0.1,), (0, 1), 629, epochs=1, finals=1)
    settings = replace(config(channels=2, cells=1), train=Train(epochs=1, batch_size=256))
    several = sweep_folder(tmp_path / "several", plan, settings)
    assert run_sweep(several, QUIET, jobs=2) is not None
    single = sweep_folder(tmp_path / "single", plan, settings)
    assert run_sweep(single, QUIET) is not None
    assert figures(several.path) == figures(single.path)


def test_a_fault_in_a_process_is_one_line(tmp_path: Path) -> None:
    plan = Plan(("random",), (0.1,), (0,), 48, epochs=1)
    sweep = sweep_folder(tmp_path / "sweep", plan)
    journal = sweep.member(Member("random", 0)).path / "journal.jsonl"
    journal.write_text("no journal\n{}\n")
    context = multiprocessing.get_context("spawn")
    faults = context.SimpleQueue()
    with pytest.raises(SystemExit):
        running._worker(sweep.path, False, context.Barrier(1), faults)
    assert "must be a journal of Optuna" in faults.get()
    assert "must be a journal of Optuna" in refused("sweep", "--resume", sweep.path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "dart"), "method must be one of .* not 'dart'; did you mean 'darts'?"),
        (("--methods", ""), "methods must be at least one, not none"),
        (("--methods", "random,random"), "methods must differ, not be random 2 times"),
        (("--weights", "0.1,x"), "weights must be numbers between commas, not 'x'"),
        (("--weights", "-1"), "weights must be at least 0, not -1.0"),
        (("--weights", "nan"), "weights must be at least 0, not nan"),
        (("--weights", "1,1.0"), "weights must differ, not be 1 2 times"),
        (("--seeds", "0"), "seeds must be a number from 1 to 1000, not 0"),
        (("--epochs", "0"), "epochs must be at least 1, not 0"),
        (("--population", "1"), "population must be at least 2, not 1"),
        (("--finals", "0"), "finals must be at least 1, not 0"),
        (("--selections", "0"), "selections must be at least 1, not 0"),
        (("--dearer", "-1"), "dearer must be at least 0, not -1"),
        (
            ("-o", "search.beta_grain=layer"),
            "selections must be 1 where no genotype is selected by energy, not 4 .*beta_grain",
        ),
        (("--budget-images", "-1"), "budget images must be at least 0, not -1"),
        (("--budget-images", "5"), "budget images must be at least 240, .* not 5"),
        (("--jobs", "0"), "jobs must be at least 1, not 0"),
        (("--resume", "."), r"\. must be the folder of a sweep, but has no sweep.json"),
        (("--methods", "pc_darts", "-o", "search.partial_channels=3"), "must divide"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(config().to_toml())
    file = () if "--resume" in options else ("c.toml",)
    assert re.search(message.replace("?", "[?]"), refused("sweep", *file, *options))


def test_a_sweep_is_not_begun_over_another(straight: Path) -> None:
    assert "holds a sweep: go on with it by --resume" in refused("sweep", "--out", straight)
    for option in ("--seed", "--weights", "--epochs"):
        assert f"not with {option}" in refused("sweep", "--resume", straight, option, "1")
    assert "not with CONFIG" in refused("sweep", "c.toml", "--resume", straight)


def test_baselines_need_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members.importlib.util, "find_spec", lambda name: None)
    sweep = sweep_folder(tmp_path / "sweep", PLAN)
    with pytest.raises(InputError, match="must not hold random, nsga2 where Optuna is not"):
        run_sweep(sweep, QUIET)


@pytest.mark.parametrize("line", ["{", "[]", '{"accuracy": 1}', '{"genotype": {}}', "7"])
def test_a_damaged_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "evaluations.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="evaluations.jsonl, line 1"):
        read_evaluations(path)


def test_the_curve_is_that_of_each_beginning(straight: Path) -> None:
    found = evaluations_of(SweepFolder.open(straight), "random", 0)
    moments = curve(found, EXAMPLE)
    for number, moment in enumerate(moments, 1):
        before = found[:number]
        assert moment.images == sum(one.assessment.images for one in before)
        assert moment.seconds == pytest.approx(sum(one.assessment.seconds for one in before))
        assert moment.hypervolume == pytest.approx(_area(before))


def _area(found: list[Evaluation]) -> float:
    """By strips of energy: in each the least error at no more energy."""
    points = [EXAMPLE.relative(one.assessment.objectives)[:2] for one in found]
    area = 0.0
    edges = sorted({min(energy, 1.0) for _, energy in points} | {1.0})
    for low, high in itertools.pairwise(edges):
        least = min((error for error, energy in points if energy <= low), default=1.0)
        area += (high - low) * max(0.0, 1.0 - least)
    return area


def outcome(method: str, seed: int, *moments: tuple[int, float]) -> Outcome:
    steps = tuple(Moment(images, images / 10, volume) for images, volume in moments)
    assessments = (
        Assessment(0.9, 40.0 + seed, 500, 1000, 10.0),
        Assessment(0.95, 60.0 + seed, 700, 1000, 10.0),
    )
    return Outcome(method, seed, len(steps), steps, 0.4, assessments, 0.5)


def example_results() -> SweepResults:
    """Every method, two seeds."""
    outcomes = tuple(
        outcome(method, seed, (100 * (seed + 1), 0.2), (400, 0.5 + seed / 10 + number / 100))
        for number, method in enumerate(METHODS)
        for seed in (0, 1)
    )
    advantages = (Advantage("darts", "nsga2", (6.0, 0.0), (3.0, 0.0)),)
    return SweepResults(Plan(METHODS, (0.1,), (0, 1)), EXAMPLE, outcomes, advantages)


def test_the_advantage_is_the_ratio_of_first_moments(straight: Path) -> None:
    from cosearch.sweep.results import _advantage

    outcomes = (
        outcome("darts", 0, (100, 0.3), (200, 0.6)),
        outcome("darts", 1, (100, 0.3), (200, 0.4)),
        outcome("nsga2", 0, (50, 0.1), (800, 0.5), (900, 0.5)),
        outcome("nsga2", 1, (50, 0.1), (800, 0.5)),
    )
    advantage = _advantage("darts", "nsga2", outcomes)
    assert advantage.images == (4.0, 0.0)
    assert advantage.seconds == pytest.approx((4.0, 0.0))
    assert advantage.reached == 1


def test_the_page_is_whole_and_escapes_its_name() -> None:
    results = example_results()
    html = sweep_page(results, "<b>&", config().to_toml())
    balance = Balance()
    balance.feed(html)
    assert balance.open == [] and balance.references == []
    assert "&lt;b&gt;&amp;" in html and "<b>&" not in html
    drawings = re.findall(r"<svg .*?</svg>", html, re.S)
    assert len(drawings) == 3
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing
    assert html == sweep_page(results, "<b>&", config().to_toml())


def test_the_summary_has_a_line_for_each_method() -> None:
    lines = sweep_summary(example_results()).splitlines()
    assert len(lines) == 1 + len(METHODS) + 2
    assert "NSGA-II in 1 of 2 seeds; times fewer images: 3.00 (0.00 – 6.00)" in lines[-1]
    assert all("0.5000" in line for line in lines[1 : 1 + len(METHODS)])


def test_few_digits_are_few() -> None:
    data: DataSet = few_digits("digits", 0)
    assert {len(split) for split in data.splits.values()} == {48}
