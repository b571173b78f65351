"""Fronts and hypervolumes against counting: every pair of points, every unit cell of a grid."""

import itertools
import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosearch.pareto import best_subset, dominates, front, hypervolume

SIDE = 5


def points(dimensions: int) -> st.SearchStrategy[list[tuple[int, ...]]]:
    """Whole coordinates, some of them beyond the reference point."""
    coordinate = st.integers(0, SIDE + 1)
    return st.lists(st.tuples(*[coordinate] * dimensions), max_size=12)


def cells_dominated(found: list[tuple[int, ...]], dimensions: int) -> int:
    """Unit cells below the reference point (SIDE, SIDE, …) that some point is below."""
    cells = itertools.product(range(SIDE), repeat=dimensions)
    return sum(
        any(all(x <= c for x, c in zip(p, cell, strict=True)) for p in found) for cell in cells
    )


def nondominated(found: list[tuple[int, ...]]) -> list[int]:
    """Every point against every other; of equal ones the first."""
    return [
        i
        for i, p in enumerate(found)
        if not any(dominates(q, p) for q in found) and p not in found[:i]
    ]


@pytest.mark.parametrize("dimensions", [2, 3])
@given(data=st.data())
def test_hypervolume_is_the_number_of_dominated_cells(dimensions: int, data: st.DataObject) -> None:
    found = data.draw(points(dimensions))
    reference = (float(SIDE),) * dimensions
    assert hypervolume(found, reference) == cells_dominated(found, dimensions)


@pytest.mark.parametrize("dimensions", [2, 3])
@given(data=st.data())
def test_front_is_what_no_point_dominates(dimensions: int, data: st.DataObject) -> None:
    found = data.draw(points(dimensions))
    assert front(found) == nondominated(found)
    kept = [found[index] for index in front(found)]
    reference = (float(SIDE),) * dimensions
    assert hypervolume(kept, reference) == hypervolume(found, reference)


@given(found=points(2), count=st.integers(1, 4))
def test_best_subset_has_most_of_the_best_hypervolume(
    found: list[tuple[int, ...]], count: int
) -> None:
    reference = (float(SIDE), float(SIDE))

    def volume(indices: Iterable[int]) -> float:
        return hypervolume([found[index] for index in indices], reference)

    chosen, kept = best_subset(found, reference, count), front(found)
    assert len(chosen) == min(count, len(found)) and chosen == sorted(set(chosen))
    subsets = itertools.combinations(kept, min(count, len(kept)))
    best = max(volume(subset) for subset in subsets)
    assert volume(chosen) >= (1 - 1 / math.e) * best
    if count == 1 or count >= len(kept):
        assert volume(chosen) == best


@given(found=points(2), count=st.integers(1, 12))
def test_best_subset_takes_front_by_front(found: list[tuple[int, ...]], count: int) -> None:
    chosen = set(best_subset(found, (float(SIDE), float(SIDE)), count))
    left = list(range(len(found)))
    while left:
        layer = {left[index] for index in nondominated([found[i] for i in left])}
        left = [index for index in left if index not in layer]
        # Of a later front only where this one is taken whole.
        assert layer <= chosen or not chosen & set(left)


def test_a_point_does_not_dominate_itself() -> None:
    assert not dominates((1, 2), (1, 2))
    assert dominates((1, 2), (1, 3))
    assert not dominates((0, 3), (1, 2))
