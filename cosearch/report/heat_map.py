"""Sensitivities as a heat map: a row a layer, a column a multiplier, the chosen ones framed."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from . import svg

ROW, COLUMN, LEFT, TOP, RIGHT = 22.0, 84.0, 250.0, 130.0, 110.0


def sensitivity_map(sensitivities: Mapping[str, Any], chosen: Mapping[str, str]) -> Markup:
    """The growth of the loss (`sensitivities` as in sensitivities.json) where one layer alone has
    another multiplier; `chosen`: the multiplier of each layer after the refinement.

    The darker the more; a frame is the multiplier that was chosen, a dot the one before.
    """
    names = [str(row["name"]) for row in sensitivities["multipliers"]]
    layers = sensitivities["layers"]
    most = max((row[name]["loss"] for row in layers.values() for name in names), default=0.0)
    rows = [
        _row(number, layer, names, layers[layer], most or 1.0, sensitivities["found"], chosen)
        for number, layer in enumerate(layers)
    ]
    height = TOP + ROW * len(layers) + 40
    return svg.drawing(
        LEFT + COLUMN * len(names) + RIGHT,
        height,
        "Growth of the validation loss where one layer alone has another multiplier",
        svg.text(12, 18, "Sensitivity of layers to multipliers", "heading"),
        *(_column(number, name) for number, name in enumerate(names)),
        *rows,
        svg.text(
            12,
            height - 12,
            "growth of the validation loss (1/1000 nat) where one layer alone is changed; "
            "frame: chosen, dot: before",
            "label",
        ),
    )


def _column(number: int, name: str) -> Markup:
    x, y = LEFT + COLUMN * (number + 0.5), TOP - 10
    turned = f"rotate(-28 {x:g} {y:g})"
    return svg.element("text", {"x": x, "y": y, "class": "mono", "transform": turned}, name)


def _row(
    number: int,
    layer: str,
    names: list[str],
    row: Mapping[str, Mapping[str, float]],
    most: float,
    found: Mapping[str, str],
    chosen: Mapping[str, str],
) -> Markup:
    y = TOP + ROW * number
    cells = []
    for column, name in enumerate(names):
        x, growth = LEFT + COLUMN * column, row[name]["loss"]
        cells.append(_field(x, y, min(1.0, max(0.0, growth / most))))
        if chosen.get(layer) == name:
            frame = svg.rectangle(x + 2, y + 2, COLUMN - 4, ROW - 4, "edge", 3)
            cells.append(frame)
        dot = " •" if found.get(layer) == name else ""
        cells.append(
            svg.text(
                x + COLUMN / 2,
                y + 15,
                f"{round(1000 * growth, 2) + 0.0:+.2f}{dot}".replace("-", "−"),
                "tick",
                "middle",
            )
        )
    return svg.group(svg.text(LEFT - 10, y + 15, layer, "mono", "end"), *cells)


def _field(x: float, y: float, share: float) -> Markup:
    """A field whose colour is the stronger the larger `share` is, 0 … 1."""
    opacity = round(0.75 * share**0.5, 3)
    place = {"x": x, "y": y, "width": COLUMN, "height": ROW, "opacity": opacity}
    return svg.element("rect", {**place, "class": "bar blue"})
