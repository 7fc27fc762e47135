from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats

from alliage.evaluation.calibration import (
    bootstrap_band,
    expected_calibration_error,
    null_band,
    smooth_calibration_error,
)


def test_the_null_of_one_value_is_binomial():
    # |K − 50| / 100 with K ~ Bin(100, ½).
    band = null_band(smooth_calibration_error, [0.5] * 100, repeats=4000, level=0.9)
    counts = np.arange(101)
    sizes = np.abs(counts - 50) / 100
    chances = stats.binom.pmf(counts, 100, 0.5)
    # Quantiles of a discrete law: no more than 5 % on either side, and no more within than needed.
    for above, end in ((False, band.low), (True, band.high)):
        beyond = sizes > end + 1e-9 if above else sizes < end - 1e-9
        at_or_beyond = sizes > end - 1e-9 if above else sizes < end + 1e-9
        assert chances[beyond].sum() <= 0.06
        assert chances[at_or_beyond].sum() >= 0.04


def test_calibrated_predictions_fall_in_their_band():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(40):
        values = rng.random(300)
        labels = (rng.random(300) < values).astype(float)
        band = null_band(smooth_calibration_error, values, repeats=100, level=0.9, seed=trial)
        inside += band.low <= smooth_calibration_error(values, labels) <= band.high
    assert 30 <= inside <= 40  # 36 expected; below 30 once in 100


def test_the_same_seed_gives_the_same_band():
    values = np.linspace(0, 1, 50)
    bands = [null_band(smooth_calibration_error, values, seed=seed) for seed in (1, 1, 2)]
    assert bands[0] == bands[1] != bands[2]


def test_the_bootstrap_of_one_value_is_binomial():
    # 0.9 for all and K of 200 right: |K/200 − 0.9|; resampled K* ~ Bin(200, 0.6).
    labels = np.repeat([1, 0], [120, 80])
    band = bootstrap_band(smooth_calibration_error, [0.9] * 200, labels, repeats=4000, level=0.9)
    low, high = stats.binom.ppf([0.05, 0.95], 200, 0.6) / 200
    assert band.low == pytest.approx(0.6 - (0.9 - low), abs=0.0051)
    assert band.high == pytest.approx(0.6 - (0.9 - high), abs=0.0051)


def test_the_interval_of_a_calibrated_model_holds_0():
    # The percentile interval lies above it: resamples are biased upwards.
    rng = np.random.default_rng(0)
    values = rng.random(500)
    labels = (rng.random(500) < values).astype(float)
    for measure in (smooth_calibration_error, partial(expected_calibration_error, bins=15)):
        band = bootstrap_band(measure, values, labels)
        assert band.low == 0
        assert band.high > 0


def test_groups_are_drawn_as_a_whole():
    # 20 sentences of 10 alike tokens are 20 examples, not 200: the interval is √10 times as wide.
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.permutation(np.repeat([1, 0], [12, 8])), 10)
    sentences = np.repeat(np.arange(20), 10)
    values = np.full(200, 0.95)
    whole = bootstrap_band(smooth_calibration_error, values, labels, groups=sentences, repeats=2000)
    apart = bootstrap_band(smooth_calibration_error, values, labels, repeats=2000)
    ratio = (whole.high - whole.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)


def test_groups_of_another_length():
    with pytest.raises(ValueError, match=r"Expected groups \[2\], got \[1\]"):
        bootstrap_band(smooth_calibration_error, [0.5, 0.5], [0, 1], groups=[0])
