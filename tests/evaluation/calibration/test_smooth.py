"""Exactness against HiGHS, and against rational numbers where HiGHS's tolerance is too coarse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.special import expit, logit

from alliage.evaluation.calibration import dual_smooth_calibration_error, smooth_calibration_error
from tests.evaluation.calibration.cases import (
    exact_largest_product,
    grouped,
    largest_product,
    predictions,
)


@given(predictions())
@settings(max_examples=200, deadline=None)
def test_as_highs(case):
    values, mass, positive = grouped(*case)
    found = smooth_calibration_error(*case[:2], weights=case[2])
    expected = largest_product(positive - mass * values, np.diff(values))
    assert found == pytest.approx(expected, abs=1e-12)


@given(predictions())
@settings(max_examples=100, deadline=None)
def test_the_dual_as_highs(case):
    probabilities, labels, weights = case
    logits = logit(np.clip(probabilities, 1e-3, 1 - 1e-3))
    values, mass, positive = grouped(logits, labels, weights)
    found = dual_smooth_calibration_error(logits, labels, weights=weights)
    expected = largest_product(positive - mass * expit(values), np.diff(values) / 4)
    assert found == pytest.approx(expected, abs=1e-12)


def spaced(kind, n=24):
    rng = np.random.default_rng(7)
    cluster = np.arange(n // 2) / n**4
    return {
        # Half of the points carry little and lie close together, the others pull to and fro.
        "a cluster, then heavy points": np.concatenate([cluster, 0.5 + cluster]),
        "clusters at both ends": np.concatenate([cluster, 1 - cluster]),
        "neighbouring numbers": 0.5 + np.spacing(0.5) * np.arange(n),
        "halving gaps": 0.5 ** np.arange(n),
        "all over the exponents": 10.0 ** rng.uniform(-30, 0, n),
    }[kind]


@pytest.mark.parametrize("labels", ["to and fro", "random", "all one"])
@pytest.mark.parametrize(
    "kind",
    [
        "a cluster, then heavy points", "clusters at both ends", "neighbouring numbers",
        "halving gaps", "all over the exponents",
    ],
)  # fmt: skip
def test_adversarial_spacing(kind, labels):
    values = np.sort(spaced(kind))
    n = len(values)
    outcomes = {
        "to and fro": np.arange(n) % 2,
        "random": np.random.default_rng(3).integers(0, 2, n),
        "all one": np.ones(n),
    }[labels].astype(float)
    distinct, mass, positive = grouped(values, outcomes, np.ones(n))
    expected = exact_largest_product(positive - mass * distinct, np.diff(distinct))
    assert smooth_calibration_error(values, outcomes) == pytest.approx(expected, abs=1e-14)


def test_infinite_logits_are_predictions_of_0_and_1():
    logits = [-np.inf, -np.inf, 0.0, np.inf]
    # Surpluses ¼, −⅛ … apart by more than 2: w is ±1 everywhere.
    found = dual_smooth_calibration_error(logits, [1, 0, 0, 0])
    assert found == pytest.approx(0.25 + 0.125 + 0.25, abs=1e-15)


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_all_equal(n):
    assert smooth_calibration_error(np.full(n, 0.25), np.ones(n)) == pytest.approx(0.75, abs=1e-15)


def test_order_does_not_matter():
    rng = np.random.default_rng(0)
    values = np.round(rng.random(500), 2)
    labels = rng.integers(0, 2, 500)
    order = rng.permutation(500)
    found = smooth_calibration_error(values[order], labels[order])
    assert found == pytest.approx(smooth_calibration_error(values, labels), abs=1e-16)


def test_a_hundred_thousand_points_as_their_weighted_levels():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 101, 100_000) / 100
    labels = (rng.random(100_000) < values**2).astype(float)
    distinct, mass, positive = grouped(values, labels, np.ones(100_000))
    expected = largest_product(positive - mass * distinct, np.diff(distinct))
    assert smooth_calibration_error(values, labels) == pytest.approx(expected, abs=1e-13)


@pytest.mark.slow
def test_a_million_points_that_pull_to_and_fro():
    # Stacks in place of heaps would move half a million vertices at each of the heavy points.
    n = 1_000_000
    cluster = np.arange(n // 2) * 1e-12
    values = np.concatenate([cluster, 0.5 + cluster])
    labels = np.concatenate([np.zeros(n // 2), np.arange(n // 2) % 2])
    weights = np.concatenate([np.full(n // 2, 1e-6), np.ones(n // 2)])
    assert 0 <= smooth_calibration_error(values, labels, weights=weights) < 1e-5
