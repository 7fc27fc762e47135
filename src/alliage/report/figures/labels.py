"""Labels beside points that cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alliage.report.figures.svg import FONT_SIZE, text_width

# Offsets of a label's nearest edge from its point, nearest and most readable first.
_RINGS = (7.0, 14.0, 24.0, 36.0, 50.0)
_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))


@dataclass(frozen=True, slots=True)
class Label:
    """A placed label.

    Attributes:
        x: of its text's left end.
        y: of its text's baseline.
        leader: where a line from the point meets it, or None where it needs none.
    """

    x: float
    y: float
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

    Args:
        points: positions in the picture.
        texts: one for each point.
        frame: labels stay inside.
        radius: of the marks, which labels keep clear of.

    Returns:
        a label for each point, or None where there is no room.
    """
    marks = [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    placed: list[Box] = []
    labels: list[Label | None] = [None] * len(points)
    for index in sorted(range(len(points)), key=lambda index: (-_crowd(points, index), index)):
        for gap in _RINGS:
            box = next(
                (
                    box
                    for dx, dy in _DIRECTIONS
                    if _inside(box := _box(points[index], texts[index], gap, dx, dy), frame)
                    and not any(_overlap(box, other) for other in (*placed, *marks))
                ),
                None,
            )
            if box is not None:
                placed.append(box)
                leader = _nearest(box, points[index]) if gap > _RINGS[1] else None
                labels[index] = Label(box[0], box[3] - 0.25 * FONT_SIZE, leader)
                break
    return labels


def _box(point: tuple[float, float], text: str, gap: float, dx: int, dy: int) -> Box:
    width, height = text_width(text), FONT_SIZE * 1.15
    x, y = point
    # Diagonal neighbours may sit closer: the corner, not the edge, faces the point.
    gap = gap * 0.7 if dx and dy else gap
    left = x + gap if dx > 0 else x - gap - width if dx < 0 else x - width / 2
    top = y + gap if dy > 0 else y - gap - height if dy < 0 else y - height / 2
    return left, top, left + width, top + height


def _nearest(box: Box, point: tuple[float, float]) -> tuple[float, float]:
    left, top, right, bottom = box
    return min(max(point[0], left), right), min(max(point[1], top), bottom)


def _crowd(points: Sequence[tuple[float, float]], index: int) -> int:
    x, y = points[index]
    return sum(abs(x - u) < 60 and abs(y - v) < 24 for u, v in points)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
