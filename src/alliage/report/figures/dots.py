"""Dot charts: a row for each name, a mark for each value (Cleveland and McGill 1984)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from alliage.report.figures.marks import legend_of_roles, mark
from alliage.report.figures.svg import (
    WIDTH,
    centred,
    element,
    group,
    image,
    scale,
    shorten,
    text_width,
    ticks_below,
)  # fmt: skip
from alliage.report.scores import sorted_roles

_ROW, _NAME_WIDTH = 30.0, 172.0


@dataclass(frozen=True, slots=True)
class Dot:
    """A mark in a row: whose value it is, of what role, and what to say of it."""

    value: float
    model: str
    role: str
    tip: str


def dot_chart(
    rows: Sequence[tuple[str, Sequence[Dot]]], label: str, title: str, *, zero: bool = False
) -> Markup:
    """A dot chart.

    Args:
        rows: names and their marks, from top to bottom.
        label: of the horizontal axis.
        title: for screen readers.
        zero: whether the axis must hold 0, which then has a line.
    """
    names = [shorten(name, _NAME_WIDTH) for name, _ in rows]
    left = max(map(text_width, names)) + 12
    top, bottom = 30.0, 30.0 + _ROW * len(rows)
    values = [dot.value for _, dots in rows for dot in dots]
    x = scale([*values, 0.0] if zero else values, left + 6, WIDTH - 10)
    roles = sorted_roles(dot.role for _, dots in rows for dot in dots)
    parts: list[str] = [legend_of_roles(roles, 2, 14)]
    parts += [
        element("line", class_="axis" if zero and value == 0 else "grid", x1=x(value),
                x2=x(value), y1=top, y2=bottom)
        for value in x.ticks
    ]  # fmt: skip
    parts.append(ticks_below(x, bottom))
    for index, (name, (_, dots)) in enumerate(zip(names, rows, strict=True)):
        y = top + (index + 0.5) * _ROW
        parts.append(element("text", name, x=left - 6, y=y + 4, text_anchor="end"))
        parts.append(element("line", class_="row", x1=left, x2=WIDTH, y1=y, y2=y))
        lanes = sorted_roles(dot.role for dot in dots)
        parts += [
            mark(dot.role, x(dot.value), y + _lane(dot.role, lanes), tip=dot.tip, model=dot.model)
            for dot in dots
        ]
    parts.append(centred(label, (left + WIDTH) / 2, bottom + 34, class_="label"))
    return image([group(parts)], WIDTH, bottom + 42, title)


def _lane(role: str, lanes: Sequence[str]) -> float:
    """Roles lie a little apart, so that equal values do not hide each other."""
    return (lanes.index(role) - (len(lanes) - 1) / 2) * 6.0
