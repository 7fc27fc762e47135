"""What the tables say, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from alliage.report.calibration import CalibrationError
from alliage.report.distances import LAYERS, MODEL, MODULES, Matrix, label
from alliage.report.figures.svg import short
from alliage.report.scores import Comparison, Scores, compare_with_singles, sorted_roles


@dataclass(frozen=True, slots=True)
class Finding:
    """A topic and the sentences on it."""

    topic: str
    sentences: tuple[str, ...]


def compared(
    matrices: Sequence[Matrix], roles: Mapping[str, str], scores: Sequence[Scores]
) -> Finding:
    """How many models, of which roles, by which metrics, on how many tasks."""
    counts = Counter(roles.values())
    parts = ", ".join(f"{counts[role]} {role}" for role in sorted_roles(counts))
    sentences = [f"{_count(len(roles), 'model')}: {parts}."]
    if matrices:
        metrics = sorted({matrix.metric for matrix in matrices})
        names = {name for matrix in matrices for name in matrix.names}
        sentences.append(f"Distances between {len(names)} models by {_and(metrics)}.")
    if scores:
        tasks = {task for one in scores for task in one.tasks}
        models = {model for one in scores for model in one.models}
        sentences.append(
            f"Scores of {_count(len(models), 'model')} on {_count(len(tasks), 'task')}: "
            f"{_and(one.metric for one in scores)}."
        )
    return Finding("Compared", tuple(sentences))


def distance(matrices: Sequence[Matrix]) -> Finding:
    """Nearest and farthest pair by each metric over all modules."""
    sentences = []
    for matrix in matrices:
        pairs = matrix.pairs()
        if matrix.modules not in (MODULES, LAYERS, MODEL) or not pairs:
            continue
        near, far = pairs[0], pairs[-1]
        if len(pairs) == 1:
            sentences.append(
                f"By {label(matrix.metric)}, {near[1]} and {near[2]} are {short(near[0])} apart."
            )
            continue
        middle = pairs[len(pairs) // 2][0]
        sentences.append(
            f"By {label(matrix.metric)}, {near[1]} and {near[2]} are nearest ({short(near[0])}), "
            f"{far[1]} and {far[2]} farthest ({short(far[0])}); the median of {len(pairs)} pairs "
            f"is {short(middle)}."
        )
    return Finding("Near and far", tuple(sentences or [_missing("distances", "alliage compare")]))


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
        listed = ", ".join(f"{one.model} {_signed(one.difference.mean())}" for one in others[:4])
        sentences.append(f"The next on the same tasks: {listed}.")
    return Finding("Merging", tuple(sentences))


def pruning(scores: Scores | None, models: pd.DataFrame) -> Finding:
    """Each pruned model's layers and bytes, and its scores against the best single models."""
    if scores is None or not scores.of_role("pruned"):
        return Finding("Pruning", ("No scores of a pruned model in this folder.",))
    known = models.drop_duplicates("model").set_index("model")
    deepest = models[models["role"] == "single"][["layers", "bytes"]].max()
    sentences = []
    found = compare_with_singles(scores, "pruned")
    for one in found[:4]:
        size = ""
        if one.model in known.index and deepest.notna().all():
            row = known.loc[one.model]
            size = (
                f" ({row['layers']} of {int(deepest['layers'])} layers, "
                f"{row['bytes'] / 1e6:.3g} of {deepest['bytes'] / 1e6:.3g} MB)"
            )
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
            f"{model} ({short(mean)}, mean over {_count(len(by_model[model]), 'task')})"
            for mean, model in (ordered[0], ordered[-1])
        )
        sentences.append(f"Lowest expected calibration error: {best}; highest: {worst}.")
    worst_case = max(errors, key=lambda one: one.value)
    sentences.append(
        f"Highest on one task: {worst_case.model} on {worst_case.task}, {short(worst_case.value)}."
    )
    return Finding("Calibration", tuple(sentences))


def _against(one: Comparison, metric: str, size: str = "") -> str:
    difference = one.difference
    if len(one.tasks) == 1:
        return (
            f"{one.model}{size}: {metric} {short(float(one.own[0]))} on {one.tasks[0]} against "
            f"{short(float(one.best[0]))} of the best single model ({_signed(difference[0])})."
        )
    low, high = int(difference.argmin()), int(difference.argmax())
    return (
        f"{one.model}{size}: mean {metric} {short(float(one.own.mean()))} over {len(one.tasks)} "
        f"tasks against {short(float(one.best.mean()))} of each task's best single model "
        f"({_signed(difference.mean())}; from {_signed(difference[low])} on {one.tasks[low]} to "
        f"{_signed(difference[high])} on {one.tasks[high]})."
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _and(words: Iterable[str]) -> str:
    listed = list(words)
    return listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + " and " + listed[-1]


def _missing(table: str, command: str) -> str:
    return f"No table of {table} in this folder; {command} … -o writes one."
