"""Optimality of the gaps: no change can gain more by a linear program, and one gains as much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import LinearConstraint, minimize
from scipy.special import expit, logit

from alliage.evaluation.calibration import dual_post_processing_gap, post_processing_gap
from alliage.evaluation.calibration.checks import Level
from alliage.evaluation.calibration.gap import best_change
from tests.evaluation.calibration.cases import grouped, largest_product, predictions


@given(predictions())
@settings(max_examples=150, deadline=None)
def test_the_best_change_is_allowed_and_none_is_better(case):
    values, mass, positive = grouped(*case)
    change = best_change(Level(values, mass, positive))
    assert (np.abs(np.diff(change)) <= np.diff(values) + 1e-14).all()
    assert (values + change >= -1e-12).all()  # the box [0, 1] needs no clipping
    assert (values + change <= 1 + 1e-12).all()
    gap = post_processing_gap(*case[:2], weights=case[2])
    before, after = positive * (1 - values) ** 2, positive * (1 - values - change) ** 2
    before += (mass - positive) * values**2
    after += (mass - positive) * (values + change) ** 2
    assert gap == pytest.approx((before - after).sum(), abs=1e-14)
    # The gain is concave: all of it lies below its tangent, whose top HiGHS finds.
    slope = 2 * (positive - mass * (values + change))
    assert largest_product(slope, np.diff(values)) - slope @ change <= 1e-12


@given(predictions(size=12))
@settings(max_examples=60, deadline=None)
def test_the_gap_as_a_general_solver_finds_it(case):
    values, mass, positive = grouped(*case)
    m = len(values)
    surplus = positive - mass * values
    found = minimize(
        lambda change: mass @ change**2 - 2 * surplus @ change,
        np.zeros(m),
        jac=lambda change: 2 * (mass * change - surplus),
        method="SLSQP",
        constraints=[
            LinearConstraint(np.diff(np.eye(m), axis=0), -np.diff(values), np.diff(values))
        ]
        if m > 1
        else [],
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    gap = post_processing_gap(*case[:2], weights=case[2])
    assert gap == pytest.approx(-found.fun, abs=1e-9)


@given(predictions(size=12))
@settings(max_examples=60, deadline=None)
def test_the_dual_gap_as_a_general_solver_finds_it(case):
    probabilities, labels, weights = case
    logits = logit(np.clip(probabilities, 1e-3, 1 - 1e-3))
    values, mass, positive = grouped(logits, labels, weights)
    m = len(values)
    found = minimize(
        lambda c: mass @ np.logaddexp(0, values + c) - positive @ c,
        np.zeros(m),
        jac=lambda c: mass * expit(values + c) - positive,
        bounds=[(-4, 4)] * m,
        method="SLSQP",
        constraints=[
            LinearConstraint(np.diff(np.eye(m), axis=0), -np.diff(values), np.diff(values))
        ]
        if m > 1
        else [],
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    before = mass @ np.logaddexp(0, values)
    gap = dual_post_processing_gap(logits, labels, weights=weights)
    assert gap == pytest.approx(before - found.fun, abs=1e-9)


@given(predictions())
@settings(max_examples=100, deadline=None)
def test_one_shift_of_all_logits_gains_no_more(case):
    probabilities, labels, weights = case
    logits = 20 * (probabilities - 0.5)
    gap = dual_post_processing_gap(logits, labels, weights=weights)
    losses = [
        np.average(np.logaddexp(0, logits + c) - labels * (logits + c), weights=weights)
        for c in np.linspace(-4, 4, 81)
    ]
    assert losses[40] - min(losses) <= gap + 1e-13


def test_infinite_logits_move_by_at_most_4():
    # At +∞ and wrong: ln(1 + eᵗ) − ln(1 + eᵗ⁻⁴) → 4; at −∞ and right: nothing.
    assert dual_post_processing_gap([np.inf], [0]) == pytest.approx(4, abs=1e-14)
    assert dual_post_processing_gap([-np.inf, np.inf], [0, 0]) == pytest.approx(2, abs=1e-14)
    assert dual_post_processing_gap([-np.inf, np.inf], [0, 1]) == 0
    assert dual_post_processing_gap([1e4, 1e5], [0, 0]) == pytest.approx(4, abs=1e-12)


def test_far_points_move_freely():
    # Alone, each of the logits would go to that of its share, ln 3; all of them can.
    logits = np.repeat([-300.0, 0.0, 300.0], 4)
    labels = [0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1]
    expected = (np.log(2) - (2 * np.log(2) - 0.75 * np.log(3))) / 3
    assert dual_post_processing_gap(logits, labels) == pytest.approx(expected, abs=1e-14)
