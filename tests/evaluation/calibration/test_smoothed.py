"""The smoothed diagram against plain sums of mirrored Gaussians and against relplot."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from alliage.evaluation.calibration import smoothed_null_band, smoothed_reliability

GOLDEN = 0.6180339887498949


def mirrored(at, values, width):
    """[at, values] of the Gaussian reflected at 0 and 1, image by image."""
    images = [sign * values + 2 * k for k in range(-4, 5) for sign in (1, -1)]
    scaled = [(at[:, None] - image) / width for image in images]
    return sum(np.exp(-0.5 * one**2) for one in scaled) / (width * np.sqrt(2 * np.pi))


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    values = rng.beta(0.3, 0.3, 400)
    labels = (rng.random(400) < values**1.5).astype(float)
    return values, labels, rng.random(400)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.5])
def test_the_curve_by_direct_sums(examples, width):
    values, labels, weights = examples
    found = smoothed_reliability(values, labels, weights=weights, bandwidth=width, points=2001)
    kernel = mirrored(found.confidence, values, width)
    density = kernel @ weights / weights.sum()
    residual = kernel @ (weights * (labels - values)) / weights.sum()
    assert found.density == pytest.approx(density, abs=1e-4)
    expected = np.clip(found.confidence + residual / density, 0, 1)
    drawn = np.isfinite(found.accuracy)
    assert found.accuracy[drawn] == pytest.approx(expected[drawn], abs=1e-4)
    # Half an example: of the density of one at its own place.
    one = (weights**2).sum() / weights.sum() ** 2 / (width * np.sqrt(2 * np.pi))
    assert (density[drawn] > 0.499 * one).all()
    assert (density[~drawn] < 0.501 * one).all()
    error = np.trapezoid(np.abs(residual), found.confidence)
    assert found.error == pytest.approx(error, abs=1e-4)
    assert np.trapezoid(found.density, found.confidence) == pytest.approx(1, abs=1e-4)


def test_the_bandwidth_is_the_error(examples):
    found = smoothed_reliability(*examples[:2])
    assert found.error == pytest.approx(found.bandwidth, abs=1e-9)
    assert smoothed_reliability(*examples[:2], bandwidth=found.bandwidth).error == found.error


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_as_relplot(monkeypatch, power):
    relplot = pytest.importorskip("relplot")
    # Its own mesh of 200 points is off by some 1e-4. Mass within 1/1000 of 0 and 1, which it counts
    # half, is left out.
    monkeypatch.setattr(relplot.config, "smECE_mesh_pts", 20_001)
    rng = np.random.default_rng(1)
    values = rng.uniform(0.05, 0.95, 2000)
    labels = (rng.random(2000) < values**power).astype(float)
    for width in (0.01, 0.05):
        found = smoothed_reliability(values, labels, bandwidth=width).error
        assert found == pytest.approx(relplot.smECE_sigma(values, labels, width), abs=5e-5)
    found = smoothed_reliability(values, labels)
    error, width = relplot.smECE(values, labels, return_width=True)
    assert found.bandwidth == pytest.approx(width, abs=1 / 1024)
    assert found.error == pytest.approx(error, abs=1 / 1024)


def test_the_reference_of_relplot():
    # f = (i + ½)/n; the residuals have one sign, so that no smoothing cancels any: their sum is
    # 0.166, where relplot says 0.1660309892, and 0.1656897866 at 0.05.
    i = np.arange(1000)
    values = (i + 0.5) / 1000
    labels = (np.modf(GOLDEN * i)[0] < values**2).astype(float)
    found = smoothed_reliability(values, labels)
    assert found.error == pytest.approx(0.1660309892, abs=1e-4)
    assert found.bandwidth == pytest.approx(0.1669921875, abs=1 / 1024 + 1e-4)
    assert found.error == pytest.approx(np.mean(values - labels), abs=1e-9)
    at_005 = smoothed_reliability(values, labels, bandwidth=0.05).error
    assert at_005 == pytest.approx(0.1656897866, abs=5e-4)


def test_a_place_without_predictions_has_no_accuracy():
    found = smoothed_reliability([0.125] * 50, [0] * 50, bandwidth=0.01, points=9)
    assert np.isnan(found.accuracy[-1])
    assert found.confidence[1] == 0.125
    assert found.accuracy[1] == pytest.approx(0, abs=1e-12)


def test_a_calibrated_model_is_drawn_as_finely_as_can_be():
    found = smoothed_reliability([0.5] * 4, [0, 1, 0, 1])
    assert (found.bandwidth, found.error) == (0.001, pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize("width", [0, 1.1, float("nan")])
def test_no_bandwidth(width):
    with pytest.raises(ValueError, match="bandwidth must lie in"):
        smoothed_reliability([0.5], [1], bandwidth=width)


def test_the_null_band_of_one_value_is_binomial():
    # Accuracy around ½ is K/100 with K ~ Bin(100, ½).
    low, high = smoothed_null_band([0.5] * 100, 0.05, repeats=1000, level=0.9)
    expected = stats.binom.ppf([0.05, 0.95], 100, 0.5) / 100
    assert [low[50], high[50]] == pytest.approx(expected, abs=0.0101)
    assert np.isnan(low[0])


def test_curves_of_calibrated_models_lie_in_their_bands():
    shares = []
    for trial in range(1, 21):
        rng = np.random.default_rng(trial)
        values = rng.random(1000)
        curve = smoothed_reliability(values, rng.random(1000) < values, bandwidth=0.1)
        low, high = smoothed_null_band(values, 0.1, repeats=100, seed=100 + trial)
        shares.append(((low <= curve.accuracy) & (curve.accuracy <= high)).mean())
        off = smoothed_reliability(values, rng.random(1000) < values**2, bandwidth=0.1)
        assert (off.accuracy[40:60] < low[40:60]).all()
    # 0.95 expected, with some five independent stretches in each curve.
    assert np.mean(shares) == pytest.approx(0.95, abs=0.05)
