"""Charts as SVG: curves over epochs, accuracy against energy, and energy by layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from . import svg
from .labels import LINE, Box, Place, around, placed
from .results import LayerResult, NetworkResult

TITLES = {"approximate": "approximate", "exact": "exact int8", "fp32": "fp32"}
COLOURS = {"approximate": "blue", "exact": "vermilion", "fp32": "green"}
HIGHEST = 100.15  # per cent: room for a mark at 100, and no tick above it


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class Series:
    """A curve; ``colour`` is a class of the style sheet."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Frame:
    """The plotting area within a drawing, with its two scales."""

    x: Scale
    y: Scale
    x_label: str
    y_label: str
    whole_x: bool = False

    def axes(self) -> Markup:
        """Grid, ticks and labels."""
        x_values = ticks(self.x.low, self.x.high, whole=self.whole_x)
        y_values = ticks(self.y.low, self.y.high)
        left, right, bottom = self.x.start, self.x.end, self.y.start
        grid = [svg.line(left, self.y(v), right, self.y(v), "grid") for v in y_values]
        x_ticks = [
            svg.text(self.x(v), bottom + 17, tick_text(v, x_values), "tick", "middle")
            for v in x_values
        ]
        y_ticks = [
            svg.text(left - 7, self.y(v) + 3.5, tick_text(v, y_values), "tick", "end")
            for v in y_values
        ]
        return svg.group(
            *grid,
            svg.line(left, bottom, right, bottom, "axis"),
            *x_ticks,
            *y_ticks,
            svg.text((left + right) / 2, bottom + 36, self.x_label, "label", "middle"),
            svg.text(left - 40, self.y.end - 12, self.y_label, "label"),
        )


def ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """About ``count`` round numbers within [low, high], all of them ``whole`` where asked."""
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(f * magnitude for f in (1, 2, 2.5, 5, 10) if f * magnitude >= rough * 0.999)
    step = max(1, math.ceil(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_text(value: float, values: Sequence[float]) -> str:
    """``value`` with as many decimals as the finest of its axis needs."""
    decimals = max(_decimals(v) for v in values)
    return f"{value:.{decimals}f}"


def curves(
    title: str, y_label: str, series: Sequence[Series], *, y_floor: float | None = None
) -> Markup:
    """Curves over epochs; the vertical axis begins at ``y_floor`` where one is given."""
    width, height = 324.0, 250.0
    xs = [x for one in series for x in one.xs]
    low, high = spread([y for one in series for y in one.ys], y_floor)
    frame = Frame(
        Scale(min(xs), max(max(xs), min(xs) + 1), 52, width - 12),
        Scale(low, high, height - 48, 64),
        "epoch",
        y_label,
        whole_x=True,
    )
    return svg.drawing(
        width,
        height,
        f"{title}: {', '.join(one.label for one in series)} over epochs",
        svg.text(12, 18, title, "heading"),
        _legend(series, 12, 36),
        frame.axes(),
        *(_curve(frame, one) for one in series),
    )


def accuracy_against_energy(networks: Sequence[NetworkResult], basis: str) -> Markup:
    """Networks as points; one without an energy is a line at its accuracy."""
    width, height = 620.0, 330.0
    points = [network for network in networks if network.energy_nj is not None]
    low, high = _accuracy_range([network.accuracy * 100 for network in networks])
    most = max((network.energy_nj or 0.0 for network in points), default=0.0)
    frame = Frame(
        Scale(0, most * 1.4 or 1.0, 58, width - 20),
        Scale(low, high, height - 50, 34),
        "energy of the multiplications of one inference (nJ)",
        "test accuracy (%)",
    )
    levels = [network for network in networks if network.energy_nj is None]
    shown = [*levels, *points]
    within = Box(frame.x.start, 0, width, frame.y.start)
    marks = [_position(frame, network) for network in points]
    lines = [frame.y(network.accuracy * 100) for network in levels]
    places = placed([_places(frame, network) for network in shown], marks, within, lines)
    return svg.drawing(
        width,
        height,
        f"Accuracy against energy of the networks; {basis}",
        frame.axes(),
        *(_level(frame, network) for network in levels),
        *(_mark(frame, network) for network in points),
        *(_label(place) for place in places),
    )


def energy_by_layer(layers: Sequence[LayerResult]) -> Markup:
    """Two bars a layer: with the exact multiplier and with the one found."""
    row, top, left, width = 36.0, 58.0, 250.0, 940.0
    bottom = top + row * len(layers)
    most = max([layer.exact_energy_nj for layer in layers] + [la.energy_nj for la in layers])
    x = Scale(0, most or 1.0, left, width - 230)
    values = ticks(0, most or 1.0)
    grid = [svg.line(x(v), top - 8, x(v), bottom, "grid") for v in values]
    labels = [svg.text(x(v), bottom + 16, tick_text(v, values), "tick", "middle") for v in values]
    return svg.drawing(
        width,
        bottom + 42,
        "Energy of each layer with the exact multiplier and with the one found",
        _key(left, 16, "exact bar", "with the exact multiplier"),
        _key(left + 200, 16, "blue bar", "with the multiplier found"),
        *grid,
        *labels,
        svg.text(
            (x.start + x.end) / 2, bottom + 34, "energy of one inference (nJ)", "label", "middle"
        ),
        *(_layer_bars(layer, top + row * i, left, x) for i, layer in enumerate(layers)),
    )


def spread(values: Sequence[float], floor: float | None = None) -> tuple[float, float]:
    """The range of ``values`` with a little air; never empty."""
    low, high = min(values), max(values)
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (low - air if floor is None else min(floor, low)), high + air


def shape_path(role: str, x: float, y: float) -> str:
    """A mark for ``role``: circle, square or triangle, so that colour is not alone in telling."""
    if role == "approximate":
        return f"M{svg.number(x - 7)},{svg.number(y)}a7,7 0 1,0 14,0a7,7 0 1,0 -14,0"
    if role == "exact":
        return f"M{svg.number(x - 6)},{svg.number(y - 6)}h12v12h-12z"
    return f"M{svg.number(x)},{svg.number(y - 8)}l8,14h-16z"


def _decimals(value: float) -> int:
    shown = f"{value:.10f}".rstrip("0")
    return len(shown.partition(".")[2])


def _curve(frame: Frame, series: Series) -> Markup:
    points = " L".join(
        f"{svg.number(frame.x(x))},{svg.number(frame.y(y))}"
        for x, y in zip(series.xs, series.ys, strict=True)
    )
    style = f"curve {series.colour}" + (" dashed" if series.dashed else "")
    if len(series.xs) > 1:
        return svg.path(f"M{points}", style)
    mark = {"cx": frame.x(series.xs[0]), "cy": frame.y(series.ys[0]), "r": 3.0}
    return svg.element("circle", {**mark, "class": f"mark {series.colour}"})


def _legend(series: Sequence[Series], x: float, y: float) -> Markup:
    parts = []
    for one in series:
        style = f"curve {one.colour}" + (" dashed" if one.dashed else "")
        parts += [svg.line(x, y - 4, x + 18, y - 4, style), svg.text(x + 23, y, one.label, "tick")]
        x += 23 + 6.4 * len(one.label) + 16
    return svg.group(*parts)


def _accuracy_range(percentages: Sequence[float]) -> tuple[float, float]:
    """At least two points of accuracy, whole ones, with air for labels under the lowest mark."""
    low, high = min(percentages), max(percentages)
    span = max(high - low, 1.0)
    return max(0.0, math.floor(low - span * 0.6)), min(HIGHEST, math.ceil(high + span * 0.4))


def _position(frame: Frame, network: NetworkResult) -> tuple[float, float]:
    """Of the mark of a network with an energy."""
    assert network.energy_nj is not None
    return frame.x(network.energy_nj), frame.y(network.accuracy * 100)


def _level(frame: Frame, network: NetworkResult) -> Markup:
    y = frame.y(network.accuracy * 100)
    return svg.line(frame.x.start, y, frame.x.end, y, f"curve {COLOURS[network.role]} dashed")


def _mark(frame: Frame, network: NetworkResult) -> Markup:
    path = shape_path(network.role, *_position(frame, network))
    return svg.path(path, f"mark {COLOURS[network.role]}")


def _places(frame: Frame, network: NetworkResult) -> list[Place]:
    """Where a network's label may stand: around its mark, or at either end of its line."""
    title, accuracy = TITLES[network.role], f"{network.accuracy * 100:.2f} %"
    if network.energy_nj is not None:
        lines = (title, f"{accuracy}, {energy_text(network.energy_nj)}")
        first = "right" if network.role == "exact" else "below"
        return around(*_position(frame, network), lines, first)
    y, words = frame.y(network.accuracy * 100), (f"{title}: {accuracy} (no 8-bit multipliers)",)
    ends = ((frame.x.start + 8, "start"), (frame.x.end - 8, "end"))
    return [Place(x, y + shift, anchor, words) for x, anchor in ends for shift in (-7, 16)]


def _label(place: Place) -> Markup:
    """The first of several lines is a heading."""
    several = len(place.lines) > 1
    return svg.group(
        *(
            svg.text(
                place.x,
                place.y + LINE * number,
                line,
                "note strong halo" if several and number == 0 else "note halo",
                place.anchor,
            )
            for number, line in enumerate(place.lines)
        )
    )


def energy_text(energy_nj: float) -> str:
    """An energy in nJ with four significant digits."""
    if energy_nj == 0:
        return "0 nJ"
    decimals = max(0, 3 - math.floor(math.log10(abs(energy_nj))))
    return f"{energy_nj:,.{decimals}f} nJ"


def _key(x: float, y: float, style: str, words: str) -> Markup:
    return svg.group(svg.rectangle(x, y, 14, 10, style, 2), svg.text(x + 20, y + 9, words, "tick"))


def _layer_bars(layer: LayerResult, y: float, left: float, x: Scale) -> Markup:
    change = _change(layer)
    hint = f"{layer.operation}, {layer.macs:,} multiplications, LUT {layer.sha256[:12]}"
    return svg.group(
        svg.text(left - 10, y + 9, layer.layer, "mono", "end"),
        svg.text(left - 10, y + 23, layer.multiplier, "mono faint", "end"),
        svg.rectangle(left, y, x(layer.exact_energy_nj) - left, 11, "exact bar", 2),
        svg.rectangle(left, y + 13, x(layer.energy_nj) - left, 11, "blue bar", 2),
        svg.text(x.end + 12, y + 16, f"{energy_text(layer.energy_nj)}  ({change})", "tick"),
        hint=hint,
    )


def _change(layer: LayerResult) -> str:
    if layer.exact_energy_nj == layer.energy_nj:
        return "±0 %"
    if layer.exact_energy_nj == 0:
        return "none with the exact one"
    change = layer.energy_nj / layer.exact_energy_nj - 1
    return f"{change:+.1%}".replace("-", "−").replace("%", " %")
