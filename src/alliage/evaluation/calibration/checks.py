"""Arguments of the measures, checked, and their residuals at each distinct prediction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ROW_SUM = 1e-6  # how far the probabilities of an example may be from summing to 1


class Binary(NamedTuple):
    """Predictions of one event and what happened.

    Attributes:
        values: [n], probabilities or logits.
        outcomes: [n], 0 or 1.
        mass: [n], the share of each example in the total weight.
    """

    values: Floats
    outcomes: Floats
    mass: Floats


class Level(NamedTuple):
    """Sums over the examples with the same prediction, by increasing prediction.

    Attributes:
        values: [m], the distinct predictions.
        mass: [m], their share of the total weight.
        positive: [m], the part of it whose label is 1.
    """

    values: Floats
    mass: Floats
    positive: Floats

    @property
    def surplus(self) -> Floats:
        """What happened beyond what probabilities said, [m]."""
        return self.positive - self.mass * self.values


def checked(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> Binary:
    """Probabilities, labels and weights as float64.

    Raises:
        ValueError: an argument of another shape or range.
    """
    values, outcomes = _shaped(probabilities, labels, "probabilities")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("Probabilities must lie in [0, 1]; some do not, or are NaN.")
    return Binary(values, outcomes, shares_of(weights, len(values)))


def checked_logits(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> Binary:
    """Logits, which may be infinite, labels and weights as float64.

    Raises:
        ValueError: an argument of another shape or range.
    """
    values, outcomes = _shaped(logits, labels, "logits")
    if np.isnan(values).any():
        raise ValueError("Logits must be numbers or infinite; some are NaN.")
    return Binary(values, outcomes, shares_of(weights, len(values)))


def checked_probabilities(probabilities: ArrayLike) -> Floats:
    """Probabilities [n] of one event or [n, k] of all classes.

    Raises:
        ValueError: they have another shape or range; of classes, says in which row.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(
            f"Expected probabilities [n] or [n, k] with n, k ≥ 1, got {list(values.shape)}."
        )
    rows = values[:, None] if values.ndim == 1 else values
    outside = ~((rows >= 0) & (rows <= 1 + ROW_SUM)).all(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"Probabilities must lie in [0, 1]; row {row} is {rows[row].tolist()}.")
    if values.ndim == 2:
        sums = values.sum(axis=1)
        off = np.abs(sums - 1) > ROW_SUM
        if off.any():
            row = int(off.argmax())
            raise ValueError(
                f"Each row of probabilities must sum to 1; row {row} sums to {sums[row]:.9g}."
            )
    return np.minimum(values, 1.0)  # float32 rounds a little beyond


def checked_rows(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities [n, k] of all classes, and labels [n].

    Raises:
        ValueError: an argument of another shape or range; says which row.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels)
    if rows.ndim != 2 or truth.shape != rows.shape[:1] or not rows.size:
        raise ValueError(
            "Expected probabilities [n, k] and labels [n] with n, k ≥ 1, "
            f"got {list(rows.shape)} and {list(truth.shape)}."
        )
    wrong = ~np.isin(truth, np.arange(rows.shape[1]))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"Labels must be classes from 0 to {rows.shape[1] - 1}; row {row} has {truth[row]}."
        )
    return checked_probabilities(rows), truth.astype(np.int64)


def levels(data: Binary) -> Level:
    """Sums at each distinct prediction."""
    order = np.argsort(data.values, kind="stable")
    values, mass = data.values[order], data.mass[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return Level(
        values[starts],
        np.add.reduceat(mass, starts),
        np.add.reduceat(mass * data.outcomes[order], starts),
    )


def _shaped(predictions: ArrayLike, labels: ArrayLike, name: str) -> tuple[Floats, Floats]:
    values = np.asarray(predictions, dtype=np.float64)
    outcomes = np.asarray(labels, dtype=np.float64)
    if values.ndim != 1 or values.shape != outcomes.shape or not values.size:
        raise ValueError(
            f"Expected {name} [n] and labels [n] with n ≥ 1, "
            f"got {list(values.shape)} and {list(outcomes.shape)}."
        )
    if not np.isin(outcomes, (0, 1)).all():
        raise ValueError("Labels must be 0 or 1.")
    return values, outcomes


def shares_of(weights: ArrayLike | None, examples: int) -> Floats:
    """The share of each example in the total weight, [n]; all equal by default.

    Raises:
        ValueError: these are no weights of so many examples.
    """
    if weights is None:
        return np.full(examples, 1 / examples)
    mass = np.asarray(weights, dtype=np.float64)
    if mass.shape != (examples,) or not (mass >= 0).all() or not 0 < mass.sum() < np.inf:
        raise ValueError(f"Weights must be {examples} non-negative numbers, not all zero.")
    shares: Floats = mass / mass.sum()
    return shares
