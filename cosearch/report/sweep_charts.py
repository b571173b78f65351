"""Charts of a sweep: final fronts, and hypervolume over images or seconds, method by method."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from markupsafe import Markup

from . import svg
from .charts import Frame, Scale, spread

if TYPE_CHECKING:
    from cosearch.sweep.results import Moment, Outcome, SweepResults

# Classes of the style sheet, and marks, so that colour is not alone in telling.
COLOURS = {
    "darts": "blue",
    "darts_second_order": "sky",
    "pc_darts": "purple",
    "gdas": "orange",
    "drnas": "ink",
    "random": "green",
    "nsga2": "vermilion",
}
TITLES = {
    "darts": "DARTS",
    "darts_second_order": "DARTS, second order",
    "pc_darts": "PC-DARTS",
    "gdas": "GDAS",
    "drnas": "DrNAS",
    "random": "random search",
    "nsga2": "NSGA-II",
}
MARKS = {
    "darts": "a6,6 0 1,0 12,0a6,6 0 1,0 -12,0",
    "darts_second_order": "l6,-6l6,6l-6,6z",
    "pc_darts": "l3,-6h6l3,6l-3,6h-6z",
    "gdas": "l12,-6v12z",
    "drnas": "m0,-6l12,6l-12,6z",
    "random": "m0,5h12l-6,-12z",
    "nsga2": "m0,-5h11v11h-11z",
}
WIDTH, HEIGHT, TOP = 940.0, 380.0, 58.0


def final_fronts(results: "SweepResults") -> Markup:
    """Every network trained in full: accuracy against energy; a step line along each front."""
    methods = results.plan.methods
    finals = [final for outcome in results.outcomes for final in outcome.finals]
    frame = Frame(
        Scale(*spread([final.energy_nj for final in finals]), 58, WIDTH - 20),
        Scale(*spread([100 * final.accuracy for final in finals]), HEIGHT - 50, TOP),
        "energy of the multiplications of one inference (nJ)",
        "test accuracy (%)",
    )
    return svg.drawing(
        WIDTH,
        HEIGHT,
        f"Test accuracy against energy of the final networks of {_names(methods)}",
        _legend(methods),
        frame.axes(),
        *(_front(frame, outcome) for outcome in results.outcomes),
        *(_marks(frame, outcome) for outcome in results.outcomes),
    )


def anytime(results: "SweepResults", x_label: str, x_of: "Callable[[Moment], float]") -> Markup:
    """Hypervolume over what `x_of` gives: the median over seeds, and their range as a band."""
    methods = results.plan.methods
    moments = [moment for outcome in results.outcomes for moment in outcome.curve]
    end = 1.02 * max(x_of(moment) for moment in moments)
    frame = Frame(
        Scale(0.0, end or 1.0, 58, WIDTH - 20),
        Scale(*spread([m.hypervolume for m in moments]), HEIGHT - 50, TOP),
        x_label,
        "hypervolume",
    )
    lines = [_Steps.of(results.of(method), x_of, end) for method in methods]
    return svg.drawing(
        WIDTH,
        HEIGHT,
        f"Hypervolume over {x_label} of {_names(methods)}",
        _legend(methods),
        frame.axes(),
        *(
            svg.path(_closed(frame, steps), f"band {COLOURS[method]}")
            for method, steps in zip(methods, lines, strict=True)
            if len(results.plan.seeds) > 1 and steps.xs
        ),
        *(
            svg.path(_stairs(frame, steps.xs, steps.middle), f"curve {COLOURS[method]}")
            for method, steps in zip(methods, lines, strict=True)
            if steps.xs
        ),
    )


class _Steps:
    """Hypervolumes of several seeds where any of them changes, from where all have one."""

    def __init__(self, xs: Sequence[float], columns: Sequence[Sequence[float]]) -> None:
        self.xs = xs
        self.least = [min(column) for column in columns]
        self.middle = [median(column) for column in columns]
        self.most = [max(column) for column in columns]

    @classmethod
    def of(
        cls, outcomes: "Sequence[Outcome]", x_of: "Callable[[Moment], float]", end: float
    ) -> "_Steps":
        curves = [([x_of(m) for m in o.curve], [m.hypervolume for m in o.curve]) for o in outcomes]
        start = max(xs[0] for xs, _ in curves)
        inside = sorted({x for xs, _ in curves for x in xs if x >= start} | {end})
        return cls(inside, [[ys[bisect_right(xs, x) - 1] for xs, ys in curves] for x in inside])


def _stairs(frame: Frame, xs: Sequence[float], ys: Sequence[float]) -> str:
    """Level until the next x, then up or down."""
    start = f"M{svg.number(frame.x(xs[0]))},{svg.number(frame.y(ys[0]))}"
    steps = zip(xs[1:], ys[1:], strict=True)
    return start + "".join(f"H{svg.number(frame.x(x))}V{svg.number(frame.y(y))}" for x, y in steps)


def _closed(frame: Frame, steps: _Steps) -> str:
    """The area between the least and the most."""
    back = [f"L{svg.number(frame.x(steps.xs[-1]))},{svg.number(frame.y(steps.least[-1]))}"]
    for index in range(len(steps.xs) - 1, 0, -1):
        y = svg.number(frame.y(steps.least[index - 1]))
        back.append(f"V{y}H{svg.number(frame.x(steps.xs[index - 1]))}")
    return f"{_stairs(frame, steps.xs, steps.most)}{''.join(back)}Z"


def _front(frame: Frame, outcome: "Outcome") -> Markup:
    """What the front of one seed dominates, bounded by a step line."""
    points = sorted((final.energy_nj, 100 * final.accuracy) for final in outcome.front)
    xs = [x for x, _ in points] + [frame.x.high]
    ys = [y for _, y in points] + [points[-1][1]]
    return svg.path(_stairs(frame, xs, ys), f"curve thin {COLOURS[outcome.method]}")


def _marks(frame: Frame, outcome: "Outcome") -> Markup:
    return svg.group(
        *(
            svg.group(
                svg.path(
                    _mark(outcome.method, frame.x(final.energy_nj), frame.y(100 * final.accuracy)),
                    f"mark {COLOURS[outcome.method]}",
                ),
                hint=f"{TITLES[outcome.method]}, seed {outcome.seed}: {final.accuracy:.2%}, "
                f"{final.energy_nj:.1f} nJ, {final.parameters:,} parameters",
            )
            for final in outcome.finals
        )
    )


def _mark(method: str, x: float, y: float) -> str:
    """A path whose middle is at x, y."""
    return f"M{svg.number(x - 6)},{svg.number(y)}{MARKS[method]}"


def _legend(methods: Sequence[str]) -> Markup:
    parts, x = [], 18.0
    for method in methods:
        style = COLOURS[method]
        parts += [
            svg.line(x - 10, 18, x + 10, 18, f"curve {style}"),
            svg.path(_mark(method, x, 18), f"mark {style}"),
            svg.text(x + 16, 22, TITLES[method], "tick"),
        ]
        x += 16 + 6.4 * len(TITLES[method]) + 34
    return svg.group(*parts)


def _names(methods: Sequence[str]) -> str:
    return ", ".join(TITLES[method] for method in methods)
