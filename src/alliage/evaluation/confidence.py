"""How well a model's confidence is calibrated, from its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alliage.evaluation.answers import Answers
from alliage.evaluation.calibration import (
    Bin,
    bootstrap_band,
    by_domain,
    confidence,
    dual_post_processing_gap,
    dual_smooth_calibration_error,
    expected_calibration_error,
    log_odds,
    lower_calibration_distance,
    null_band,
    null_bands,
    one_against_rest,
    post_processing_gap,
    reliability,
    smooth_calibration_error,
    smoothed_null_band,
    smoothed_reliability,
)
from alliage.evaluation.intervals import Difference, exchange_p
from alliage.evaluation.metrics import WORST

BINS = 15  # of confidence, as in arXiv:1706.04599
MEASURES: Mapping[str, Callable[..., float]] = {
    "ece": partial(expected_calibration_error, bins=BINS),
    "smce": smooth_calibration_error,
    "pgap": post_processing_gap,
}
_DUALS: Mapping[str, Callable[..., float]] = {
    "dual_smce": dual_smooth_calibration_error,
    "dual_pgap": dual_post_processing_gap,
}


class CalibrationDetail(NamedTuple):
    """One measure of calibration, and what it is worth.

    Attributes:
        metric: its name.
        value: of the top label's probability.
        low, high: 95 % bootstrap interval by example, with the bias of the measure taken off.
        chance_low, chance_high: where it would lie in 95 % of cases if the model were calibrated.
        classes_mean, classes_largest: of each class against the rest.

    NaN is what was not measured: for the lower distance all but the value, which takes a linear
    program each; of choices, of the dual measures and of the worst domain, classes; the interval of
    the worst domain, and any where every answer is right or none.
    """

    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    chance_low: float = math.nan
    chance_high: float = math.nan
    classes_mean: float = math.nan
    classes_largest: float = math.nan


class DomainDetail(NamedTuple):
    """One measure of calibration on one domain.

    Attributes:
        domain: its name.
        metric: the measure's name.
        examples: the decisions in it.
        value: of the top label's probability.
        chance_low, chance_high: where it would lie in 95 % of cases if the model were calibrated.
    """

    domain: str
    metric: str
    examples: int
    value: float
    chance_low: float
    chance_high: float


class CurvePoint(NamedTuple):
    """One point of a smoothed reliability diagram.

    Attributes:
        confidence: where it is.
        accuracy: share of right answers around it.
        density: of the answers.
        chance_low, chance_high: where accuracy would lie in 95 % of cases if the model were
            calibrated.
    """

    confidence: float
    accuracy: float
    density: float
    chance_low: float
    chance_high: float


def calibration_metrics(answers: Answers) -> dict[str, float]:
    """Calibration of the top label's probability, against whether it is the right one.

    Returns:
        "ece", the calibration error in 15 bins; "smce", the smooth calibration error; "pgap", what
        the squared error could gain by a Lipschitz repair.
    """
    top = confidence(answers.probabilities, answers.truth)
    return {name: measure(*top) for name, measure in MEASURES.items()}


def calibration_details(answers: Answers, *, classes: bool) -> tuple[CalibrationDetail, ...]:
    """Every measure with its interval, its null band and its values by class.

    Args:
        answers: of labels, or of choices.
        classes: whether the columns are classes.
    """
    probabilities, truth = answers.probabilities, answers.truth
    top = confidence(probabilities, truth)
    odds = log_odds(probabilities).max(axis=1)
    found = []
    for name, measure in {**MEASURES, **_DUALS}.items():
        predictions = odds if name in _DUALS else top.probabilities
        interval = bootstrap_band(measure, predictions, top.labels, groups=answers.examples)
        chance = null_band(partial(_of_drawn, measure, predictions), top.probabilities)
        value = measure(predictions, top.labels)
        row = CalibrationDetail(name, value, interval.low, interval.high, chance.low, chance.high)
        if classes and name in MEASURES:
            rest = one_against_rest(measure, probabilities, truth)
            row = row._replace(classes_mean=rest.mean, classes_largest=rest.largest)
        found.append(row)
    return (*found, CalibrationDetail("lower_distance", lower_calibration_distance(*top)))


def domain_details(
    answers: Answers,
) -> tuple[tuple[DomainDetail, ...], tuple[CalibrationDetail, ...]]:
    """Every measure on each domain apart, and its largest value, with their null bands.

    The largest of many is large by chance, the more so the smaller the domains: its band says how
    large. Nothing where no domains are told.
    """
    if not answers.domains:
        return (), ()
    top = confidence(answers.probabilities, answers.truth)
    domains = np.array(answers.domains)[answers.examples]
    each, worst = [], []
    for name, measure in MEASURES.items():
        found = by_domain(measure, *top, domains)
        chance = null_bands(measure, top.probabilities, domains)
        each += [
            DomainDetail(row.domain, name, row.examples, row.value, *chance.each[row.domain][:2])
            for row in found.rows
        ]
        low, high, _ = chance.largest
        row = CalibrationDetail(f"{name}_{WORST}", found.largest)
        worst.append(row._replace(chance_low=low, chance_high=high))
    return tuple(each), tuple(worst)


def calibration_differences(answers: Answers, reference: Answers) -> dict[str, Difference]:
    """Every measure, one model's minus another's, on the same examples.

    p is of approximate randomisation. There is no interval: the measures are biased upwards, the
    more so the better the model, and neither the percentile nor the basic bootstrap interval of a
    difference covers it. Nothing where the models answered other tokens.
    """
    if not np.array_equal(answers.examples, reference.examples):
        return {}
    own, other = (confidence(each.probabilities, each.truth) for each in (answers, reference))

    def difference(measure: Callable[..., float], moved: NDArray[np.bool_]) -> float:
        rows = moved[answers.examples]
        pairs = list(zip(own, other, strict=True))
        first = measure(*(np.where(rows, theirs, ours) for ours, theirs in pairs))
        return first - measure(*(np.where(rows, ours, theirs) for ours, theirs in pairs))

    found = {}
    for name, measure in MEASURES.items():
        value = difference(measure, np.zeros(answers.count, bool))
        p = exchange_p(answers.count, partial(difference, measure))
        found[name] = Difference(value, math.nan, math.nan, p, "randomisation")
    return found


def _of_drawn(
    measure: Callable[..., float],
    predictions: NDArray[np.float64],
    _: NDArray[np.float64],
    drawn: NDArray[np.float64],
) -> float:
    return measure(predictions, drawn)


def confidence_bins(answers: Answers) -> tuple[Bin, ...]:
    """The reliability table of the top label's probability, in 15 bins."""
    return tuple(reliability(*confidence(answers.probabilities, answers.truth), BINS))


def confidence_curve(answers: Answers) -> tuple[CurvePoint, ...]:
    """The smoothed reliability diagram of the top label's probability, where there are answers."""
    top = confidence(answers.probabilities, answers.truth)
    smooth = smoothed_reliability(*top)
    band = smoothed_null_band(top.probabilities, smooth.bandwidth)
    points = zip(smooth.confidence, smooth.accuracy, smooth.density, *band, strict=True)
    return tuple(CurvePoint(*map(float, one)) for one in points if np.isfinite(one).all())
