"""The comparison of strategies: what is tried, its table and its chart."""

from benchmarks.strategies import RANDOM_NETWORKS, SEEDS, Plan, Trial, convergence, table, trials
from cosearch.config import STRATEGIES


def _row(trial: Trial, accuracy: float) -> dict[str, object]:
    return {
        "name": trial.name,
        "seed": trial.seed,
        "skips": trial.seed,
        "without_weights": 2,
        "test_accuracy": accuracy,
        "energy_nj": 75.16,
        "relative_energy": 0.5,
        "validation_accuracy": [0.1, accuracy],
    }


def test_every_strategy_is_tried_with_every_seed_and_random_networks_too() -> None:
    every = list(trials(Plan()))
    assert len(set(every)) == len(every) == RANDOM_NETWORKS + len(SEEDS) * (len(STRATEGIES) + 1)
    for strategy in STRATEGIES:
        seeds = [t.seed for t in every if t.strategy == strategy and not t.exact_only]
        assert tuple(seeds) == SEEDS
    assert every[-1].strategy == "darts_second_order"


def test_a_plan_may_be_smaller_and_of_other_settings() -> None:
    plan = Plan(["gdas"], 2, ["data.name=cifar10", "search.epochs=3"])
    names = [trial.name for trial in trials(plan)]
    assert names == ["random"] * 2 + ["gdas"] * len(SEEDS)
    config = plan.config("gdas", 1)
    assert (config.data.name, config.search.epochs, config.seed) == ("cifar10", 3, 1)


def test_the_table_has_medians_and_the_chart_means() -> None:
    some = [Trial("darts", seed) for seed in SEEDS] + [Trial("darts", 0, exact_only=True)]
    rows = [_row(trial, 0.9 + trial.seed / 100) for trial in some]
    lines = table(rows).splitlines()
    assert lines[2] == "| darts | 3 | 0, 1, 2 | 2, 2, 2 | 91.0 % (90.0 %) | 75 nJ | 50 % |"
    assert lines[3].startswith("| darts, exact multiplier only | 1 | 0 |")
    chart = convergence(rows)
    assert chart.startswith("<svg") and chart.count("curve blue") and "exact only" in chart
