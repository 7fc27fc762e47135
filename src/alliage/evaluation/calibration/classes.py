"""From several classes to one event: the top label, each class against the rest; and by domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alliage.evaluation.calibration.checks import Floats, checked_rows

Measure = Callable[[Floats, Floats], float]  # of probabilities [n] and labels [n]


class Confidence(NamedTuple):
    """The top label of each example.

    Attributes:
        probabilities: [n], of the most probable class; of equal ones the first.
        labels: [n], 1 where it is the right one.
    """

    probabilities: Floats
    labels: Floats


class OneAgainstRest(NamedTuple):
    """A measure of each class against all others.

    Attributes:
        values: [k].
        mean: over classes.
        largest: over classes.
    """

    values: Floats
    mean: float
    largest: float


class Domain(NamedTuple):
    """A measure on the examples of one domain."""

    domain: str
    examples: int
    value: float


class Domains(NamedTuple):
    """A measure by domain.

    Attributes:
        rows: by name.
        largest: over domains: what multicalibration bounds (arXiv:1711.08513).
    """

    rows: tuple[Domain, ...]
    largest: float


def confidence(probabilities: ArrayLike, labels: ArrayLike) -> Confidence:
    """The form of calibration in which a model is asked about its own answer only.

    Args:
        probabilities: [n, k], rows that sum to 1 within 1e-6.
        labels: [n], the right classes.

    Raises:
        ValueError: an argument of another shape or range; says which row.
    """
    rows, truth = checked_rows(probabilities, labels)
    return Confidence(rows.max(axis=1), (rows.argmax(axis=1) == truth).astype(np.float64))


def one_against_rest(
    measure: Measure, probabilities: ArrayLike, labels: ArrayLike
) -> OneAgainstRest:
    """A measure of every class on its own.

    Args:
        measure: of probabilities [n] and labels [n], such as `smooth_calibration_error`.
        probabilities: [n, k], rows that sum to 1 within 1e-6.
        labels: [n], the right classes.

    Raises:
        ValueError: an argument of another shape or range; says which row.
    """
    rows, truth = checked_rows(probabilities, labels)
    classes = range(rows.shape[1])
    values = np.array([measure(rows[:, one], (truth == one).astype(np.float64)) for one in classes])
    return OneAgainstRest(values, float(values.mean()), float(values.max()))


def by_domain(
    measure: Measure, probabilities: ArrayLike, labels: ArrayLike, domains: ArrayLike
) -> Domains:
    """A measure on each domain apart: a model may be calibrated on all together and on none.

    Args:
        measure: of probabilities [n] and labels [n].
        probabilities: [n], of one event.
        labels: [n], 0 or 1.
        domains: [n], names or numbers.

    Raises:
        ValueError: an argument of another shape.
    """
    values, outcomes = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    names = np.asarray(domains)
    if not values.shape == outcomes.shape == names.shape or values.ndim != 1 or not values.size:
        raise ValueError(
            "Expected probabilities [n], labels [n] and domains [n] with n ≥ 1, "
            f"got {list(values.shape)}, {list(outcomes.shape)} and {list(names.shape)}."
        )
    rows = tuple(
        Domain(str(name), len(part), measure(values[part], outcomes[part]))
        for name, part in members(names)
    )
    return Domains(rows, max(row.value for row in rows))


def members(groups: NDArray[Any]) -> list[tuple[Any, NDArray[np.int64]]]:
    """Each distinct value of [n], in order, with the places where it stands, in order."""
    distinct, own, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    parts = np.split(np.argsort(own, kind="stable"), np.cumsum(sizes)[:-1])
    return list(zip(distinct, parts, strict=True))


def log_odds(probabilities: ArrayLike) -> Floats:
    """ln(p / (1 − p)) of each class, the logits that the dual measures take.

    1 − p is added up from the other classes, so that it holds where p is 1 but for rounding.

    Args:
        probabilities: [n, k].

    Returns:
        [n, k]; infinite where a class or all others have no probability.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    before, after = np.zeros_like(rows), np.zeros_like(rows)
    np.cumsum(rows[:, :-1], axis=1, out=before[:, 1:])
    after[:, :-1] = np.cumsum(rows[:, :0:-1], axis=1)[:, ::-1]
    with np.errstate(divide="ignore"):
        odds: Floats = np.log(rows) - np.log(before + after)
    return odds
