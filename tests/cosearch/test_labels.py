"""Labels of a chart: never over one another where there is room, and inside the drawing."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.report.charts import accuracy_against_energy
from cosearch.report.labels import Box, Place, around, placed
from cosearch.report.results import NetworkResult

WITHIN = Box(0, 0, 600, 400)
LINES = ("approximate", "98.70 %, 110.1 nJ")


@pytest.mark.parametrize("first", ["below", "right", "left", "above"])
def test_a_label_with_room_has_the_place_it_wants(first: str) -> None:
    places = around(300, 200, LINES, first)
    assert len(places) == 4
    assert placed([places], [(300, 200)], WITHIN) == [places[0]]


@given(st.floats(150, 450), st.floats(100, 300), st.floats(-14, 14), st.floats(-14, 14))
@settings(max_examples=60)
def test_two_close_marks_have_labels_apart(x: float, y: float, dx: float, dy: float) -> None:
    marks = [(x, y), (x + dx, y + dy)]
    one, two = placed([around(*mark, LINES, "below") for mark in marks], marks, WITHIN)
    assert one.box.common(two.box) == 0
    for box, (other_x, other_y) in itertools.product((one.box, two.box), marks):
        assert not (box.left < other_x < box.right and box.top < other_y < box.bottom)


def test_a_label_leaves_the_edge() -> None:
    (found,) = placed([around(590, 200, LINES, "right")], [(590, 200)], WITHIN)
    assert found.anchor == "end"


def test_a_label_leaves_a_line() -> None:
    places = around(300, 200, LINES, "right")
    (found,) = placed([places], [(300, 200)], WITHIN, [200.0])
    assert found == places[1]


def test_common_areas() -> None:
    assert Box(0, 0, 4, 4).common(Box(2, 3, 9, 9)) == 2
    assert Box(0, 0, 4, 4).common(Box(5, 0, 9, 9)) == 0
    assert Place(10, 20, "middle", ("abcd",)).box.area > 0


def test_a_network_as_accurate_as_fp32_has_a_label_of_its_own() -> None:
    networks = [
        NetworkResult("approximate", 0.9852, 20.0, 1),
        NetworkResult("exact", 0.9889, 113.2, 1),
        NetworkResult("fp32", 0.987, None, 1),
    ]
    drawing = str(accuracy_against_energy(networks, "uniform operands"))
    assert drawing == str(accuracy_against_energy(networks, "uniform operands"))
    for words in ("approximate", "exact int8", "fp32: 98.70 % (no 8-bit multipliers)"):
        assert f">{words}</text>" in drawing
