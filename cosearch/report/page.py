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
from .heat_map import sensitivity_map
from .results import MultiplierResult, Results, Row
from .summary import line_title


def page(results: Results) -> str:
    """The report of ``results`` as HTML; the same results give the same bytes."""
    template = environment().get_template("report.html.j2")
    relative = relative_energies(results.multipliers)
    return template.render(
        results=results,
        titles=TITLES,
        basis=str(results.basis),
        points=_points(results),
        seconds=_seconds(results),
        scatter=accuracy_against_energy(results.networks, str(results.basis)),
        cells=[
            (kind, cell_graph(kind, results.genotype.cell(kind), relative)) for kind in CELL_TYPES
        ],
        heat_map=_heat_map(results),
        layers=energy_by_layer(results.layers) if results.layers else "",
        search_curves=search_curves(results.search),
        training_curves=training_curves(results.training),
        relative=relative,
        used=Counter(layer.multiplier for layer in results.layers),
    )


def environment() -> jinja2.Environment:
    """Where the templates are found, with their filters."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("cosearch.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"energy": energy_text, "percent": _percent, "line_title": line_title}
    return made


def relative_energies(multipliers: Sequence[MultiplierResult]) -> dict[str, float]:
    """Energy of each multiplier relative to the first one of its signedness, the exact one."""
    exact: dict[bool, float] = {}
    for multiplier in multipliers:
        if multiplier.mae == 0:
            exact.setdefault(multiplier.signed, multiplier.energy_fj)
    return {m.name: m.energy_fj / exact[m.signed] for m in multipliers if exact.get(m.signed)}


def search_curves(rows: Sequence[Row]) -> list[Markup]:
    """Expected energy and latency, accuracy and entropies over the epochs of the search."""
    energy = [_series(rows, "expected_energy", "expectation over the betas", "blue")]
    latency = [_series(rows, "expected_latency", "expectation over the betas", "blue")]
    accuracy = [
        _series(rows, "train_accuracy", "train", "vermilion", 100, dashed=True),
        _series(rows, "validation_accuracy", "validation", "blue", 100),
    ]
    entropy = [
        _series(rows, "alpha_entropy", "alphas (operations)", "blue"),
        _series(rows, "beta_entropy", "betas (multipliers)", "vermilion", dashed=True),
    ]
    return [
        *_chart("Expected energy", "relative to exact int8", energy, floor=0.0),
        *_chart("Expected latency", "relative to exact int8", latency, floor=0.0),
        *_chart("Accuracy in the search", "accuracy (%)", accuracy),
        *_chart("Entropy of the choices", "mean entropy (1: undecided)", entropy, floor=0.0),
    ]


def training_curves(rows: Sequence[Row]) -> list[Markup]:
    """Loss and accuracy of each network over the epochs of its training."""
    loss = [_role_series(rows, role, "loss", 1) for role in COLOURS]
    accuracy = [_role_series(rows, role, "accuracy", 100) for role in COLOURS]
    return [
        *_chart("Loss in training", "cross-entropy (nats)", loss),
        *_chart("Accuracy in training", "training accuracy (%)", accuracy),
    ]


def _chart(
    title: str, y_label: str, series: Sequence[Series], floor: float | None = None
) -> list[Markup]:
    """A chart of what has points; none where nothing has."""
    present = [one for one in series if one.xs]
    return [curves(title, y_label, present, y_floor=floor)] if present else []


def _role_series(rows: Sequence[Row], role: str, key: str, factor: float) -> Series:
    of_role = [row for row in rows if row.get("network") == role]
    return _series(of_role, key, TITLES[role], COLOURS[role], factor, dashed=role != "approximate")


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


def _heat_map(results: Results) -> Markup | None:
    """Sensitivities of a refined run, where its method measured them."""
    refinement, sensitivities = results.refinement, results.sensitivities
    if refinement is None or sensitivities is None:
        return None
    chosen = {path: choice["name"] for path, choice in refinement["layers"].items()}
    return sensitivity_map(sensitivities, chosen)


def _percent(ratio: float, decimals: int = 2) -> str:
    return f"{ratio * 100:.{decimals}f}\N{NO-BREAK SPACE}%"


def _points(results: Results) -> str:
    difference = results.network("approximate").accuracy - results.network("exact").accuracy
    return f"{difference * 100:+.2f}".replace("-", "−")


def _seconds(results: Results) -> float:
    stages = results.record["stages"]
    return float(sum(stage["seconds"] for stage in stages.values()))
