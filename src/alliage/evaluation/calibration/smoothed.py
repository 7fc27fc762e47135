"""Smoothed reliability diagrams, and the error that chooses how smooth (arXiv:2309.12236)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import dct
from scipy.optimize import brentq

from alliage.evaluation.calibration.chance import LEVEL, REPEATS
from alliage.evaluation.calibration.checks import Floats, checked

POINTS = 101
LEAST_BANDWIDTH = 0.001
_CELLS = 2**14  # of the grid that predictions are shared out to
_GRID = np.linspace(0, 1, _CELLS + 1)


class Smoothed(NamedTuple):
    """A reliability diagram as a curve.

    Attributes:
        confidence: [points], from 0 to 1.
        accuracy: [points], share of label 1 around each confidence; NaN where less than half an
            example is.
        density: [points], of the predictions.
        bandwidth: standard deviation of the kernel.
        error: ∫ |accuracy − confidence| density, SmoothECE at this bandwidth.
    """

    confidence: Floats
    accuracy: Floats
    density: Floats
    bandwidth: float
    error: float


def smoothed_reliability(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    bandwidth: float | None = None,
    points: int = POINTS,
) -> Smoothed:
    """Residuals y − v averaged around each confidence, with a Gaussian reflected at 0 and 1.

    By default the bandwidth is the one that SmoothECE equals there, at least 0.001: the diagram
    shows no detail finer than the error.

    Args:
        probabilities: [n], of one event.
        labels: [n], 0 or 1.
        weights: [n], non-negative; all equal by default.
        bandwidth: from 0.001 to 1.
        points: of the curve.

    Raises:
        ValueError: an argument of another shape or range.
    """
    values, outcomes, mass = checked(probabilities, labels, weights)
    if bandwidth is not None and not LEAST_BANDWIDTH <= bandwidth <= 1:
        raise ValueError(f"bandwidth must lie in [{LEAST_BANDWIDTH}, 1], got {bandwidth}.")
    residuals = _waves(values, mass * (outcomes - values))
    if bandwidth is None:
        excess = _error(residuals, LEAST_BANDWIDTH) - LEAST_BANDWIDTH
        bandwidth = (
            brentq(lambda one: _error(residuals, one) - one, LEAST_BANDWIDTH, 1.0)
            if excess > 0
            else LEAST_BANDWIDTH
        )
    density = _smooth(_waves(values, mass), bandwidth)
    confidence = np.linspace(0, 1, points)
    return Smoothed(
        confidence,
        np.interp(confidence, _GRID, _accuracy(residuals, density, mass, bandwidth)),
        np.interp(confidence, _GRID, np.maximum(density, 0)),
        float(bandwidth),
        _error(residuals, bandwidth),
    )


def smoothed_null_band(
    probabilities: ArrayLike,
    bandwidth: float,
    *,
    points: int = POINTS,
    repeats: int = REPEATS,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Between what a smoothed diagram lies at each confidence if the predictions are calibrated.

    Args:
        probabilities: [n], of one event.
        bandwidth: of the diagram.
        points: of the curve.
        repeats: draws of all labels.
        level: share of the draws within, at each point on its own.
        seed: of the draws.

    Returns:
        lower and upper ends, [points]; NaN where the diagram is.

    Raises:
        ValueError: an argument of another shape or range.
    """
    values, _, mass = checked(probabilities, np.zeros(np.shape(probabilities)))
    density = _smooth(_waves(values, mass), bandwidth)
    confidence = np.linspace(0, 1, points)
    generator = np.random.default_rng(seed)
    curves = []
    for _ in range(repeats):
        labels = generator.random(len(values)) < values
        residuals = _waves(values, mass * (labels - values))
        accuracy = _accuracy(residuals, density, mass, bandwidth)
        curves.append(np.interp(confidence, _GRID, accuracy))
    low, high = np.quantile(curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _accuracy(residuals: Floats, density: Floats, mass: Floats, bandwidth: float) -> Floats:
    """Confidence plus the mean residual around it, on the grid."""
    example = (
        mass @ mass / (bandwidth * np.sqrt(2 * np.pi))
    )  # the density that one has at its place
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = np.where(density >= example / 2, _smooth(residuals, bandwidth) / density, np.nan)
    return np.clip(_GRID + offset, 0, 1)


def _waves(values: Floats, mass: Floats) -> Floats:
    """Cosine coefficients of masses on [0, 1], each shared out to the two nearest grid points."""
    place = values * _CELLS
    cell = np.minimum(place.astype(np.int64), _CELLS - 1)
    upper = mass * (place - cell)
    grid = np.bincount(cell, mass - upper, _CELLS + 1) + np.bincount(cell + 1, upper, _CELLS + 1)
    # The transform counts inner points twice.
    waves: Floats = dct(np.concatenate([grid[:1], grid[1:-1] / 2, grid[-1:]]), type=1)
    return waves


def _smooth(waves: Floats, bandwidth: float) -> Floats:
    """Density on the grid: a Gaussian reflected at 0 and 1 damps each cosine."""
    damping = np.exp(-0.5 * (np.pi * bandwidth * np.arange(_CELLS + 1)) ** 2)
    density: Floats = dct(waves * damping, type=1)
    return density


def _error(residuals: Floats, bandwidth: float) -> float:
    return float(np.trapezoid(np.abs(_smooth(residuals, bandwidth)), dx=1 / _CELLS))
