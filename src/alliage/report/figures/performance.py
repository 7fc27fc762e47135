"""Scores by task, and what fewer layers and fewer bytes cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup

from alliage.report.figures.dots import Dot, dot_chart
from alliage.report.figures.figure import Figure, Panel, View, data
from alliage.report.figures.labels import place
from alliage.report.figures.marks import legend_of_roles, mark
from alliage.report.figures.svg import (
    WIDTH,
    axes,
    element,
    group,
    image,
    left_margin,
    path,
    scale,
    shorten,
)  # fmt: skip
from alliage.report.scores import QUALITY, Scores, best_singles, sorted_roles
from alliage.report.words import count, metric_name, number, score, signed

if TYPE_CHECKING:
    import pandas as pd

TASK_LIMIT = 40
MARK_LIMIT = 2_000
LABEL_LIMIT = 20


def scores_by_task(found: Sequence[Scores]) -> Figure:
    """Scores by task for each metric; beside them, for quality, what is lost to single models.

    Args:
        found: at least one metric.
    """
    views, notes, rows = [], [], []
    for scores in found:
        n_tasks = min(len(scores.tasks), TASK_LIMIT)
        n_models = min(len(scores.models), MARK_LIMIT // n_tasks)
        if n_tasks < len(scores.tasks) or n_models < len(scores.models):
            notes.append(
                f"{metric_name(scores.metric)}: {n_models} of {len(scores.models)} models on "
                f"{n_tasks} of {len(scores.tasks)} tasks are drawn, the first by role and name."
            )
        made = [*scores.of_role("merged"), *scores.of_role("pruned")]
        drawn = [index for index in made if index < n_models]
        values, lost = scores.values, scores.values - best_singles(scores)
        name = metric_name(scores.metric)
        panels = [_panel(scores, values, range(n_models), n_tasks, name)]
        if scores.metric in QUALITY and np.isfinite(lost[drawn, :n_tasks]).any():
            label = "difference from the task's best single model"
            panels.append(_panel(scores, lost, drawn, n_tasks, label, zero=True))
        views.append(View((name,), tuple(panels)))
        rows += [
            (scores.models[i], scores.roles[scores.models[i]], scores.tasks[j], scores.metric,
             float(values[i, j]), float(lost[i, j]))
            for i, j in np.argwhere(np.isfinite(values)).tolist()
        ]  # fmt: skip
    return Figure(
        id="scores-by-task",
        title="Scores by task",
        caption=(
            "Each mark is one model; point at it to find the model in every figure and table. "
            "Merged and pruned models are held against the best single model on each task."
        ),
        selectors=("Metric",),
        views=tuple(views),
        data=data(
            ("model", "role", "task", "metric", "value", "difference_from_best_single"), rows
        ),
        tables=("scores", "models"),
        notes=tuple(notes),
    )


def _panel(
    scores: Scores,
    values: np.ndarray,
    models: Sequence[int],
    n_tasks: int,
    label: str,
    *,
    zero: bool = False,
) -> Panel:
    rows = []
    for column, task in enumerate(scores.tasks[:n_tasks]):
        dots = []
        for index in models:
            value, model = float(values[index, column]), scores.models[index]
            if np.isfinite(value):
                said = signed(value) if zero else score(value, scores.metric)
                tip = f"{model} on {task}: {said}"
                dots.append(Dot(value, model, scores.roles[model], tip))
        rows.append((task, dots))
    title = f"{label}: {count(len(models), 'model')} on {count(n_tasks, 'task')}"
    if zero:
        title = f"{metric_name(scores.metric)}, {title}"
    return Panel(dot_chart(rows, label, title, zero=zero))


class Point(NamedTuple):
    """A model's size and its score on one task."""

    model: str
    role: str
    layers: int
    nbytes: int
    score: float


def trade_offs(scores: Scores, models: pd.DataFrame) -> Figure | None:
    """Scores of single and pruned models on each task against layers kept and against size.

    Args:
        scores: of the main metric.
        models: the models table, each model once.

    Returns:
        the figure, or None where no pruned model was both scored and described.
    """
    sizes = {
        row["model"]: (int(row["layers"]), int(row["bytes"])) for row in models.to_dict("records")
    }
    views, rows = [], []
    for column, task in enumerate(scores.tasks):
        points = [
            Point(scores.models[index], role, *sizes[scores.models[index]], float(value))
            for role in ("pruned", "single")
            for index in scores.of_role(role)
            if np.isfinite(value := scores.values[index, column]) and scores.models[index] in sizes
        ]
        if not any(point.role == "pruned" for point in points):
            continue
        rows += [(task, *point) for point in points]
        panels = (
            Panel(_scatter(points, lambda point: point.layers, "layers", scores.metric, task)),
            Panel(
                _scatter(points, lambda point: point.nbytes / 1e6, "size, MB", scores.metric, task)
            ),
        )
        views.append(View((task,), panels))
    if not views:
        return None
    more = len(views) - TASK_LIMIT
    return Figure(
        id="trade-offs",
        title="What pruning costs",
        caption=(
            "Score against a model's layers and against its bytes on disk; an adapter's are its "
            "own, without its base's."
        ),
        selectors=("Task",),
        views=tuple(views[:TASK_LIMIT]),
        data=data(("task", "model", "role", "layers", "bytes", scores.metric), rows),
        tables=("scores", "models"),
        notes=(f"{more} more tasks are not drawn.",) if more > 0 else (),
    )


def _scatter(
    points: Sequence[Point],
    across: Callable[[Point], float],
    label: str,
    metric: str,
    task: str,
) -> Markup:
    bottom, top = 280.0, 48.0
    points, up = points[:MARK_LIMIT], f"{metric_name(metric)} on {task}"
    y = scale([point.score for point in points], bottom, top)
    x = scale([across(point) for point in points], left_margin(y), WIDTH - 10,
              whole=label == "layers")  # fmt: skip
    at = [(x(across(point)), y(point.score)) for point in points]
    texts = [shorten(point.model, 172) for point in points[:LABEL_LIMIT]]
    labels = place(at, texts, (x.start + 3, top, WIDTH, bottom - 3))
    parts: list[str] = [
        legend_of_roles(sorted_roles(point.role for point in points), x.start, 14),
        axes(x, y, label, up),
    ]
    parts += [
        element("path", class_="leader", d=path([point, placed.leader]))
        for point, placed in zip(at, labels, strict=False)
        if placed and placed.leader
    ]
    for place_of, point in zip(at, points, strict=True):
        tip = (
            f"{point.model}: {up} {score(point.score, metric)}, {count(point.layers, 'layer')}, "
            f"{number(point.nbytes / 1e6)} MB"
        )
        parts.append(mark(point.role, *place_of, tip=tip, model=point.model))
    parts += [
        element("text", text, class_="name", x=placed.x, y=placed.y, text_anchor=placed.anchor)
        for text, placed in zip(texts, labels, strict=True)
        if placed
    ]
    return image([group(parts)], WIDTH, bottom + 42, f"{up} against {label}")
