"""Pareto fronts and hypervolumes of points whose coordinates are all minimised.

A point dominates another where no coordinate is worse and one is better (Deb, Pratap, Agarwal,
Meyarivan, IEEE TEC 6(2), 2002, section III). The hypervolume of a set is the volume between its
points and a reference point (Zitzler and Thiele, IEEE TEC 3(4), 1999).
"""

from collections.abc import Sequence

__all__ = ["best_subset", "dominates", "front", "hypervolume"]

Point = Sequence[float]


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that none dominates, in their order; of equal points the first."""
    kept: list[int] = []
    # Who comes later in this order dominates nobody before it.
    for index in sorted(range(len(points)), key=lambda i: (tuple(points[i]), i)):
        point = points[index]
        if not any(_nowhere_worse(points[other], point) for other in kept):
            kept.append(index)
    return sorted(kept)


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Exact, for two or three coordinates; points that are not better than `reference` in each
    coordinate add nothing.
    """
    assert len(reference) in (2, 3), reference
    inside = [p for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    inside = [inside[index] for index in front(inside)]
    return _area(inside, reference) if len(reference) == 2 else _volume(inside, reference)


def best_subset(points: Sequence[Point], reference: Point, count: int) -> list[int]:
    """`count` indices (all where there are fewer): the front's, each in turn the one that adds most
    hypervolume; where the front has fewer, those of the front of the others, and so on.

    Greedy: at least 1 - 1/e of the largest hypervolume of so many points (it is submodular).
    """
    left, chosen = list(range(len(points))), list[int]()
    while left and len(chosen) < count:
        layer = [left[index] for index in front([points[i] for i in left])]
        chosen += _greedy(points, layer, reference, count - len(chosen))
        left = [index for index in left if index not in layer]
    return sorted(chosen)


def _greedy(
    points: Sequence[Point], layer: Sequence[int], reference: Point, count: int
) -> list[int]:
    left, chosen = list(layer), list[int]()
    while left and len(chosen) < count:
        volumes = [hypervolume([points[i] for i in [*chosen, one]], reference) for one in left]
        chosen.append(left.pop(volumes.index(max(volumes))))
    return chosen


def _nowhere_worse(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def _area(points: Sequence[Point], reference: Point) -> float:
    """Strips from the left: each point adds what lies below the lowest before it."""
    area, lowest = 0.0, reference[1]
    for x, y in sorted((p[0], p[1]) for p in points):
        if y < lowest:
            area += (reference[0] - x) * (lowest - y)
            lowest = y
    return area


def _volume(points: Sequence[Point], reference: Point) -> float:
    """Slabs along the last coordinate: in each the area of the points below it."""
    ordered = sorted(points, key=lambda p: p[2])
    ends = [p[2] for p in ordered[1:]] + [reference[2]]
    return sum(
        _area(ordered[: number + 1], reference) * (end - ordered[number][2])
        for number, end in enumerate(ends[: len(ordered)])
    )
