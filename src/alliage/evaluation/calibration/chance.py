"""How large a measure of calibration is by chance, and how far it may be off."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from alliage.evaluation.calibration.checks import checked
from alliage.evaluation.calibration.classes import Measure, members
from alliage.evaluation.intervals import whole_intervals

REPEATS = 200
LEVEL = 0.95


class Band(NamedTuple):
    """Where a measure lies.

    Attributes:
        low, high: its ends.
        level: share of the draws between them.
    """

    low: float
    high: float
    level: float


def null_band(
    measure: Measure,
    probabilities: ArrayLike,
    *,
    repeats: int = REPEATS,
    level: float = LEVEL,
    seed: int = 0,
) -> Band:
    """Where a measure lies if the predictions are calibrated: labels are drawn from them.

    Measures of n examples are above 0 even then: a value within the band is no evidence.

    Args:
        measure: of probabilities [n] and labels [n]; one on logits holds them itself and ignores
            its first argument.
        probabilities: [n], of one event.
        repeats: draws of all labels.
        level: in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: an argument of another shape or range.
    """
    values = checked(probabilities, np.zeros(np.shape(probabilities))).values
    generator = np.random.default_rng(seed)
    found = [
        measure(values, (generator.random(len(values)) < values).astype(np.float64))
        for _ in range(repeats)
    ]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Band(float(low), float(high), level)


class DomainBands(NamedTuple):
    """Where a measure lies on each domain, and its largest value over all of them.

    Attributes:
        each: by the domain's name.
        largest: of the maximum, which grows with the number of domains.
    """

    each: dict[str, Band]
    largest: Band


def null_bands(
    measure: Measure,
    probabilities: ArrayLike,
    domains: ArrayLike,
    *,
    repeats: int = REPEATS,
    level: float = LEVEL,
    seed: int = 0,
) -> DomainBands:
    """Where a measure lies on each domain if the predictions are calibrated; see `null_band`.

    Args:
        measure: of probabilities [n] and labels [n].
        probabilities: [n], of one event.
        domains: [n], names or numbers.
        repeats: draws of all labels.
        level: in (0, 1), of each band by itself.
        seed: of the draws.

    Raises:
        ValueError: an argument of another shape or range.
    """
    values = checked(probabilities, np.zeros(np.shape(probabilities))).values
    names = np.asarray(domains)
    if names.shape != values.shape:
        raise ValueError(f"Expected domains [{len(values)}], got {list(names.shape)}.")
    parts = members(names)
    generator = np.random.default_rng(seed)
    found = np.empty((repeats, len(parts)))
    for row in found:
        drawn = (generator.random(len(values)) < values).astype(np.float64)
        row[:] = [measure(values[part], drawn[part]) for _, part in parts]
    shares = [(1 - level) / 2, (1 + level) / 2]
    ends = np.quantile(found, shares, axis=0).T
    low, high = np.quantile(found.max(axis=1), shares)
    return DomainBands(
        {
            str(name): Band(float(start), float(stop), level)
            for (name, _), (start, stop) in zip(parts, ends, strict=True)
        },
        Band(float(low), float(high), level),
    )


def bootstrap_band(
    measure: Measure,
    predictions: ArrayLike,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    repeats: int = REPEATS,
    level: float = LEVEL,
    seed: int = 0,
) -> Band:
    """Basic bootstrap interval [2m − q_high, 2m − q_low] of a measure m, cut at 0.

    Measures of calibration are biased upwards, and resamples by as much again: the percentile
    interval [q_low, q_high] may hold the truth never, the basic one takes the bias off. NaN where
    all labels are the same: no resample has another then, though others might well be seen.

    Args:
        measure: of predictions [n] and labels [n].
        predictions: [n], of one event: probabilities, or the logits that a dual measure takes.
        labels: [n], 0 or 1.
        groups: [n], names or numbers of what is drawn as a whole, such as the sentence of a token;
            by default each example on its own.
        repeats: resamples.
        level: in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: an argument of another shape or range.
    """
    values, outcomes = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    value = measure(values, outcomes)
    if (outcomes == outcomes[0]).all():
        return Band(math.nan, math.nan, level)
    names = np.arange(len(values)) if groups is None else np.asarray(groups)
    if names.shape != values.shape:
        raise ValueError(f"Expected groups [{len(values)}], got {list(names.shape)}.")
    parts = [part for _, part in members(names)]

    def resampled(drawn: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
        rows = np.concatenate([parts[group] for group in drawn])
        return measure(values[rows], outcomes[rows])

    found = whole_intervals(
        len(parts), {"": resampled}, level=level, resamples=repeats, seed=seed
    ).get("")
    if found is None:  # every resample says the same
        return Band(math.nan, math.nan, level)
    return Band(max(0.0, 2 * value - found.high), max(0.0, 2 * value - found.low), level)
