"""Tables of what alliage evaluate found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alliage.cli import console

if TYPE_CHECKING:
    from alliage.evaluation import Scores
    from alliage.evaluation.scores import TaskScores

Scored = tuple[str, "TaskScores"]  # of a model, on a task


def print_scores(found: Sequence[Scores]) -> None:
    """The models, their scores on each task, and calibration and speed where measured."""
    if not found:
        return
    models = [
        (s.model, s.role, s.method or None, s.layers, f"{s.parameters:,}", console.size(s.bytes))
        for s in found
    ]
    columns = ("model", "role", "method", "layers", "parameters", "size")
    console.print_table("models", columns, models, numbers_from=3)
    scored = [(scores.model, task) for scores in found for task in scores.tasks]
    for name in dict.fromkeys(task.task for _, task in scored):
        _print_task(name, {model: task for model, task in scored if task.task == name})
    _print_calibration(scored)
    _print_speed(scored)


def print_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> None:
    """A table for each task: how each model differs from the reference."""
    for against, task in dict.fromkeys((row["against"], row["task"]) for row in comparisons):
        rows = [
            [
                row["model"], row["metric"], f"{row['value']:+.4f}",
                _bounds(row["low"], row["high"]), row["p"], row["test"],
            ]
            for row in comparisons
            if row["task"] == task
        ]  # fmt: skip
        title = f"{task}: difference to {against}, on the same examples"
        columns = ("model", "metric", "difference", "95 %", "p", "test")
        console.print_table(title, columns, rows, numbers_from=2)


def _print_task(name: str, here: Mapping[str, TaskScores]) -> None:
    metrics = list(dict.fromkeys(metric for task in here.values() for metric in task.metrics))
    rows: list[list[object]] = [
        [metric, *(_with_interval(task, metric) for task in here.values())] for metric in metrics
    ]
    rows.append(["seconds", *(f"{task.seconds:.2f}" for task in here.values())])
    if any(task.truncated for task in here.values()):
        rows.append(["cut at the longest length", *(task.truncated for task in here.values())])
    first = next(iter(here.values()))
    title = f"{name}: scores on {first.split}, {first.examples} examples, 95 % intervals"
    console.print_table(title, ("metric", *here), rows)


def _print_calibration(scored: Sequence[Scored]) -> None:
    details = [(model, task.task, one) for model, task in scored for one in task.calibration]
    if details:
        rows = [
            [model, task, one.metric, one.value, *map(_or_none, one[2:])]
            for model, task, one in details
        ]
        title = "calibration: 95 % intervals; where calibrated models lie; each class alone"
        headings: tuple[str, ...] = (
            "model", "task", "measure", "value", "low", "high", "chance from", "to",
            "classes, mean", "largest",
        )  # fmt: skip
        console.print_table(title, headings, rows, numbers_from=3)
    domains = [[model, task.task, *one] for model, task in scored for one in task.domains]
    if domains:
        title = "calibration by domain; where calibrated models lie"
        headings = (
            "model", "task", "domain", "measure", "examples", "value", "chance from", "to"
        )  # fmt: skip
        console.print_table(title, headings, domains, numbers_from=4)


def _print_speed(scored: Sequence[Scored]) -> None:
    speeds = [(model, task.task, one) for model, task in scored for one in task.speed]
    if speeds:
        rows = [
            [model, task, one.batch, one.median * 1e3, one.low * 1e3, one.high * 1e3,
             one.throughput]
            for model, task, one in speeds
        ]  # fmt: skip
        one = speeds[0][2]
        title = f"speed on {one.device}, {one.threads} threads; median and quartiles of a pass"
        headings = ("model", "task", "batch", "ms", "25 %", "75 %", "examples/s")
        console.print_table(title, headings, rows, numbers_from=2)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _with_interval(task: TaskScores, metric: str) -> str | None:
    value = task.metrics.get(metric, math.nan)
    if math.isnan(value):
        return None
    return f"{value:.4f} {task.intervals.get(metric, '')}".rstrip()


def _bounds(low: float, high: float) -> str | None:
    return None if math.isnan(low) else f"[{low:+.4f}, {high:+.4f}]"
