"""Labels beside points that cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from alliage.report.figures.svg import FONT_SIZE, text_width

# Offsets of a label's nearest edge from its point, nearest and most readable first.
_RINGS = (7.0, 14.0, 24.0, 36.0, 50.0, 66.0, 84.0)
_NEAR = 7.0  # farther labels get a line to their point
# Of a label's centre from its point: (1, 0) is right of it, (0.5, −1) above and a little right.
_DIRECTIONS = (
    (1.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, -1.0),
    (-1.0, 1.0), (1.0, -0.5), (1.0, 0.5), (-1.0, -0.5), (-1.0, 0.5), (0.5, -1.0), (0.5, 1.0),
    (-0.5, -1.0), (-0.5, 1.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Label:
    """A placed label.

    Attributes:
        x: of its text's anchor.
        y: of its text's baseline.
        anchor: the end nearest to the point: "start", "end", or "middle" of the text.
        leader: where a line from the point meets it, or None where it needs none.
    """

    x: float
    y: float
    anchor: str
    leader: tuple[float, float] | None


Box = tuple[float, float, float, float]  # left, top, right, bottom


def place(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    frame: Box,
    *,
    radius: float = 5.0,
) -> list[Label | None]:
    """Place labels one after the other, the most crowded points first.

    Lines that lead to points keep clear of labels, but for labels that would else have no room.

    Args:
        points: positions of all marks in the picture.
        texts: one for each point, or for as many of the first as have a label.
        frame: labels stay inside.
        radius: of the marks, which labels keep clear of.

    Returns:
        a label for each text, or None where there is no room.
    """
    marks = [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    placed: list[Box] = []
    crossed: list[Box] = []  # along the leaders
    labels: list[Label | None] = [None] * len(texts)
    crowded_first = sorted(range(len(texts)), key=lambda index: -_crowd(points, index))
    for may_cross, index in product((False, True), crowded_first):
        if labels[index]:
            continue
        for gap, (dx, dy) in product(_RINGS, _DIRECTIONS):
            box = _box(points[index], texts[index], gap, dx, dy)
            if not _inside(box, frame):
                continue
            end = _nearest(box, points[index])
            steps = _along(points[index], end) if gap > _NEAR else []
            clear = _free([box], [*placed, *marks] if may_cross else [*placed, *marks, *crossed])
            if clear and (may_cross or _free(steps, placed)):
                placed.append(box)
                crossed += steps
                leader = end if gap > _NEAR else None
                x, anchor = _anchor(box, dx)
                labels[index] = Label(x, box[3] - 0.25 * FONT_SIZE, anchor, leader)
                break
    return labels


def _box(point: tuple[float, float], text: str, gap: float, dx: float, dy: float) -> Box:
    width, height = text_width(text), FONT_SIZE * 1.15
    x, y = point
    left = x + dx * gap - width * (1 - dx) / 2
    top = y + dy * gap - height * (1 - dy) / 2
    return left, top, left + width, top + height


def _anchor(box: Box, dx: float) -> tuple[float, str]:
    # The estimated width is seldom too small: an error opens no gap at the anchor's end.
    if dx == 0:
        return (box[0] + box[2]) / 2, "middle"
    return (box[0], "start") if dx > 0 else (box[2], "end")


def _nearest(box: Box, point: tuple[float, float]) -> tuple[float, float]:
    left, top, right, bottom = box
    return min(max(point[0], left), right), min(max(point[1], top), bottom)


def _crowd(points: Sequence[tuple[float, float]], index: int) -> int:
    x, y = points[index]
    return sum(abs(x - u) < 60 and abs(y - v) < 24 for u, v in points)


def _along(start: tuple[float, float], end: tuple[float, float], count: int = 12) -> list[Box]:
    """Boxes of no size on the way from one point to another."""
    shares = [step / count for step in range(1, count)]
    on_the_way = [
        (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
        for share in shares
    ]
    return [(x, y, x, y) for x, y in on_the_way]


def _free(boxes: Sequence[Box], taken: Sequence[Box]) -> bool:
    return not any(_overlap(box, other) for box in boxes for other in taken)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
