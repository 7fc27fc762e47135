"""Calibration of a model's top label, from its answers."""

from __future__ import annotations

import numpy as np
import pytest

from alliage.evaluation.answers import Answers
from alliage.evaluation.calibration import (
    expected_calibration_error,
    lower_calibration_distance,
    smooth_calibration_error,
)
from alliage.evaluation.confidence import (
    calibration_details,
    calibration_metrics,
    confidence_bins,
    drawn_measures,
)


def test_confidence_is_the_top_labels_probability():
    # Confidence 0.8 on all, half of them right: every measure of formulas is known.
    logits = np.log(np.tile([0.2, 0.8], (4, 1))).astype(np.float32)
    found = Answers(logits, np.array([1, 0, 1, 0]), np.arange(4), 4)
    assert calibration_metrics(found) == pytest.approx(
        {"ece": 0.3, "smce": 0.3, "pgap": 0.09}, abs=1e-6
    )


def calibrated(count=300, labels=3, seed=0, sharper=1.0):
    """Labels drawn from the softmax of logits; the model's are `sharper` times those."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, labels), scale=2)
    truth = np.argmax(logits + random.gumbel(size=logits.shape), axis=1)
    return Answers(sharper * logits, truth, np.arange(count), count)


def test_a_calibrated_model_lies_in_the_band_of_chance_and_a_sharper_one_above():
    for row in calibration_details(calibrated(), classes=True)[:3]:
        assert row.chance_low <= row.value <= row.chance_high
    for row in calibration_details(calibrated(sharper=3), classes=True)[:3]:
        assert row.value > row.chance_high
        assert row.low <= row.value
    assert row.low > row.chance_high  # of the gap: no doubt


def test_details_are_the_measures_on_the_top_label_and_on_each_class():
    answers = calibrated(sharper=2)
    shares = np.exp(answers.logits) / np.exp(answers.logits).sum(axis=1, keepdims=True)
    top, right = shares.max(axis=1), shares.argmax(axis=1) == answers.truth
    ece, smce, _, lower = calibration_details(answers, classes=True)
    assert ece.value == pytest.approx(expected_calibration_error(top, right, 15))
    assert smce.value == pytest.approx(smooth_calibration_error(top, right))
    assert lower.value == pytest.approx(lower_calibration_distance(top, right), abs=1e-6)
    each = [smooth_calibration_error(shares[:, k], answers.truth == k) for k in range(3)]
    assert smce.classes_mean == pytest.approx(np.mean(each))
    assert smce.classes_largest == pytest.approx(max(each))
    assert np.isnan(calibration_details(answers, classes=False)[0].classes_mean)


def test_drawn_twice_counts_twice():
    answers = calibrated(count=20)
    indices = np.array([3, 3, 3, 7, 0, 0, 19])
    again = Answers(answers.logits[indices], answers.truth[indices], np.arange(7), 7)
    drawn = {name: of(indices) for name, of in drawn_measures(answers).items()}
    assert drawn == pytest.approx(calibration_metrics(again))


def test_sentences_are_drawn_with_all_their_tokens():
    answers = calibrated(count=6)
    owners = np.array([0, 0, 1, 2, 2, 2])
    sentences = Answers(answers.logits, answers.truth, owners, 3)
    rows = [0, 1, 3, 4, 5, 3, 4, 5]
    again = Answers(answers.logits[rows], answers.truth[rows], np.arange(8), 8)
    drawn = {n: of(np.array([2, 0, 2])) for n, of in drawn_measures(sentences).items()}
    assert drawn == pytest.approx(calibration_metrics(again))


def test_the_bins_add_up_to_the_error():
    answers = calibrated(sharper=2)
    bins = confidence_bins(answers)
    gaps = [abs(one.accuracy - one.confidence) * one.examples for one in bins]
    assert sum(gaps) / 300 == pytest.approx(calibration_metrics(answers)["ece"])
    assert sum(one.examples for one in bins) == 300
