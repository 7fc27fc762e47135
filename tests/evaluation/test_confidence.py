"""Calibration of a model's top label, from its answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alliage.evaluation.answers import Answers
from alliage.evaluation.calibration import (
    dual_post_processing_gap,
    dual_smooth_calibration_error,
    expected_calibration_error,
    lower_calibration_distance,
    smooth_calibration_error,
)
from alliage.evaluation.confidence import (
    calibration_details,
    calibration_differences,
    calibration_metrics,
    confidence_bins,
    domain_details,
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
    for row in calibration_details(calibrated(), classes=True)[:5]:
        assert row.chance_low <= row.value <= row.chance_high
    for row in calibration_details(calibrated(sharper=3), classes=True)[:5]:
        assert row.value > row.chance_high
        assert row.low <= row.value
    assert row.low > row.chance_high  # of the gap: no doubt


def test_details_are_the_measures_on_the_top_label_and_on_each_class():
    answers = calibrated(sharper=2)
    shares = np.exp(answers.logits) / np.exp(answers.logits).sum(axis=1, keepdims=True)
    top, right = shares.max(axis=1), shares.argmax(axis=1) == answers.truth
    ece, smce, _, dual, dual_gap, lower = calibration_details(answers, classes=True)
    assert ece.value == pytest.approx(expected_calibration_error(top, right, 15))
    assert smce.value == pytest.approx(smooth_calibration_error(top, right))
    odds = np.log(top / (1 - top))
    assert dual.value == pytest.approx(dual_smooth_calibration_error(odds, right))
    assert dual_gap.value == pytest.approx(dual_post_processing_gap(odds, right))
    assert lower.value == pytest.approx(lower_calibration_distance(top, right), abs=1e-6)
    each = [smooth_calibration_error(shares[:, k], answers.truth == k) for k in range(3)]
    assert smce.classes_mean == pytest.approx(np.mean(each))
    assert smce.classes_largest == pytest.approx(max(each))
    assert np.isnan(calibration_details(answers, classes=False)[0].classes_mean)


def test_a_domain_may_be_off_where_all_together_are_not():
    # Sure at 0.75: always right on one domain, right half of the time on the other.
    logits = np.log(np.tile([0.25, 0.75], (400, 1)))
    truth = np.array([1, 1] * 100 + [1, 0] * 100)
    answers = Answers(logits, truth, np.arange(400), 400, ("news",) * 200 + ("talk",) * 200)
    assert calibration_metrics(answers)["smce"] == pytest.approx(0, abs=1e-12)
    each, worst = domain_details(answers)
    found = {(row.domain, row.metric): row for row in each}
    for domain in ("news", "talk"):
        row = found[domain, "smce"]
        assert (row.examples, row.value) == (200, pytest.approx(0.25))
        assert row.value > row.chance_high > 0
    assert {row.metric: row.value for row in worst} == pytest.approx(
        {"ece_worst_domain": 0.25, "smce_worst_domain": 0.25, "pgap_worst_domain": 0.0625}
    )
    assert all(row.value > row.chance_high for row in worst)
    assert domain_details(calibrated()) == ((), ())


def test_the_worst_of_many_small_domains_is_bad_by_chance_and_its_band_says_so():
    answers = replace(calibrated(count=400), domains=tuple(str(n % 20) for n in range(400)))
    each, worst = domain_details(answers)
    for row in worst:
        own = [one for one in each if f"{one.metric}_worst_domain" == row.metric]
        assert row.value == max(one.value for one in own)
        assert row.chance_low <= row.value <= row.chance_high
        assert row.chance_low > np.mean([one.chance_low for one in own])


def test_where_every_answer_is_right_nobody_knows_how_far_calibration_is_off():
    logits = np.zeros((60, 2))
    logits[:, 0] = np.random.default_rng(0).normal(3, 0.3, size=60)
    answers = Answers(logits, np.zeros(60, int), np.arange(60), 60)
    for row in calibration_details(answers, classes=False)[:5]:
        assert row.value > 0
        assert np.isnan([row.low, row.high]).all()
        assert row.chance_high > 0


def test_a_difference_of_calibration_is_that_of_the_measures():
    answers, sharper = calibrated(count=200), calibrated(count=200, sharper=4)
    found = calibration_differences(sharper, answers)
    own, other = calibration_metrics(sharper), calibration_metrics(answers)
    for name, difference in found.items():
        assert difference.value == pytest.approx(own[name] - other[name])
        assert difference.p < 0.01
        assert np.isnan([difference.low, difference.high]).all()
    same = calibration_differences(answers, answers)
    assert {(one.value, one.p) for one in same.values()} == {(0, 1)}


def test_sentences_change_sides_with_all_their_tokens():
    answers, sharper = calibrated(count=6), calibrated(count=6, sharper=3)
    owners = np.array([0, 0, 0, 0, 0, 0])
    first, second = (Answers(each.logits, each.truth, owners, 1) for each in (sharper, answers))
    # One sentence: whether it changes sides or not, the difference is as large.
    assert {one.p for one in calibration_differences(first, second).values()} == {1}
    other = Answers(answers.logits, answers.truth, np.array([0, 0, 0, 1, 1, 1]), 2)
    assert calibration_differences(first, other) == {}


def test_the_bins_add_up_to_the_error():
    answers = calibrated(sharper=2)
    bins = confidence_bins(answers)
    gaps = [abs(one.accuracy - one.confidence) * one.examples for one in bins]
    assert sum(gaps) / 300 == pytest.approx(calibration_metrics(answers)["ece"])
    assert sum(one.examples for one in bins) == 300
