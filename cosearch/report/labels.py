"""Labels of marks in a drawing, placed so that they cover neither marks nor one another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["LINE", "Box", "Place", "around", "placed"]

LINE = 15.0  # from one line of text to the next, px
LETTER = 6.8  # width of a letter of the style sheet's notes, generously, px
RISE, FALL = 11.0, 4.0  # of letters above and below their base line, px
MARK = 9.0  # half the side of a mark's box, px

STROKE = 1.0  # half the height of a line's box, px


@dataclass(frozen=True)
class Box:
    """A rectangle in px, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def common(self, other: "Box") -> float:
        """The area that both cover."""
        return Box(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        ).area


@dataclass(frozen=True)
class Place:
    """Where lines of text may stand: base line of the first, and its anchor as SVG has it."""

    x: float
    y: float
    anchor: str
    lines: tuple[str, ...]

    @property
    def box(self) -> Box:
        width = LETTER * max(len(line) for line in self.lines)
        left = self.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor] * width
        bottom = self.y + LINE * (len(self.lines) - 1) + FALL
        return Box(left, self.y - RISE, left + width, bottom)


def around(x: float, y: float, lines: tuple[str, ...], first: str) -> list[Place]:
    """Places below, right of, left of and above a mark at x, y: `first` comes first."""
    tall = LINE * (len(lines) - 1)
    middle = y - tall / 2 + (RISE - FALL) / 2
    places = {
        "below": Place(x, y + 24, "middle", lines),
        "right": Place(x + 14, middle, "start", lines),
        "left": Place(x - 14, middle, "end", lines),
        "above": Place(x, y - 14 - tall, "middle", lines),
    }
    return [places[first], *(place for name, place in places.items() if name != first)]


def placed(
    labels: Sequence[Sequence[Place]],
    marks: Iterable[tuple[float, float]],
    within: Box,
    levels: Iterable[float] = (),
) -> list[Place]:
    """One place of each label, in their order: that which covers least of the marks, of horizontal
    lines at `levels` and of the labels before it, and lies least outside `within`; of equal ones
    the first.
    """
    taken = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in marks]
    taken += [Box(within.left, y - STROKE, within.right, y + STROKE) for y in levels]
    found: list[Place] = []
    for places in labels:
        best = min(places, key=lambda place: _fault(place.box, taken, within))
        taken.append(best.box)
        found.append(best)
    return found


def _fault(box: Box, taken: Sequence[Box], within: Box) -> float:
    return box.area - box.common(within) + sum(box.common(other) for other in taken)
