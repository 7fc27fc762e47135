"""From predictors to points of accuracy: a small model that says how far it may be wrong.

Ridge regression on standardised predictors. The interval is as wide as nine tenths of the errors on
tasks that were left out (the jackknife of Barber et al. 2021, arXiv:1905.02928, with tasks in place
of examples): what it holds is measured, and no guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.9  # share of losses that an interval is to hold
_RIDGE = 0.03  # the penalty, in shares of the number of examples
_MARGIN = 0.1  # of the range of a predictor, on both sides

Values = NDArray[np.float64]
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Model:
    """What was learned.

    Attributes:
        predictors: names, p of them.
        low: the least value of each that was seen.
        high: the largest.
        centre: the mean of each.
        spread: the standard deviation of each.
        weights: points of accuracy for one standard deviation.
        intercept: points at the centre.
        width: half of the interval, in points.
    """

    predictors: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    width: float

    @classmethod
    def fit(
        cls,
        values: Values,
        losses: Values,
        tasks: Sequence[str],
        members: Sequence[frozenset[str]],
        names: Sequence[str],
        *,
        partners: bool = False,
    ) -> Self:
        """Learn from measured merges.

        Args:
            values: predictors [n, p].
            losses: measured, in points of accuracy [n].
            tasks: whose loss each is, [n]; two different ones at least.
            members: all tasks of the merge, [n].
            names: of the predictors.
            partners: learn the weights from how the losses of one task differ from partner to
                partner, not from how tasks differ: for predictors that know nothing of the data.
        """
        left_out = np.full(len(losses), math.nan)
        for task in sorted(set(tasks)):
            held, others = split(task, tasks, members)
            if others.any():
                among = _rows(tasks, others) if partners else None
                left_out[held] = _Line.fit(values[others], losses[others], among).at(values[held])
        known = np.isfinite(left_out)
        line = _Line.fit(values, losses, tasks if partners else None)
        residuals = np.sort(np.abs(losses[known] - left_out[known]))
        place = min(math.ceil(LEVEL * (len(residuals) + 1)), len(residuals)) - 1
        return cls(
            predictors=tuple(names),
            low=_floats(values.min(0)),
            high=_floats(values.max(0)),
            centre=_floats(line.centre),
            spread=_floats(line.spread),
            weights=_floats(line.weights),
            intercept=line.intercept,
            width=float(residuals[place]),
        )

    def forecast(self, values: Values) -> Values:
        """Expected losses [n] in points of accuracy, of predictors [n, p]."""
        line = _Line(
            np.array(self.centre), np.array(self.spread), np.array(self.weights), self.intercept
        )
        return line.at(values)

    def outside(self, values: Mapping[str, float]) -> list[str]:
        """The predictors whose values are not defined, or far from all that was learned from."""
        found = []
        for name, low, high in zip(self.predictors, self.low, self.high, strict=True):
            margin = _MARGIN * (high - low)
            if not low - margin <= values[name] <= high + margin:
                where = "is not defined" if math.isnan(values[name]) else "lies outside"
                found.append(f"{name} {where}; it was learned from {low:.3g} to {high:.3g}")
        return found

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """From plain lists and numbers."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        return cls(**fields)


def split(
    task: str, tasks: Sequence[str], members: Sequence[frozenset[str]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The losses of a task, and those of merges that it has no part in: nothing of it leaks."""
    held = np.array([each == task for each in tasks])
    return held, np.array([task not in each for each in members])


def leave_one_task_out(
    values: Values,
    losses: Values,
    tasks: Sequence[str],
    members: Sequence[frozenset[str]],
    names: Sequence[str],
    *,
    partners: bool = False,
) -> tuple[Values, Values]:
    """Forecasts [n] and half widths [n] by models that have seen no merge with the task."""
    forecasts, widths = np.full((2, len(losses)), math.nan)
    for task in sorted(set(tasks)):
        held, others = split(task, tasks, members)
        model = Model.fit(
            values[others],
            losses[others],
            _rows(tasks, others),
            _rows(members, others),
            names,
            partners=partners,
        )
        forecasts[held] = model.forecast(values[held])
        widths[held] = model.width
    return forecasts, widths


@dataclass(frozen=True)
class _Line:
    """Ridge regression; the intercept is not shrunk."""

    centre: Values
    spread: Values
    weights: Values
    intercept: float

    @classmethod
    def fit(cls, values: Values, losses: Values, tasks: Sequence[str] | None = None) -> Self:
        centre, intercept = values.mean(0), float(losses.mean())
        moved, differences = values - centre, losses - intercept
        for task in sorted(set(tasks or ())):  # what tells one task from another is taken out
            own = np.array([each == task for each in tasks or ()])
            moved[own] -= moved[own].mean(0)
            differences[own] -= differences[own].mean()
        spread = moved.std(0)
        spread = np.where(spread > 0, spread, 1.0)
        scaled = moved / spread
        penalty = _RIDGE * len(losses) * np.eye(values.shape[1])
        weights = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ differences)
        return cls(centre, spread, weights, intercept)

    def at(self, values: Values) -> Values:
        found: Values = (values - self.centre) / self.spread @ self.weights + self.intercept
        return found


def _floats(row: Values) -> tuple[float, ...]:
    return tuple(map(float, row))


def _rows(values: Sequence[_Row], chosen: NDArray[np.bool_]) -> list[_Row]:
    return [value for value, kept in zip(values, chosen, strict=True) if kept]
