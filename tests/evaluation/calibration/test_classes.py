from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from alliage.evaluation.calibration import (
    by_domain,
    confidence,
    dual_smooth_calibration_error,
    expected_calibration_error,
    log_odds,
    one_against_rest,
    smooth_calibration_error,
)

ROWS = [[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]
TRUTH = [0, 1, 1, 2]


def test_confidence_by_hand():
    found = confidence(ROWS, TRUTH)
    assert found.probabilities.tolist() == [0.7, 0.7, 0.6, 0.6]
    assert found.labels.tolist() == [1, 0, 1, 1]
    # At 0.7: |1 − 1.4|; at 0.6: |2 − 1.2|.
    assert expected_calibration_error(*found) == pytest.approx(0.3)


def test_one_against_rest_by_hand():
    found = one_against_rest(expected_calibration_error, ROWS, TRUTH)
    # Class 0: 0.7 twice, once right: 0.4; 0.1 and 0.2, wrong. Class 1: 0.2 three times, once right:
    # 0.4; 0.6, right: 0.4. Class 2: 0.1 twice, wrong: 0.2; 0.3 wrong; 0.6 right: 0.4.
    assert found.values == pytest.approx(np.array([0.7, 0.8, 0.9]) / 4)
    assert found.mean == pytest.approx(0.2)
    assert found.largest == pytest.approx(0.225)


def test_calibrated_on_all_and_on_no_domain():
    values, labels, domains = [0.5] * 4, [1, 1, 0, 0], ["fr", "fr", "en", "en"]
    assert smooth_calibration_error(values, labels) == 0
    found = by_domain(smooth_calibration_error, values, labels, domains)
    assert found.rows == (("en", 2, 0.5), ("fr", 2, 0.5))
    assert found.largest == 0.5


def test_log_odds_are_logits_against_the_rest():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 20, (200, 5))
    log_shares = log_softmax(logits, axis=1)
    rest = np.stack(
        [np.logaddexp.reduce(np.delete(log_shares, k, axis=1), axis=1) for k in range(5)], axis=1
    )
    assert log_odds(softmax(logits, axis=1)) == pytest.approx(log_shares - rest, rel=1e-12)


def test_log_odds_of_certain_rows_are_infinite_and_taken():
    odds = log_odds([[1.0, 0.0], [1.0, 0.0]])
    assert odds.tolist() == [[np.inf, -np.inf]] * 2
    assert dual_smooth_calibration_error(odds[:, 0], [1, 0]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.49]], [0, 1], r"sum to 1; row 1 sums to 0\.99"),
        ([[0.5, 0.5], [1.5, -0.5]], [0, 1], r"lie in \[0, 1\]; row 1 is \[1\.5, -0\.5\]"),
        ([[0.5, float("nan")]], [0], "lie in"),
        ([[0.5, 0.5]], [2], r"classes from 0 to 1; row 0 has 2"),
        ([[0.5, 0.5]], [0.5], r"classes from 0 to 1; row 0 has 0\.5"),
        ([[0.5, 0.5]], [0, 1], "Expected"),
        ([0.5, 0.5], [0, 1], "Expected"),
        (np.empty((0, 2)), [], "Expected"),
    ],
)
def test_wrong_rows_are_named(rows, labels, message):
    with pytest.raises(ValueError, match=message):
        confidence(rows, labels)
    with pytest.raises(ValueError, match=message):
        one_against_rest(smooth_calibration_error, rows, labels)


def test_float32_rows_are_taken_and_stay_in_range():
    rows = softmax(np.random.default_rng(0).normal(0, 9, (500, 7)).astype(np.float32), axis=1)
    assert confidence(rows, np.zeros(500, int)).probabilities.max() <= 1


def test_domains_of_another_length():
    with pytest.raises(ValueError, match="Expected"):
        by_domain(smooth_calibration_error, [0.5, 0.5], [0, 1], ["a"])
