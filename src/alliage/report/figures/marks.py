"""Marks that several figures share: a shape and a colour for each role, lines by kind, legends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from alliage.report.figures.svg import element, group, text_width

HUES = 7  # classes hue-0 ... hue-6 of the style sheet: Okabe and Ito's palette without yellow
_DASHES = 4  # classes dash-0 ... dash-3: neighbours differ by more than colour


def mark(role: str, x: float, y: float, *, tip: str = "", model: str | None = None) -> Markup:
    """A model's mark: role by shape and by colour, so that either is enough.

    Args:
        role: base (ring), single (disc), merged (diamond), pruned (triangle); others a square.
        x: of the centre.
        y: of the centre.
        tip: what to say on hover; nothing makes the mark silent, as in a legend.
        model: its name, by which the page highlights it everywhere.
    """
    shared = {
        "class_": f"mark {role if role in _SHAPES else 'other'}",
        "data_tip": tip or None,
        "data_model": model,
    }
    if role in ("base", "single"):
        return element("circle", cx=x, cy=y, r=4.5, **shared)
    outline = _SHAPES.get(role, ((-4, -4), (4, -4), (4, 4), (-4, 4)))
    points = " ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in outline)
    return element("polygon", points=points, **shared)


_SHAPES: dict[str, Sequence[tuple[float, float]]] = {
    "base": (),
    "single": (),
    "merged": ((0, -6), (6, 0), (0, 6), (-6, 0)),
    "pruned": ((0, -5.5), (5.5, 4.5), (-5.5, 4.5)),
}


def legend_of_roles(roles: Iterable[str], x: float, y: float) -> Markup:
    """One row of marks and their roles, in the order given; nothing where there is one role."""
    roles, parts = list(roles), []
    if len(roles) < 2:
        return Markup()
    for role in roles:
        parts += [mark(role, x + 6, y - 4), element("text", role, x=x + 16, y=y)]
        x += 30 + text_width(role)
    return group(parts, class_="legend")


def line_class(index: int, kind: str = "line") -> str:
    """The style of the n-th line, or of its "dot" or "band": alike only after 28."""
    return f"{kind} hue-{index % HUES} dash-{index % _DASHES}"


def legend_of_lines(names: Sequence[str], x: float, y: float, width: float) -> tuple[Markup, float]:
    """Line samples and their names, in rows of at most `width`; and the height of the rows."""
    parts: list[str] = []
    left, top = x, y
    for index, name in enumerate(names):
        needed = 44 + text_width(name)
        if x > left and x + needed > left + width:
            x, y = left, y + 18
        parts.append(element("line", class_=line_class(index), x1=x, x2=x + 22, y1=y - 4, y2=y - 4))
        parts.append(element("text", name, x=x + 28, y=y))
        x += needed
    return group(parts, class_="legend"), y - top + 18
