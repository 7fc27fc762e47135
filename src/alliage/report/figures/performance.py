"""Scores by task, and what fewer layers and fewer bytes cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup

from alliage.report.figures.dots import WIDTH, Dot, dot_chart
from alliage.report.figures.figure import Figure, Panel, View, data
from alliage.report.figures.labels import place
from alliage.report.figures.marks import legend_of_roles, mark
from alliage.report.figures.svg import axes, element, group, image, scale, short, shorten
from alliage.report.scores import QUALITY, Scores, best_singles, sorted_roles

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
                f"{scores.metric}: {n_models} of {len(scores.models)} models on {n_tasks} of "
                f"{len(scores.tasks)} tasks are drawn, the first by role and name."
            )
        made = [*scores.of_role("merged"), *scores.of_role("pruned")]
        drawn = [index for index in made if index < n_models]
        values, lost = scores.values, scores.values - best_singles(scores)
        panels = [_panel(scores, values, range(n_models), n_tasks, scores.metric)]
        if scores.metric in QUALITY and np.isfinite(lost[drawn, :n_tasks]).any():
            label = f"{scores.metric}, difference from the task's best single model"
            panels.append(_panel(scores, lost, drawn, n_tasks, label, zero=True))
        views.append(View((scores.metric,), tuple(panels)))
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
                tip = f"{model} on {task}: {'+' if zero and value > 0 else ''}{short(value)}"
                dots.append(Dot(value, model, scores.roles[model], tip))
        rows.append((task, dots))
    title = f"{label}: {len(models)} models on {n_tasks} tasks"
    return Panel(dot_chart(rows, label, title, zero=zero))


class Point(NamedTuple):
    """A model's size and its score on one task."""

    model: str
    role: str
    layers: int
    nbytes: int
    score: float


def trade_offs(scores: Scores, models: pd.DataFrame) -> Figure | None:
    """Score on each task against layers kept and against size.

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
            Point(model, scores.roles[model], *sizes[model], float(scores.values[index, column]))
            for index, model in enumerate(scores.models)
            if model in sizes and np.isfinite(scores.values[index, column])
        ]
        if not any(point.role == "pruned" for point in points):
            continue
        rows += [(task, *point) for point in points]
        of_task = f"{scores.metric} on {task}"
        panels = (
            Panel(_scatter(points, lambda point: point.layers, "layers", of_task)),
            Panel(_scatter(points, lambda point: point.nbytes / 1e6, "size, MB", of_task)),
        )
        views.append(View((task,), panels))
    if not views:
        return None
    more = len(views) - TASK_LIMIT
    return Figure(
        id="trade-offs",
        title="What pruning costs",
        caption=(
            "Score against a model's layers and against its bytes on disk. A merged model serves "
            "all its tasks with the bytes of one."
        ),
        selectors=("Task",),
        views=tuple(views[:TASK_LIMIT]),
        data=data(("task", "model", "role", "layers", "bytes", scores.metric), rows),
        tables=("scores", "models"),
        notes=(f"{more} more tasks are not drawn.",) if more > 0 else (),
    )


def _scatter(
    points: Sequence[Point], across: Callable[[Point], float], label: str, up: str
) -> Markup:
    bottom, top = 260.0, 48.0
    x = scale([across(point) for point in points], 44, WIDTH - 10)
    y = scale([point.score for point in points], bottom, top)
    parts: list[str] = [
        legend_of_roles(sorted_roles(point.role for point in points), 44, 14),
        axes(x, y, label, up),
    ]
    for point in points[:MARK_LIMIT]:
        tip = (
            f"{point.model}: {up} {short(point.score)}, {point.layers} layers, "
            f"{short(point.nbytes / 1e6)} MB"
        )
        parts.append(mark(point.role, x(across(point)), y(point.score), tip=tip, model=point.model))
    named = [point for point in points[:MARK_LIMIT] if point.role == "pruned"][:LABEL_LIMIT]
    at = [(x(across(point)), y(point.score)) for point in named]
    texts = [shorten(point.model, 150) for point in named]
    for text, placed in zip(texts, place(at, texts, (47.0, top, WIDTH, bottom - 3)), strict=True):
        if placed:
            parts.append(element("text", text, class_="name", x=placed.x, y=placed.y))
    return image([group(parts)], WIDTH, bottom + 42, f"{up} against {label}")
