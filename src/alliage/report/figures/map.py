"""Maps: every model a point, near another where their distances are alike or small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from alliage.geometry.mapping.maps import Embedding, classical_mds, principal_components
from alliage.geometry.mapping.nonmetric import (
    is_collapsed,
    nonmetric_mds,
    rank_agreement,
    stress,
)
from alliage.geometry.mapping.task_map import COLLAPSED, kept_distances
from alliage.report.distances import Matrix, representatives
from alliage.report.figures.figure import Figure, Panel, View, data
from alliage.report.figures.labels import Label, place
from alliage.report.figures.marks import legend_of_roles, mark
from alliage.report.figures.svg import (
    WIDTH,
    Scale,
    axes,
    element,
    group,
    image,
    left_margin,
    path,
    shorten,
)  # fmt: skip
from alliage.report.scores import sorted_roles
from alliage.report.words import metric_name

MODEL_LIMIT = 400
LABEL_LIMIT = 60
NONMETRIC_LIMIT = 48  # its steps are many, and grow with the square
_NONMETRIC = "Non-metric scaling"
_LEFT, _RIGHT, _BOTTOM = 44.0, 392.0, 320.0


def maps(found: Sequence[Matrix], left_out: int, roles: Mapping[str, str]) -> Figure | None:
    """Principal components of each matrix beside classical scaling and non-metric scaling.

    Args:
        found: the matrices to draw.
        left_out: how many more there are.
        roles: model -> role.

    Returns:
        the figure, or None where no matrix has every distance of three models or more.
    """
    views, rows, notes = [], [], set()
    for matrix in found:
        shown = representatives(matrix, MODEL_LIMIT)
        if not matrix.complete or len(shown.names) < 3:
            notes.add(
                f"No map of {matrix.models} by {metric_name(matrix.metric)}, {matrix.modules}: it "
                "needs all distances of three models or more."
            )
            continue
        if len(shown.names) < len(matrix.names):
            notes.add(f"{len(shown.names)} of {len(matrix.names)} models are drawn: the medoids of "
                      "as many groups of near models.")  # fmt: skip
        known = [roles[name] for name in shown.names]
        embeddings = [
            (principal_components(shown.values), "PC", "Principal components of the matrix's rows"),
            (classical_mds(shown.values), "axis", "Classical scaling"),
        ]
        if len(shown.names) <= NONMETRIC_LIMIT:
            embeddings.append((nonmetric_mds(shown.values), "axis", _NONMETRIC))
        panels = tuple(_panel(shown, one, known, axis, method) for one, axis, method in embeddings)
        views.append(View((matrix.models, metric_name(matrix.metric), matrix.modules), panels))
        missing = np.full((len(shown.names), 6 - 2 * len(embeddings)), np.nan)
        coordinates = np.hstack([*(one.coordinates for one, *_ in embeddings), missing]).tolist()
        rows += [
            (matrix.models, matrix.metric, matrix.modules, name, *six)
            for name, six in zip(shown.names, coordinates, strict=True)
        ]
    if left_out:
        notes.add(f"{left_out} more combinations of metric and kind of module are not drawn.")
    if not views:
        return None
    return Figure(
        id="map",
        title="Maps of the models",
        caption=(
            "First: models with alike distances to all others are near. Second (Torgerson 1952): "
            "distances on the map are as near to the measured ones as two axes allow. Third "
            "(Kruskal 1964): only their order counts. Both axes of a map have one scale; signs "
            "have no meaning. Stress-1 is 0 where a map keeps the order of all distances."
        ),
        selectors=("Models", "Metric", "Modules"),
        views=tuple(views),
        data=data(
            (
                "models",
                "metric",
                "modules",
                "model",
                "pc1",
                "pc2",
                "mds1",
                "mds2",
                "nonmetric1",
                "nonmetric2",
            ),
            rows,
        ),
        tables=("distances",),
        notes=tuple(sorted(notes)),
    )


def _panel(
    matrix: Matrix, embedding: Embedding, roles: Sequence[str], axis: str, method: str
) -> Panel:
    present = sorted_roles(roles)
    top = 48.0 if len(present) > 1 else 28.0  # one role needs no legend
    x, y = _equal_scales(embedding, _LEFT, top)
    if left_margin(y) > _LEFT:
        x, y = _equal_scales(embedding, left_margin(y), top)
    shares = ["" if method == _NONMETRIC else f" ({share:.0%})" for share in embedding.explained]
    first, second = (f"{axis} {index + 1}{share}" for index, share in enumerate(shares))
    points = [(x(float(u)), y(float(v))) for u, v in embedding.coordinates]
    parts: list[str] = [
        legend_of_roles(present, x.start, 14),
        axes(x, y, first, second, grid=False),
    ]
    texts = [shorten(name, 172) for name in matrix.names]
    labels: list[Label | None] = [None] * len(texts)
    if len(texts) <= LABEL_LIMIT:
        labels = place(points, texts, (x.start + 3, top, WIDTH, _BOTTOM - 3))
    for label, point in zip(labels, points, strict=True):
        if label and label.leader:
            parts.append(element("path", class_="leader", d=path([point, label.leader])))
    for point, name, role in zip(points, matrix.names, roles, strict=True):
        parts.append(mark(role, *point, tip=name, model=name))
    parts += [
        element("text", text, class_="name", x=label.x, y=label.y, text_anchor=label.anchor)
        for label, text in zip(labels, texts, strict=True)
        if label
    ]
    hidden = labels.count(None)
    caption = method + (f"; labels without room: {hidden}. Point at a mark." if hidden else ".")
    coordinates = embedding.coordinates
    kept = stress(matrix.values, coordinates), rank_agreement(matrix.values, coordinates)
    caption += " " + kept_distances(*kept)
    if method == _NONMETRIC and is_collapsed(coordinates):
        caption += " " + COLLAPSED
    title = (
        f"{method}: map of {len(texts)} models by {metric_name(matrix.metric)}, {matrix.modules}"
    )
    return Panel(image([group(parts)], WIDTH, _BOTTOM + 42, title), caption)


def _equal_scales(embedding: Embedding, left: float, top: float) -> tuple[Scale, Scale]:
    """Scales of both axes with the same length for the same distance, all points inside."""
    low, high = embedding.coordinates.min(axis=0), embedding.coordinates.max(axis=0)
    middle, spread = (low + high) / 2, high - low
    width, height = _RIGHT - left, _BOTTOM - top
    # Points keep a tenth from the frame; models that all coincide get a frame all the same.
    unit = max(float(spread[0]) / width, float(spread[1]) / height) / 0.8 or 1.0 / width
    x = Scale(
        float(middle[0]) - unit * width / 2, float(middle[0]) + unit * width / 2, left, _RIGHT
    )
    y = Scale(
        float(middle[1]) - unit * height / 2, float(middle[1]) + unit * height / 2, _BOTTOM, top
    )
    return x, y
