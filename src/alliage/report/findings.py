"""What the tables say, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from alliage.geometry.mapping.inclusion_graph import ENERGIES
from alliage.report.calibration import CalibrationError
from alliage.report.directed import Directed
from alliage.report.distances import LAYERS, MODEL, MODULES, Matrix
from alliage.report.scores import ECE, Comparison, Scores, compare_with_singles, sorted_roles
from alliage.report.words import (
    count,
    listed,
    metric_label,
    metric_name,
    number,
    score,
    signed,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """A topic and the sentences on it."""

    topic: str
    sentences: tuple[str, ...]


def compared(
    matrices: Sequence[Matrix], roles: Mapping[str, str], scores: Sequence[Scores], prefix: str = ""
) -> Finding:
    """How many models, of which roles, by which metrics, on how many tasks."""
    counts = Counter(roles.values())
    parts = ", ".join(f"{counts[role]} {role}" for role in sorted_roles(counts))
    sentences = [f"{count(len(roles), 'model')}: {parts}."]
    if matrices:
        metrics = sorted({metric_name(matrix.metric) for matrix in matrices})
        names = {name for matrix in matrices for name in matrix.names}
        groups = {matrix.models for matrix in matrices}
        apart = f", in {len(groups)} groups apart" if len(groups) > 1 else ""
        sentences.append(f"{count(len(names), 'model')} compared by {listed(metrics)}{apart}.")
    if scores:
        tasks = {task for one in scores for task in one.tasks}
        models = {model for one in scores for model in one.models}
        sentences.append(
            f"Scores of {count(len(models), 'model')} on {count(len(tasks), 'task')}: "
            f"{listed(metric_name(one.metric) for one in scores)}."
        )
    if prefix:
        sentences.append(f"The names of all tasks begin with “{prefix}”, which is left out here.")
    return Finding("Compared", tuple(sentences))


def distance(matrices: Sequence[Matrix]) -> Finding:
    """Nearest and farthest pair of each group, by each metric over all modules."""
    sentences = []
    several = len({matrix.models for matrix in matrices}) > 1
    for matrix in sorted(matrices, key=lambda one: (-len(one.names), one.models)):
        pairs = matrix.pairs()
        if matrix.modules not in (MODULES, LAYERS, MODEL) or not pairs:
            continue
        (low, *near), (high, *far) = pairs[0], pairs[-1]
        label = metric_label(matrix.metric)
        among = several and len(pairs) > 1
        by = f"Among {matrix.models}, by {label}" if among else f"By {label}"
        if len(pairs) == 1:
            sentences.append(f"{by}, {listed(near)} are {number(low)} apart.")
            continue
        sentences.append(
            f"{by}, {listed(near)} are nearest ({number(low)}), {listed(far)} farthest "
            f"({number(high)}); the median of {len(pairs)} pairs is "
            f"{number(pairs[len(pairs) // 2][0])}."
        )
    return Finding("Near and far", tuple(sentences or [_missing("distances", "alliage compare")]))


def inclusion(found: Sequence[Directed]) -> list[Finding]:
    """Which model lies most in which, by each metric of energy; nothing where none was measured."""
    sentences = []
    several = len({one.models for one in found}) > 1
    for one in found:
        if one.metric not in ENERGIES or not np.isfinite(one.values).any():
            continue
        i, j = np.unravel_index(np.nanargmax(one.values), one.values.shape)
        by = f"By {metric_name(one.metric)}"
        if several:
            by = f"Among {one.models}, by {metric_name(one.metric)}"
        chance = ""
        if np.isfinite(one.chance[i, j]):
            chance = f"; random spaces would hold {number(float(one.chance[i, j]))}"
        sentences.append(
            f"{by}, {one.names[i]} lies most in {one.names[j]} "
            f"({number(float(one.values[i, j]))} of it, the other way round "
            f"{number(float(one.values[j, i]))}{chance})."
        )
    return [Finding("Who lies in whom", tuple(sentences))] if sentences else []


def merging(scores: Scores | None) -> Finding:
    """The best merged model against the best single model of each task."""
    if scores is None or not scores.of_role("merged"):
        return Finding("Merging", ("No scores of a merged model in this folder.",))
    found = compare_with_singles(scores, "merged")
    if not found:
        return Finding("Merging", ("No single model was scored on a merged model's tasks.",))
    best = found[0]
    best_of = f"Best of {len(found)} merged models is " if len(found) > 1 else ""
    sentences = [best_of + _against(best, scores.metric)]
    others = [one for one in found[1:] if one.tasks == best.tasks]
    if others:
        listed = ", ".join(f"{one.model} {signed(one.difference.mean())}" for one in others[:4])
        sentences.append(f"The next on the same tasks: {listed}.")
    return Finding("Merging", tuple(sentences))


def pruning(scores: Scores | None, models: pd.DataFrame) -> Finding:
    """Each pruned model's layers and bytes, and its scores against the best single models."""
    if scores is None or not scores.of_role("pruned"):
        return Finding("Pruning", ("No scores of a pruned model in this folder.",))
    known = {row["model"]: row for row in models.to_dict("records")}
    deepest = models[models["role"] == "single"][["layers", "bytes"]].max()
    sentences = []
    found = compare_with_singles(scores, "pruned")
    for one in found[:4]:
        size = ""
        if one.model in known and deepest.notna().all():
            row = known[one.model]
            own, whole = (number(nbytes / 1e6) for nbytes in (row["bytes"], deepest["bytes"]))
            size = f" ({row['layers']} of {int(deepest['layers'])} layers, {own} of {whole} MB)"
        sentences.append(_against(one, scores.metric, size))
    if len(found) > 4:
        sentences.append(f"{len(found) - 4} more pruned models are in the figures.")
    return Finding(
        "Pruning",
        tuple(sentences or ["No single model was scored on a pruned model's tasks."]),
    )


