"""What a sweep has shown: fronts, hypervolumes over images and seconds, and how much sooner one
method is where another ends.

Hypervolumes are shares of the box between the ideal (no error, no energy, no parameters) and the
reference point, ``Limits``: chance, and the dearest network of one operation. They are of what the
short trainings judged; those of final networks say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cosearch.pareto import front, hypervolume
from cosearch.sweep.assessment import Assessment, Limits
from cosearch.sweep.finals import chosen, evaluations_of, read_final
from cosearch.sweep.folder import SweepFolder
from cosearch.sweep.plan import BASELINES, Plan
from cosearch.sweep.records import Evaluation

__all__ = ["Advantage", "Moment", "Outcome", "SweepResults", "sweep_results"]

REFERENCE = (1.0, 1.0, 1.0)
ROUNDING = 1e-12


@dataclass(frozen=True)
class Moment:
    """The hypervolume of error and energy after so many training images and seconds of work."""

    images: int
    seconds: float
    hypervolume: float


@dataclass(frozen=True)
class Outcome:
    """What a method has shown from one seed. volume: of error, energy and parameters."""

    method: str
    seed: int
    judged: int
    curve: tuple[Moment, ...]
    volume: float
    finals: tuple[Assessment, ...]
    final_hypervolume: float

    @property
    def hypervolume(self) -> float:
        return self.curve[-1].hypervolume

    @property
    def front(self) -> tuple[Assessment, ...]:
        """Final networks that none of the same seed dominates in error and energy."""
        kept = front([final.objectives[:2] for final in self.finals])
        return tuple(self.finals[index] for index in kept)

    def first_at(self, target: float) -> Moment | None:
        """When the hypervolume is first `target` or more."""
        return next((m for m in self.curve if m.hypervolume >= target - ROUNDING), None)


@dataclass(frozen=True)
class Advantage:
    """By how many times fewer images and seconds `method` has the hypervolume with which `baseline`
    ends; the baseline's are those at which it first had it. A seed that never has it counts as 0.
    """

    method: str
    baseline: str
    images: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def reached(self) -> int:
        """In how many seeds."""
        return sum(ratio > 0 for ratio in self.images)


@dataclass(frozen=True)
class SweepResults:
    """All that the report of a sweep shows."""

    plan: Plan
    limits: Limits
    outcomes: tuple[Outcome, ...]
    advantages: tuple[Advantage, ...]

    def of(self, method: str) -> tuple[Outcome, ...]:
        """One outcome a seed."""
        return tuple(one for one in self.outcomes if one.method == method)

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_json(),
            "reference_point": vars(self.limits),
            "outcomes": [_outcome_json(outcome) for outcome in self.outcomes],
            "advantages": [
                {
                    "method": one.method,
                    "baseline": one.baseline,
                    "times_fewer_images": list(one.images),
                    "times_fewer_seconds": list(one.seconds),
                }
                for one in self.advantages
            ],
        }


def sweep_results(sweep: SweepFolder, limits: Limits) -> SweepResults:
    """The results of a sweep whose members and final networks are done."""
    plan = sweep.plan
    outcomes = tuple(
        _outcome(sweep, method, seed, limits) for method in plan.methods for seed in plan.seeds
    )
    advantages = tuple(
        _advantage(method, baseline, outcomes)
        for method in plan.methods
        for baseline in plan.methods
        if method not in BASELINES and baseline in BASELINES
    )
    return SweepResults(plan, limits, outcomes, advantages)


def _outcome(sweep: SweepFolder, method: str, seed: int, limits: Limits) -> Outcome:
    found = evaluations_of(sweep, method, seed)
    finals = tuple(read_final(sweep, final) for final in chosen(sweep, method, seed, limits))
    return Outcome(
        method,
        seed,
        len(found),
        curve(found, limits),
        hypervolume([limits.relative(one.assessment.objectives) for one in found], REFERENCE),
        finals,
        _hypervolume(finals, limits),
    )


def curve(found: Sequence[Evaluation], limits: Limits) -> tuple[Moment, ...]:
    """A moment after each evaluation."""
    moments: list[Moment] = []
    images, seconds, kept = 0, 0.0, list[Assessment]()
    for one in found:
        images += one.assessment.images
        seconds += one.assessment.seconds
        kept.append(one.assessment)
        kept = [kept[index] for index in front([k.objectives[:2] for k in kept])]
        moments.append(Moment(images, seconds, _hypervolume(kept, limits)))
    return tuple(moments)


def _hypervolume(found: Sequence[Assessment], limits: Limits) -> float:
    return hypervolume([limits.relative(one.objectives)[:2] for one in found], REFERENCE[:2])


def _advantage(method: str, baseline: str, outcomes: Sequence[Outcome]) -> Advantage:
    images, seconds = [], []
    for theirs in outcomes:
        if theirs.method != baseline:
            continue
        ours = next(o for o in outcomes if (o.method, o.seed) == (method, theirs.seed))
        then, now = theirs.first_at(theirs.hypervolume), ours.first_at(theirs.hypervolume)
        assert then is not None
        images.append(0.0 if now is None else then.images / now.images)
        seconds.append(0.0 if now is None else then.seconds / now.seconds)
    return Advantage(method, baseline, tuple(images), tuple(seconds))


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "method": outcome.method,
        "seed": outcome.seed,
        "judged": outcome.judged,
        "hypervolume": outcome.hypervolume,
        "hypervolume_with_parameters": outcome.volume,
        "final_hypervolume": outcome.final_hypervolume,
        "curve": [vars(moment) for moment in outcome.curve],
        "finals": [final.to_json() for final in outcome.finals],
    }
