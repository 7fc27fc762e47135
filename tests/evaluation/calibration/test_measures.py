"""Reference values in closed form and inequalities of the theory, all measures together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.special import expit, logit

from alliage.evaluation.calibration import (
    dual_post_processing_gap,
    dual_smooth_calibration_error,
    expected_calibration_error,
    lower_calibration_distance,
    post_processing_gap,
    smooth_calibration_error,
)
from tests.evaluation.calibration.cases import predictions

PRIMAL = [
    expected_calibration_error,
    lower_calibration_distance,
    post_processing_gap,
    smooth_calibration_error,
]
DUAL = [dual_post_processing_gap, dual_smooth_calibration_error]
F_EPS = [1, 0, 1, 0], [0.05, 0.45, 0.45, 0.05]  # 002: ε and 1 − ε for a truth of 0.1 and 0.9


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.2, 0.25])
def test_two_points_around_a_half(eps):
    values, labels = [0.5 - eps, 0.5 + eps], [0, 1]
    assert smooth_calibration_error(values, labels) == pytest.approx(eps * (0.5 - eps), abs=1e-15)
    distance = lower_calibration_distance(values, labels)
    assert distance == pytest.approx(eps * (1 - 2 * eps), abs=1e-12)
    assert post_processing_gap(values, labels) == pytest.approx(eps - 3 * eps**2, abs=1e-15)


def test_two_points_around_a_half_in_logits():
    logits = logit(np.array([0.4, 0.6]))
    assert dual_smooth_calibration_error(logits, [0, 1]) == pytest.approx(0.0405465108, abs=1e-10)
    # Each logit, ±ln 1.5, moves out by half of their distance.
    found = dual_post_processing_gap(logits, [0, 1])
    assert found == pytest.approx(np.log(1 + 1 / 1.5) - np.log(1 + 1 / 2.25), abs=1e-14)
    assert found == pytest.approx(0.1431008436, abs=1e-10)


@pytest.mark.parametrize("eps", [0.01, 0.05])
def test_the_family_f_eps_of_the_course(eps):
    labels, weights = F_EPS
    values = [eps, eps, 1 - eps, 1 - eps]
    found = smooth_calibration_error(values, labels, weights=weights)
    assert found == pytest.approx((0.1 - eps) * (1 - 2 * eps) / 2, abs=1e-15)
    # The logits are so far apart that w is ±1: the dual error is the expected one.
    dual = dual_smooth_calibration_error(logit(values), labels, weights=weights)
    share = min(1.0, logit(1 - eps) / 4)
    assert dual == pytest.approx((0.1 - eps) * share, abs=1e-14)


def test_the_course_s_reference_of_f_eps():
    labels, weights = F_EPS
    values = [0.01, 0.01, 0.99, 0.99]
    found = smooth_calibration_error(values, labels, weights=weights)
    assert found == pytest.approx(0.0441, abs=1e-15)
    found = dual_smooth_calibration_error(logit(values), labels, weights=weights)
    assert found == pytest.approx(0.09, abs=1e-14)


def test_one_value_half_positive():
    values, labels = [0.8] * 4, [1, 0, 1, 0]
    for measure in (
        expected_calibration_error, smooth_calibration_error, lower_calibration_distance,
    ):  # fmt: skip
        assert measure(values, labels) == pytest.approx(0.3, abs=1e-12)
    assert post_processing_gap(values, labels) == pytest.approx(0.09, abs=1e-15)
    # ln 5 − ½·ln 4 nats before, ln 2 after.
    found = dual_post_processing_gap(logit(np.array(values)), labels)
    assert found == pytest.approx(np.log(5) - 0.5 * np.log(4) - np.log(2), abs=1e-14)
    assert found == pytest.approx(0.2231435513, abs=1e-10)


def test_a_half_for_all_is_calibrated():
    # 002 writes ECE(f₀) = ½ for the limit of the two points; it is the limit only.
    for measure in PRIMAL:
        assert measure([0.5, 0.5], [0, 1]) == pytest.approx(0, abs=1e-15)
    for measure in DUAL:
        assert measure([0.0, 0.0], [0, 1]) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("measure", "all_wrong"),
    [
        (expected_calibration_error, 1.0),
        (smooth_calibration_error, 0.5),  # w = ∓½
        (lower_calibration_distance, 0.5),  # all move to a half
        (post_processing_gap, 0.75),  # a loss of 1 before, of ¼ after
    ],
)
def test_certain_and_right_or_wrong(measure, all_wrong):
    assert measure([0, 1, 1], [0, 1, 1]) == pytest.approx(0, abs=1e-15)
    assert measure([0, 1], [1, 0]) == pytest.approx(all_wrong, abs=1e-12)


@given(predictions())
@settings(max_examples=50, deadline=None)
def test_inequalities(case):
    values, labels, weights = case
    ece = expected_calibration_error(values, labels, weights=weights)
    smooth = smooth_calibration_error(values, labels, weights=weights)
    distance = lower_calibration_distance(values, labels, weights=weights)
    gap = post_processing_gap(values, labels, weights=weights)
    assert distance / 2 - 1e-9 <= smooth <= 2 * distance + 1e-9
    assert distance <= ece + 1e-9
    assert smooth <= ece + 1e-15
    assert smooth**2 - 1e-14 <= gap <= 2 * smooth + 1e-14


@given(predictions())
@settings(max_examples=150, deadline=None)
def test_inequalities_of_the_dual_pair(case):
    values, labels, weights = case
    with np.errstate(divide="ignore"):
        logits = logit(values)  # infinite at 0 and 1
    smooth = dual_smooth_calibration_error(logits, labels, weights=weights)
    gap = dual_post_processing_gap(logits, labels, weights=weights)
    assert smooth**2 / 2 - 1e-12 <= gap / 4 <= smooth + 1e-12
    primal = smooth_calibration_error(expit(logits), labels, weights=weights)
    assert primal <= smooth + 1e-12  # 002, proposition 2.5


@pytest.mark.parametrize("measure", [*PRIMAL, *DUAL])
def test_repeating_an_example_is_doubling_its_weight(measure):
    repeated = measure([0.3, 0.3, 0.9, 0.3, 0.5], [0, 1, 1, 1, 0])
    weighted = measure([0.9, 0.3, 0.5, 0.3], [1, 0, 0, 1], weights=[1, 1, 1, 2])
    assert weighted == pytest.approx(repeated, abs=1e-9)


@pytest.mark.parametrize("measure", [*PRIMAL, *DUAL])
@pytest.mark.parametrize(
    ("values", "labels", "more"),
    [
        ([float("nan")], [1], {}),
        ([0.5], [2], {}),
        ([0.5], [float("nan")], {}),
        ([0.5, 0.5], [1], {}),
        ([], [], {}),
        ([[0.5]], [[1]], {}),
        ([0.5], [1], {"weights": [-1]}),
        ([0.5], [1], {"weights": [0]}),
        ([0.5], [1], {"weights": [float("inf")]}),
        ([0.5], [1], {"weights": [float("nan")]}),
        ([0.5], [1], {"weights": [1, 1]}),
    ],
)
def test_what_is_no_prediction_is_refused(measure, values, labels, more):
    with pytest.raises(ValueError, match=r"[Ee]xpected|must"):
        measure(values, labels, **more)


@pytest.mark.parametrize("measure", PRIMAL)
@pytest.mark.parametrize("value", [1.1, -1e-9, float("inf")])
def test_what_is_no_probability_is_refused(measure, value):
    with pytest.raises(ValueError, match=r"Probabilities must lie in \[0, 1\]"):
        measure([0.5, value], [1, 0])