def calibration(errors: Sequence[CalibrationError]) -> Finding:
    """The best and the worst calibrated model, by their mean error over tasks."""
    if not errors:
        return Finding("Calibration", (_missing("reliability", "alliage evaluate"),))
    by_model: dict[str, list[float]] = {}
    for one in errors:
        by_model.setdefault(one.model, []).append(one.value)
    ordered = sorted((sum(values) / len(values), model) for model, values in by_model.items())
    sentences = []
    if len(ordered) > 1:
        best, worst = (
            f"{model} ({score(mean, ECE)}, mean over {count(len(by_model[model]), 'task')})"
            for mean, model in (ordered[0], ordered[-1])
        )
        sentences.append(f"Lowest expected calibration error: {best}; highest: {worst}.")
    highest = max(errors, key=lambda one: one.value)
    sentences.append(
        f"Highest on one task: {highest.model} on {highest.task}, {score(highest.value, ECE)}."
    )
    return Finding("Calibration", tuple(sentences))


def _against(one: Comparison, metric: str, size: str = "") -> str:
    difference, name = one.difference, metric_name(metric)
    own, best = score(float(one.own.mean()), metric), score(float(one.best.mean()), metric)
    if len(one.tasks) == 1:
        return (
            f"{one.model}{size}: {name} {own} on {one.tasks[0]} against {best} of the best single "
            f"model ({signed(difference[0])})."
        )
    low, high = int(difference.argmin()), int(difference.argmax())
    return (
        f"{one.model}{size}: mean {name} {own} over {len(one.tasks)} tasks against {best} of each "
        f"task's best single model ({signed(difference.mean())}; from {signed(difference[low])} on "
        f"{one.tasks[low]} to {signed(difference[high])} on {one.tasks[high]})."
    )


def _missing(table: str, command: str) -> str:
    return f"No table of {table} in this folder; {command} … -o writes one."
