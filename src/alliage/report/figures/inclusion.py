"""Inclusion: an arrow from each model to those that hold it, beside all directed values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from alliage.geometry.mapping.containment import arrows, bends, places
from alliage.geometry.mapping.inclusion_graph import ENERGIES, InclusionGraph
from alliage.geometry.mapping.trees import HeatMap
from alliage.report.directed import Directed
from alliage.report.distances import Matrix
from alliage.report.figures.figure import Figure, Panel, View, data
from alliage.report.figures.heatmap import MODEL_LIMIT, draw_cells
from alliage.report.figures.labels import place
from alliage.report.figures.marks import mark
from alliage.report.figures.svg import WIDTH, element, group, image, path, shorten
from alliage.report.words import metric_name, number

GRAPH_LIMIT = 24  # models of a graph: more arrows than these make are no picture
_ROW, _SIDE = 74.0, 30.0
_CLEAR = 10.0  # between an arrow and a model: the mark, half of the widest line, and air


def inclusion(found: Sequence[Directed]) -> Figure:
    """A graph of each metric of energy, and a heat map of every directed metric.

    Args:
        found: at least one.
    """
    views, rows, notes = [], [], set()
    for one in found:
        graph = None
        if one.metric in ENERGIES and len(one.names) <= GRAPH_LIMIT:
            graph = InclusionGraph.of(
                one.names, one.values, one.metric, chance=one.chance, chance_sd=one.chance_sd
            )
        elif one.metric in ENERGIES:
            notes.add(f"Graphs are drawn of at most {GRAPH_LIMIT} models.")
        heat = HeatMap.of(one.names, one.values, one.metric)
        count = min(len(one.names), MODEL_LIMIT)
        if count < len(one.names):
            notes.add(f"The heat map shows the {MODEL_LIMIT} models that hold most of the others.")
        matrix = Matrix(one.metric, one.models, "all modules", heat.names, heat.values)
        title = f"Heat map of {metric_name(one.metric)} of the rows' models in the columns'"
        cells = draw_cells(matrix.select(range(count)), title, " in ")
        under = "Of the row's model, in the column's."
        cells = Panel(cells.svg, under, cells.wide)
        panels = (Panel(_draw(graph), graph.rule()), cells) if graph else (cells,)
        views.append(View((one.models, metric_name(one.metric)), panels))
        drawn = graph.drawn if graph else np.zeros(one.values.shape, dtype=bool)
        contained = graph.relation if graph else drawn
        rows += [
            (one.models, one.metric, one.names[i], one.names[j], float(one.values[i, j]),
             float(one.values[j, i]), float(one.chance[i, j]), int(contained[i, j]),
             int(drawn[i, j]))
            for i in range(len(one.names)) for j in range(len(one.names)) if i != j
        ]  # fmt: skip
    return Figure(
        id="inclusion",
        title="Who lies in whom",
        caption=(
            "Arrows point upwards, from a model to one whose directions hold more of its update "
            "than the other way round; wider arrows hold more. Means over modules. Where shares "
            "are small, little lies in anything: an arrow tells the direction, not the amount."
        ),
        selectors=("Models", "Metric"),
        views=tuple(views),
        data=data(
            ("models", "metric", "model", "into", "value", "reverse", "chance", "contained",
             "drawn"), rows,
        ),
        tables=("inclusion",),
        notes=tuple(sorted(notes)),
    )  # fmt: skip


def _draw(graph: InclusionGraph) -> Markup:
    levels = places(graph.drawn)
    rows = int(levels[:, 1].max(initial=0.0)) + 1
    height = 2 * _SIDE + _ROW * (rows - 1)
    points = [
        (_SIDE + float(x) * (WIDTH - 2 * _SIDE), height - _SIDE - float(level) * _ROW)
        for x, level in levels
    ]
    page = (0.0, 0.0, WIDTH, height)
    bows = bends(graph.drawn, np.array(points).reshape(-1, 2), _CLEAR, page)
    most = float(graph.energies[graph.drawn].max(initial=1e-300))
    parts: list[str] = []
    for i, j in arrows(graph.drawn):
        share = float(graph.energies[i, j])
        tip = f"{graph.names[i]} in {graph.names[j]}: {number(share)}"
        tip += f" (the other way round {number(float(graph.energies[j, i]))})"
        parts += _arrow(points[i], points[j], bows[i, j], 0.8 + 2.2 * share / most, tip)
    texts = [shorten(name, 172) for name in graph.names]
    labels = place(points, texts, (2.0, 2.0, WIDTH - 2, height - 2))
    for label, point in zip(labels, points, strict=True):
        if label and label.leader:
            parts.append(element("path", class_="leader", d=path([point, label.leader])))
    for index, (point, name) in enumerate(zip(points, graph.names, strict=True)):
        inside = [graph.names[i] for i in np.flatnonzero(graph.relation[:, index])]
        tip = f"{name}: holds {', '.join(inside)}" if inside else f"{name}: holds no other"
        parts.append(mark("single", *point, tip=tip, model=name))
    parts += [
        element("text", text, class_="name", x=label.x, y=label.y, text_anchor=label.anchor)
        for label, text in zip(labels, texts, strict=True)
        if label
    ]
    count = int(graph.drawn.sum())
    title = f"Graph of {len(graph.names)} models by {metric_name(graph.metric)}: {count} inclusions"
    return image([group(parts)], WIDTH, height, title)


def _arrow(
    start: tuple[float, float], end: tuple[float, float], bow: float, width: float, tip: str
) -> list[str]:
    """A bowed line that keeps clear of the marks at its ends, and its head."""
    way = (end[0] - start[0], end[1] - start[1])
    control = (
        (start[0] + end[0]) / 2 + bow * way[1],
        (start[1] + end[1]) / 2 - bow * way[0],
    )
    first, last = _towards(start, control, 8.0), _towards(end, control, 7.0)
    neck = _towards(last, control, 8.0)
    along = math.hypot(last[0] - neck[0], last[1] - neck[1]) or 1.0
    side = (-(last[1] - neck[1]) / along * 4, (last[0] - neck[0]) / along * 4)
    head = " ".join(
        f"{x:.2f},{y:.2f}"
        for x, y in (
            last, (neck[0] + side[0], neck[1] + side[1]), (neck[0] - side[0], neck[1] - side[1])
        )
    )  # fmt: skip
    line = (
        f"M{first[0]:.2f} {first[1]:.2f}Q{control[0]:.2f} {control[1]:.2f} "
        f"{neck[0]:.2f} {neck[1]:.2f}"
    )
    return [
        element("path", class_="arrow", d=line, stroke_width=width, data_tip=tip),
        element("polygon", class_="head", points=head),
    ]


def _towards(
    point: tuple[float, float], other: tuple[float, float], far: float
) -> tuple[float, float]:
    length = math.hypot(other[0] - point[0], other[1] - point[1]) or 1.0
    share = min(far / length, 1.0)
    return point[0] + share * (other[0] - point[0]), point[1] + share * (other[1] - point[1])
