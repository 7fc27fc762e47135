from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from alliage.evaluation.calibration import lower_calibration_distance
from tests.evaluation.calibration.cases import grid_distance, grouped, predictions

CELLS = 120


@given(predictions(size=10))
@settings(max_examples=25, deadline=None)
def test_a_grid_of_places_is_off_by_at_most_half_a_cell(case):
    found = lower_calibration_distance(*case[:2], weights=case[2])
    on_grid = grid_distance(*grouped(*case), CELLS)
    assert found - 1e-9 <= on_grid <= found + 0.5 / CELLS + 1e-9


def test_places_that_are_no_predictions_are_found():
    # Positives at 0.3 and negatives at 0.7001 meet halfway, which is on no grid: (0.7001 − 0.3)/2.
    found = lower_calibration_distance([0.3, 0.7001], [1, 0])
    assert found == pytest.approx(0.20005, abs=1e-9)


def test_three_to_one():
    # Three positives at 0.4 meet one negative at 0.9 at ¾: (3 · 0.35 + 0.15) / 4.
    found = lower_calibration_distance([0.4] * 3 + [0.9], [1, 1, 1, 0])
    assert found == pytest.approx(0.3, abs=1e-9)


@pytest.mark.parametrize("step", [0.1, 0.01])
def test_rounding_changes_by_at_most_half_a_step(step):
    rng = np.random.default_rng(0)
    values = rng.random(200)
    labels = (rng.random(200) < values**2).astype(float)
    exact = lower_calibration_distance(values, labels, step=0)
    rounded = lower_calibration_distance(values, labels, step=step)
    assert exact != rounded
    assert abs(exact - rounded) <= step / 2


def test_many_predictions_are_rounded_by_themselves():
    rng = np.random.default_rng(0)
    values = rng.random(20_000)
    labels = (rng.random(20_000) < np.clip(values + 0.1, 0, 1)).astype(float)
    found = lower_calibration_distance(values, labels)
    # Moving all by 0.1, which is capped for the last tenth: 0.09 + 0.1 · 0.05.
    assert found == pytest.approx(0.095, abs=0.01)


@pytest.mark.parametrize("step", [-0.1, 1.5, float("nan")])
def test_no_step(step):
    with pytest.raises(ValueError, match="step must lie in"):
        lower_calibration_distance([0.5], [1], step=step)
