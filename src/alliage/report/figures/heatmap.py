"""Heat maps of distances, in the order of a dendrogram that is drawn above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from markupsafe import Markup
from scipy.cluster import hierarchy

from alliage.geometry.mapping.clustering import leaf_order
from alliage.report.distances import Matrix, dendrogram, representatives
from alliage.report.figures.figure import Figure, Panel, View, data
from alliage.report.figures.svg import WIDTH, element, group, image, path, shorten, text_width
from alliage.report.words import is_distance, metric_label, metric_name, number

_VALUE_SIZE = 10.0  # px
MODEL_LIMIT = 48  # models on a side: more would be neither readable nor small
_TREE, _BAR, _BAR_WIDTH = 54.0, 32.0, 220.0


def heat_maps(found: Sequence[Matrix], left_out: int) -> Figure:
    """One heat map for each matrix.

    Args:
        found: the matrices to draw.
        left_out: how many more there are.
    """
    views, notes = [], set()
    for matrix in found:
        shown = representatives(matrix, MODEL_LIMIT)
        if len(shown.names) < len(matrix.names):
            notes.add(
                f"{len(shown.names)} of {len(matrix.names)} models are drawn: the medoids of as "
                "many groups of near models."
            )
        if not matrix.complete:
            notes.add("Pairs that were not measured stay empty; models are then ordered by name.")
        if not is_distance(matrix.metric):
            notes.add(f"By {metric_name(matrix.metric)}, no distance, models are ordered by name.")
        title = (
            f"Heat map of {metric_name(matrix.metric)} between {len(shown.names)} models, "
            f"{matrix.modules}"
        )
        tree = None
        if (
            shown.complete
            and len(shown.names) > 1
            and is_distance(shown.metric)
            and not shown.negative
        ):
            tree = dendrogram(shown)
            shown = shown.select(leaf_order(tree))
        panel = draw_cells(shown, title, tree=tree)
        views.append(View((matrix.models, metric_name(matrix.metric), matrix.modules), (panel,)))
    if left_out:
        notes.add(f"{left_out} more combinations of metric and kind of module are not drawn.")
    rows = [
        (matrix.models, matrix.metric, matrix.modules, first, second, value)
        for matrix in found
        for value, first, second in matrix.pairs()
    ]
    return Figure(
        id="heat-map",
        title="Distances between all pairs",
        caption=(
            "Means over what was compared. Models are ordered by average linkage, whose tree is "
            "drawn above: the lower two branches join, the nearer their models are."
        ),
        selectors=("Models", "Metric", "Modules"),
        views=tuple(views),
        data=data(("models", "metric", "modules", "first", "second", "value"), rows),
        tables=("distances",),
        notes=tuple(sorted(notes)),
    )


def draw_cells(
    matrix: Matrix, title: str, link: str = " – ", *, tree: np.ndarray | None = None
) -> Panel:
    """A matrix as it stands, its names at both sides.

    Args:
        matrix: of one model or more.
        title: for screen readers.
        link: between a row's name and a column's.
        tree: to draw above, of the matrix's order.
    """
    n = len(matrix.names)
    names = [shorten(name, 150) for name in matrix.names]
    longest = max(map(text_width, names))
    room = longest + 10
    cell = min(44.0, max(13.0, (WIDTH - room - 4) / n))
    left, top = room, _TREE + 4 if tree is not None else 6.0
    side = cell * n
    # Leaning labels need more room between columns than upright ones, but less below.
    lean = 45 if cell >= 18 else 90
    bottom = top + side + longest * math.sin(math.radians(lean)) + 38
    width = max(WIDTH, left + side + 4)
    parts = [_cells(matrix, left, top, cell, link)]
    if tree is not None:
        parts.append(_tree(tree, left, top - 4, cell))
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        parts.append(element("text", name, x=left - 6, y=top + middle + 4, text_anchor="end"))
        turn = f"translate({left + middle + 3:.1f} {top + side + 12:.1f}) rotate(-{lean})"
        parts.append(element("text", name, text_anchor="end", transform=turn))
    parts.append(_colour_bar(matrix, left, bottom))
    return Panel(image(parts, width, bottom + _BAR, title), wide=width > WIDTH)


def _cells(matrix: Matrix, left: float, top: float, cell: float, link: str) -> Markup:
    low, high = _range(matrix)
    parts: list[str] = []
    names = [shorten(name, 300) for name in matrix.names]
    texts = _values(matrix, cell)
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            value = float(matrix.values[i, j])
            x, y = left + j * cell, top + i * cell
            missing = not np.isfinite(value)
            colour, ink = ("none", "") if missing else _colour(value, low, high)
            parts.append(
                element(
                    "rect", class_="cell missing" if missing else "cell", x=x, y=y, width=cell,
                    height=cell, fill=colour, data_tip=f"{first}{link}{second}: {number(value)}",
                )
            )  # fmt: skip
            if not missing and texts:
                parts.append(
                    element("text", texts[i][j], class_=f"value {ink}", x=x + cell / 2,
                            y=y + cell / 2 + 4, text_anchor="middle")
                )  # fmt: skip
    return group(parts)


def _values(matrix: Matrix, cell: float) -> list[list[str]]:
    """What stands in the cells: as many figures, three at most, as all of them have room for."""
    for figures in (3, 2):
        texts = [
            [number(value, figures) if value else "0" for value in row]
            for row in matrix.values.tolist()
        ]
        if max(text_width(text, _VALUE_SIZE) for row in texts for text in row) < cell - 2:
            return texts
    return []


def _tree(tree: np.ndarray, left: float, base: float, cell: float) -> Markup:
    drawn = hierarchy.dendrogram(tree, no_plot=True)
    highest = max(float(tree[-1, 2]), 1e-300)
    lines = [
        # scipy puts the leaf k at 10 k + 5
        element("path", class_="tree", d=path(
            (left + x / 10 * cell, base - y / highest * (_TREE - 8))
            for x, y in zip(xs, ys, strict=True)
        ))
        for xs, ys in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]  # fmt: skip
    return group(lines)


def _colour_bar(matrix: Matrix, left: float, top: float) -> Markup:
    low, high = _range(matrix)
    width, steps = _BAR_WIDTH, 44
    parts: list[str] = [
        element("rect", x=left + width * step / steps, y=top, width=width / steps + 0.5, height=9.0,
                fill=_colour(step / (steps - 1), 0.0, 1.0)[0])
        for step in range(steps)
    ]  # fmt: skip
    parts += [
        element("text", number(low), class_="tick", x=left, y=top + 24),
        element("text", number(high), class_="tick", x=left + width, y=top + 24, text_anchor="end"),
        element("text", metric_label(matrix.metric), class_="label", x=left, y=top - 6),
    ]  # fmt: skip
    return group(parts)


def _range(matrix: Matrix) -> tuple[float, float]:
    # Off the diagonal: its zeros would take the contrast from all other cells.
    apart = matrix.values[~np.eye(len(matrix.names), dtype=bool)]
    apart = apart[np.isfinite(apart)]
    return (float(apart.min()), float(apart.max())) if apart.size else (0.0, 1.0)


def _colour(value: float, low: float, high: float) -> tuple[str, str]:
    """Cividis, dark for near and light for far; and the class of an ink that shows on it."""
    share = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0
    colours = _cividis()
    colour = colours[min(int(share * len(colours)), len(colours) - 1)]
    return colour, "on-dark" if share < 0.55 else "on-light"


@cache
def _cividis() -> list[str]:
    """Cividis (doi:10.1371/journal.pone.0199239), alike to all colour vision, in 256 steps."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["cividis"](np.arange(256))]
