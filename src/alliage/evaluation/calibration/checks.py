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
    return Binary(values, outcomes, _shares(weights, values))


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
    return Binary(values, outcomes, _shares(weights, values))


def checked_rows(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities [n, k] of all classes, and labels [n].

    Raises:
        ValueError: an argument of another shape or range; says which row.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels)
    if rows.ndim != 2 or truth.shape != rows.shape[:1] or not rows.size:
        raise ValueError(
            "Expected probabilities [n, k] and labels [n] with n ≥ 1 and k ≥ 1, "
            f"got {list(rows.shape)} and {list(truth.shape)}."
        )
    outside = ~((rows >= 0) & (rows <= 1)).all(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"Probabilities must lie in [0, 1]; row {row} is {rows[row].tolist()}.")
    sums = rows.sum(axis=1)
    off = np.abs(sums - 1) > ROW_SUM
    if off.any():
        row = int(off.argmax())
        raise ValueError(f"Each row of probabilities must sum to 1; row {row} sums to {sums[row]}.")
    return rows, checked_classes(truth, rows.shape[1])


def checked_classes(labels: NDArray[np.generic], classes: int) -> NDArray[np.int64]:
    """Labels as integers.

    Raises:
        ValueError: one is no class; says which row.
    """
    wrong = ~np.isin(labels, np.arange(classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"Labels must be classes from 0 to {classes - 1}; row {row} has {labels[row]}."
        )
    return labels.astype(np.int64)


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


def _shares(weights: ArrayLike | None, values: Floats) -> Floats:
    if weights is None:
        return np.full(values.shape, 1 / len(values))
    mass = np.asarray(weights, dtype=np.float64)
    if mass.shape != values.shape or not (mass >= 0).all() or not 0 < mass.sum() < np.inf:
        raise ValueError(f"Weights must be {len(values)} non-negative numbers, not all zero.")
    shares: Floats = mass / mass.sum()
    return shares
