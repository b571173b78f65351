"""The page ``report.html``: one file, style and drawings inside, nothing loaded from elsewhere."""

from collections import Counter
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from cosearch.genotype import CELL_TYPES

from .cells import cell_graph
from .charts import (
    COLOURS,
    TITLES,
    Series,
    accuracy_against_energy,
    curves,
    energy_by_layer,
    energy_text,
)
from .results import MultiplierResult, Results, Row


def page(results: Results) -> str:
    """The report of ``results`` as HTML; the same results give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cosearch.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"energy": energy_text, "percent": _percent}
    relative = relative_energies(results.multipliers)
    return environment.get_template("report.html.j2").render(
        results=results,
        titles=TITLES,
        basis=str(results.basis),
        points=_points(results),
        seconds=_seconds(results),
        scatter=accuracy_against_energy(results.networks, str(results.basis)),
        cells=[
            (kind, cell_graph(kind, results.genotype.cell(kind), relative)) for kind in CELL_TYPES
        ],
        layers=energy_by_layer(results.layers) if results.layers else "",
        search_curves=search_curves(results.search),
        training_curves=training_curves(results.training),
        relative=relative,
        used=Counter(layer.multiplier for layer in results.layers),
    )


def relative_energies(multipliers: Sequence[MultiplierResult]) -> dict[str, float]:
    """Energy of each multiplier relative to the first one of its signedness, the exact one."""
    exact: dict[bool, float] = {}
    for multiplier in multipliers:
        if multiplier.mae == 0:
            exact.setdefault(multiplier.signed, multiplier.energy_fj)
    return {m.name: m.energy_fj / exact[m.signed] for m in multipliers if exact.get(m.signed)}


def search_curves(rows: Sequence[Row]) -> list[Markup]:
    """Expected energy, accuracy and entropies over the epochs of the search."""
    if not rows:
        return []
    return [
        curves(
            "Expected energy",
            "relative to exact int8",
            [_series(rows, "expected_energy", "expectation over the betas", "blue")],
            y_floor=0.0,
        ),
        curves(
            "Accuracy in the search",
            "accuracy (%)",
            [
                _series(rows, "train_accuracy", "train", "vermilion", 100, dashed=True),
                _series(rows, "validation_accuracy", "validation", "blue", 100),
            ],
        ),
        curves(
            "Entropy of the choices",
            "mean entropy (nats)",
            [
                _series(rows, "alpha_entropy", "alphas (operations)", "blue"),
                _series(rows, "beta_entropy", "betas (multipliers)", "vermilion", dashed=True),
            ],
            y_floor=0.0,
        ),
    ]


def training_curves(rows: Sequence[Row]) -> list[Markup]:
    """Loss and accuracy of each network over the epochs of its training."""
    if not rows:
        return []
    by_role = {role: [row for row in rows if row.get("network") == role] for role in COLOURS}
    present = {role: part for role, part in by_role.items() if part}
    return [
        curves(title, label, [_role_series(role, r, key, factor) for role, r in present.items()])
        for title, label, key, factor in (
            ("Loss in training", "cross-entropy (nats)", "loss", 1),
            ("Accuracy in training", "training accuracy (%)", "accuracy", 100),
        )
        if present
    ]


def _role_series(role: str, rows: Sequence[Row], key: str, factor: float) -> Series:
    return _series(rows, key, TITLES[role], COLOURS[role], factor, dashed=role != "approximate")


def _series(
    rows: Sequence[Row],
    key: str,
    label: str,
    colour: str,
    factor: float = 1,
    *,
    dashed: bool = False,
) -> Series:
    present = [row for row in rows if row.get(key) is not None]
    xs = [float(row["epoch"]) for row in present]
    return Series(label, xs, [float(row[key]) * factor for row in present], colour, dashed)


def _percent(ratio: float, decimals: int = 2) -> str:
    return f"{ratio * 100:.{decimals}f}\N{NO-BREAK SPACE}%"


def _points(results: Results) -> str:
    difference = results.network("approximate").accuracy - results.network("exact").accuracy
    return f"{difference * 100:+.2f}".replace("-", "−")


def _seconds(results: Results) -> float:
    stages = results.record["stages"]
    return float(sum(stage["seconds"] for stage in stages.values()))
