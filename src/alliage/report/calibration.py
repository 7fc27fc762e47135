"""Calibration of models on tasks, from the results table to diagrams and errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alliage.report.scores import ECE, Scores, with_split

if TYPE_CHECKING:
    import pandas as pd


class Bin(NamedTuple):
    """Predictions with a confidence between two edges."""

    low: float
    high: float
    confidence: float
    accuracy: float
    examples: int


class CurvePoint(NamedTuple):
    """Accuracy around a confidence, and between what it lies if the model is calibrated."""

    confidence: float
    accuracy: float
    chance_low: float
    chance_high: float


class Diagram(NamedTuple):
    """The bins of one model on one task, those with examples, by confidence."""

    model: str
    task: str
    bins: tuple[Bin, ...]
    curve: tuple[CurvePoint, ...] = ()

    @property
    def examples(self) -> int:
        """How many predictions were binned."""
        return sum(one.examples for one in self.bins)

    @property
    def error(self) -> float:
        """Expected calibration error Σ_b n_b/n |accuracy_b − confidence_b| (arXiv:1706.04599)."""
        gaps = sum(one.examples * abs(one.accuracy - one.confidence) for one in self.bins)
        return gaps / self.examples


class CalibrationError(NamedTuple):
    """The expected calibration error of one model on one task."""

    model: str
    task: str
    value: float


def diagrams(reliability: pd.DataFrame, curves: pd.DataFrame) -> list[Diagram]:
    """One diagram for each model and task, by name; of repeated rows the last in the tables.

    Args:
        reliability: the table of bins.
        curves: the table of smoothed diagrams, which may know fewer models and tasks.
    """
    rows = with_split(reliability[reliability["examples"] > 0])
    rows = rows.drop_duplicates(["model", "task", "low", "high"], keep="last").sort_values("low")
    points = with_split(curves).drop_duplicates(["model", "task", "confidence"], keep="last")
    drawn = {
        key: tuple(map(CurvePoint._make, _rows(part, CurvePoint._fields)))
        for key, part in points.sort_values("confidence").groupby(["model", "task"])
    }
    return [
        Diagram(
            str(key[0]), str(key[1]),
            tuple(map(Bin._make, _rows(part, Bin._fields))), drawn.get(key, ()),
        )
        for key, part in rows.groupby(["model", "task"], sort=True)
    ]  # fmt: skip


def calibration_errors(
    scores: Sequence[Scores], found: Sequence[Diagram]
) -> tuple[list[CalibrationError], str]:
    """Errors as they were evaluated or, where none were, of the diagrams.

    Returns:
        the errors, and the name of the results table that they come from.
    """
    for one in scores:
        if one.metric == ECE:
            measured = np.argwhere(np.isfinite(one.values)).tolist()
            return [
                CalibrationError(one.models[i], one.tasks[j], float(one.values[i, j]))
                for i, j in measured
            ], "scores"
    return [CalibrationError(one.model, one.task, one.error) for one in found], "reliability"


def _rows(table: pd.DataFrame, columns: tuple[str, ...]) -> Iterable[tuple[Any, ...]]:
    return table[list(columns)].itertuples(index=False, name=None)
