"""What an evaluation found."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alliage.evaluation.calibration import Bin


@dataclass(frozen=True, slots=True)
class TaskScores:
    """A model's scores on one task.

    Attributes:
        task: its name.
        split: the part that was scored.
        metrics: name -> value; "ece" among them.
        examples: how many were scored.
        seconds: spent in the model and its encoder.
        reliability: confidence against accuracy, in bins.
    """

    task: str
    split: str
    metrics: Mapping[str, float]
    examples: int
    seconds: float
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """A model's scores on tasks, and its size.

    Attributes:
        model: short name.
        role: base, single, merged or pruned, by what made it.
        method: how it was made: full, lora, ties, best-n, ...; empty where nobody recorded it.
        path: its folder or file.
        layers: in its stack.
        parameters: of the model as it runs: an adapter's and its base's together.
        bytes: of the model's own weights on disk: of an adapter without its base.
        tasks: in the order they were given.
    """

    model: str
    role: str
    method: str
    path: str
    layers: int
    parameters: int
    bytes: int
    tasks: tuple[TaskScores, ...]

    def __getitem__(self, task: str) -> TaskScores:
        return next(scores for scores in self.tasks if scores.task == task)

    def to_rows(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of the tables "models", "scores" and "reliability" (`alliage.studies.results`)."""
        keys = ("model", "role", "method", "path", "layers", "parameters", "bytes")
        scores, reliability = [], []
        for task in self.tasks:
            where = {"model": self.model, "task": task.task, "split": task.split}
            scores += [
                where | {"metric": metric, "value": value, "examples": task.examples}
                for metric, value in (*task.metrics.items(), ("seconds", task.seconds))
            ]
            reliability += [where | row._asdict() for row in task.reliability]
        return {
            "models": [{key: getattr(self, key) for key in keys}],
            "scores": scores,
            "reliability": reliability,
        }

    def __str__(self) -> str:
        lines = [
            f"{self.model} ({self.role}{f', {self.method}' if self.method else ''}): "
            f"{self.layers} layers, {self.parameters:,} parameters, {self.bytes / 1e6:.2f} MB"
        ]
        for task in self.tasks:
            metrics = ", ".join(f"{name} {value:.4f}" for name, value in task.metrics.items())
            lines.append(
                f"  {task.task} {task.split}: {metrics}; "
                f"{task.examples} examples in {task.seconds:.2f} s"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
