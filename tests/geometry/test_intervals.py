import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from alliage.geometry.intervals import mean_interval


def test_agrees_with_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=(3, 40))
    low, high = mean_interval(values, 0.9, draws=20000)
    for row, a, b in zip(values, low, high, strict=True):
        expected = bootstrap(
            (row,), np.mean, confidence_level=0.9, n_resamples=20000, method="percentile", rng=1
        ).confidence_interval
        error = 0.05 * (expected.high - expected.low)
        assert a == pytest.approx(expected.low, abs=error)
        assert b == pytest.approx(expected.high, abs=error)


def test_two_values_by_hand():
    """Draws give 0, ½ or 1 with the chances ¼, ½, ¼."""
    assert mean_interval([0.0, 1.0], 0.95) == (0.0, 1.0)
    assert mean_interval([0.0, 1.0], 0.4) == (0.5, 0.5)


def test_the_same_every_time_and_absent_values_are_left_out():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [math.nan, 2.0, math.nan, math.nan]])
    low, high = mean_interval(values)
    assert mean_interval(values)[0].tolist()[0] == low[0]
    assert 1 <= low[0] < 2.5 < high[0] <= 4
    assert math.isnan(low[1])
    assert math.isnan(high[1])
    assert np.isnan(mean_interval([[3.0], [4.0]])).all()
    with_gap = mean_interval([1.0, math.nan, 3.0])
    assert with_gap == (1.0, 3.0)


def test_draws_in_parts_are_the_same(monkeypatch):
    values = np.random.default_rng(1).normal(size=(2, 9))
    whole = mean_interval(values)
    monkeypatch.setattr("alliage.geometry.intervals._AT_ONCE", 100)
    np.testing.assert_array_equal(mean_interval(values), whole)


def test_coverage_of_a_few_and_of_many():
    """What the docstring says of 5 values, and 95 % of 60."""
    generator = np.random.default_rng(2)
    for m, lowest, highest in ((5, 0.80, 0.88), (60, 0.92, 0.97)):
        low, high = mean_interval(generator.normal(size=(2000, m)), draws=1000)
        held = ((low <= 0) & (high >= 0)).mean()
        assert lowest < held < highest


def test_a_wrong_level_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        mean_interval([1.0, 2.0], 95)
