"""What an evaluation found."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alliage.evaluation.calibration import Bin
from alliage.evaluation.confidence import CalibrationDetail, CurvePoint, DomainDetail
from alliage.evaluation.evidence import Evidence
from alliage.evaluation.intervals import LEVEL, Interval
from alliage.evaluation.speed import Speed


@dataclass(frozen=True, slots=True)
class TaskScores:
    """A model's scores on one task.

    Attributes:
        task: its name.
        split: the part that was scored.
        metrics: name -> value; of what has confidences, measures of calibration among them.
        intervals: name -> 95 % interval, of the metrics that have one.
        examples: how many were scored.
        truncated: how many of those were cut at the model's longest length.
        seconds: spent in the model and its encoder.
        reliability: confidence against accuracy, in bins; none of numbers and texts.
        calibration: in detail, where that was asked for.
        domains: calibration on each domain, there too, where the task tells domains.
        curve: the smoothed reliability diagram, there too.
        speed: where it was measured.
        note: what a reader of the scores has to know.
        evidence: what the metrics were computed from, to compare models with.
    """

    task: str
    split: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    examples: int
    truncated: int
    seconds: float
    reliability: tuple[Bin, ...] = ()
    calibration: tuple[CalibrationDetail, ...] = ()
    domains: tuple[DomainDetail, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    speed: tuple[Speed, ...] = ()
    note: str = ""
    evidence: Evidence | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Scores:
    """A model's scores on tasks, and its size.

    Attributes:
        model: short name; with "+" and the repair that was applied to its answers.
        role: base, single, merged or pruned, by what made it.
        method: how it was made: full, lora, ties, best-n, ...; empty where nobody recorded it.
        path: its folder or file.
        layers: in its stack.
        parameters: of the model as it runs: an adapter's and its base's together.
        bytes: of the model's own weights on disk: of an adapter without its base.
        tasks: in the order they were given.
        before: the model's own scores, where a repair was applied to its answers.
        notes: what a reader of the scores has to know of the model.
    """

    model: str
    role: str
    method: str
    path: str
    layers: int
    parameters: int
    bytes: int
    tasks: tuple[TaskScores, ...]
    before: Scores | None = None
    notes: tuple[str, ...] = ()

    def __getitem__(self, task: str) -> TaskScores:
        return next(scores for scores in self.tasks if scores.task == task)

    def to_rows(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of the tables of `alliage.studies.results` that an evaluation fills.

        models, scores, intervals, reliability, calibration, calibration_domains,
        reliability_curves, speed.
        """
        keys = ("model", "role", "method", "path", "layers", "parameters", "bytes")
        rows: dict[str, list[dict[str, Any]]] = {
            "models": [{key: getattr(self, key) for key in keys}],
            "scores": [],
            "intervals": [],
            "reliability": [],
            "calibration": [],
            "calibration_domains": [],
            "reliability_curves": [],
            "speed": [],
        }
        for task in self.tasks:
            where = {"model": self.model, "task": task.task, "split": task.split}
            rows["scores"] += [
                where | {"metric": metric, "value": value, "examples": task.examples}
                for metric, value in (*task.metrics.items(), ("seconds", task.seconds))
            ]
            rows["intervals"] += [
                where | {"metric": metric, "level": LEVEL} | interval._asdict()
                for metric, interval in task.intervals.items()
            ]
            rows["reliability"] += [where | row._asdict() for row in task.reliability]
            rows["calibration"] += [where | row._asdict() for row in task.calibration]
            rows["calibration_domains"] += [where | row._asdict() for row in task.domains]
            rows["reliability_curves"] += [where | row._asdict() for row in task.curve]
            rows["speed"] += [where | row._asdict() for row in task.speed]
        return rows

    def __str__(self) -> str:
        lines = [
            f"{self.model} ({self.role}{f', {self.method}' if self.method else ''}): "
            f"{self.layers} layers, {self.parameters:,} parameters, {self.bytes / 1e6:.2f} MB"
        ]
        for task in self.tasks:
            metrics = ", ".join(
                f"{name} {value:.4f} {task.intervals.get(name, '')}".rstrip()
                for name, value in task.metrics.items()
            )
            cut = f", {task.truncated} cut at the longest length" if task.truncated else ""
            lines.append(
                f"  {task.task} {task.split}: {metrics}; "
                f"{task.examples} examples{cut} in {task.seconds:.2f} s"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def join_scores(parts: Sequence[Scores]) -> Scores:
    """One model's scores on all tasks, from its scores on each."""
    tasks = tuple(task for part in parts for task in part.tasks)
    lead = next((part for part in parts if part.before), parts[0])
    before = None
    if lead.before is not None:
        unrepaired = tuple(task for part in parts for task in (part.before or part).tasks)
        before = replace(lead.before, tasks=unrepaired)
    return replace(lead, tasks=tasks, before=before)


def with_distinct_names(
    found: Sequence[Scores], stored: Iterable[tuple[str, str]] = ()
) -> list[Scores]:
    """Scores whose models' names differ: of one name, by as much of their paths as it takes.

    Where paths do not help, models are numbered.

    Args:
        found: of different models.
        stored: names and paths of models whose scores lie where these will.
    """
    stored = tuple(stored)
    own = [(scores.before or scores).model for scores in found]
    names = list(own)
    for name, count in Counter(own).items():
        alike = [place for place, other in enumerate(own) if other == name]
        paths = [found[place].path for place in alike]
        others = [
            path
            for other, path in dict.fromkeys(stored)
            if other == name and not any(_may_be_same(path, here) for here in paths)
        ]
        if count > 1 or others:
            longer = _told_apart(name, [*paths, *others])
            for place, distinct in zip(alike, longer, strict=False):
                names[place] = distinct
    return [
        replace(
            scores,
            model=name + scores.model.removeprefix(old),
            before=scores.before and replace(scores.before, model=name),
        )
        for scores, old, name in zip(found, own, names, strict=True)
    ]


def _told_apart(name: str, paths: Sequence[str]) -> list[str]:
    above = [_folders_above(path, name) for path in paths]
    for depth in range(1, max(map(len, above)) + 1):
        names = ["/".join([*folders[-depth:], name]) for folders in above]
        if len(set(names)) == len(names):
            return names
    return [f"{name}-{number}" if number > 1 else name for number in range(1, len(paths) + 1)]


def _may_be_same(stored: str, path: str) -> bool:
    """Whether a path that was perhaps written in another folder may mean this one."""
    parts = Path(stored).parts
    return stored == path or Path(path).resolve().parts[-len(parts) :] == parts


def _folders_above(path: str, name: str) -> list[str]:
    parts = path.split("/") if "://" in path else list(Path(path).resolve().parts[1:])
    return parts[: parts.index(name)] if name in parts[:-1][-1:] else parts[:-1]
