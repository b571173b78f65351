"""The page ``report.html`` of a sweep, and its summary for a terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from .page import environment
from .sweep_charts import TITLES, anytime, final_fronts

if TYPE_CHECKING:
    from cosearch.sweep.results import Advantage, Outcome, SweepResults

# Of one outcome: a figure, and how it is written.
COLUMNS: tuple[tuple["Callable[[Outcome], float]", str], ...] = (
    (lambda outcome: outcome.judged, "{:,.0f}"),
    (lambda outcome: outcome.curve[-1].images, "{:,.0f}"),
    (lambda outcome: outcome.curve[-1].seconds, "{:,.1f}"),
    (lambda outcome: outcome.hypervolume, "{:.4f}"),
    (lambda outcome: outcome.volume, "{:.4f}"),
    (lambda outcome: outcome.final_hypervolume, "{:.4f}"),
    (lambda outcome: max(100 * final.accuracy for final in outcome.finals), "{:.2f} %"),
)
HEADINGS = ("judged", "images", "seconds", "HV", "HV3", "final HV", "best acc.")


@dataclass(frozen=True)
class Figure:
    """A median as text, and the range over seeds, empty where they do not differ."""

    median: str
    range: str

    @classmethod
    def of(cls, values: Sequence[float], shown: str) -> "Figure":
        least, most = shown.format(min(values)), shown.format(max(values))
        return cls(shown.format(median(values)), "" if least == most else f"{least} – {most}")

    def __str__(self) -> str:
        return f"{self.median} ({self.range})" if self.range else self.median


@dataclass(frozen=True)
class Row:
    """A method's figures, one for each of COLUMNS."""

    title: str
    values: tuple[Figure, ...]


@dataclass(frozen=True)
class AdvantageRow:
    """How much sooner a search is where a baseline ends."""

    title: str
    baseline: str
    images: Figure
    seconds: Figure
    reached: str


def sweep_page(results: "SweepResults", name: str, config_toml: str) -> str:
    """The report as HTML; the same results give the same bytes."""
    plan = results.plan
    page: str = (
        environment()
        .get_template("sweep.html.j2")
        .render(
            name=name,
            plan=plan,
            plan_rows=_plan_rows(plan.to_json()),
            titles=TITLES,
            methods=[TITLES[method] for method in plan.methods],
            weights=", ".join(f"{weight:g}" for weight in plan.weights),
            limits=results.limits,
            rows=_rows(results),
            outcomes=results.outcomes,
            advantages=[_advantage_row(one) for one in results.advantages],
            fronts=final_fronts(results),
            over_images=anytime(results, "training images seen", lambda moment: moment.images),
            over_seconds=anytime(results, "seconds of work", lambda moment: moment.seconds),
            config_toml=config_toml,
        )
    )
    return page


def sweep_summary(results: "SweepResults") -> str:
    """The table of methods, and how much sooner the searches are where the baselines end."""
    cells = [("method", *HEADINGS), *((row.title, *map(str, row.values)) for row in _rows(results))]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    lines += ["HV: hypervolume of error and energy as judged; HV3: with parameters"]
    lines += [_advantage_line(_advantage_row(one)) for one in results.advantages]
    return "\n".join(lines)


def _rows(results: "SweepResults") -> list[Row]:
    return [
        Row(
            TITLES[method],
            tuple(Figure.of([of(o) for o in results.of(method)], shown) for of, shown in COLUMNS),
        )
        for method in results.plan.methods
    ]


def _advantage_row(advantage: "Advantage") -> AdvantageRow:
    return AdvantageRow(
        TITLES[advantage.method],
        TITLES[advantage.baseline],
        Figure.of(advantage.images, "{:.2f}"),
        Figure.of(advantage.seconds, "{:.2f}"),
        f"{advantage.reached} of {len(advantage.images)}",
    )


def _advantage_line(row: AdvantageRow) -> str:
    return (
        f"{row.title} reaches the hypervolume of {row.baseline} in {row.reached} seeds; "
        f"times fewer images: {row.images}, seconds: {row.seconds} (0: not reached)"
    )


def _plan_rows(plan: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (key, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))
        for key, value in plan.items()
    ]
