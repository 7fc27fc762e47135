"""Post-processing gap: what the best gentle change of the predictions gains in loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from alliage.evaluation.calibration.checks import Floats, Level, checked, checked_logits, levels
from alliage.evaluation.calibration.smooth import LIPSCHITZ

_STEPS = 100  # of Newton's method; some ten are usual
_PRECISION = 1e-14


def post_processing_gap(
    probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Post-processing gap of the squared loss: max E[(y − v)² − (y − κ(v))²] over gentle κ.

    κ(v) − v is 1-Lipschitz, so κ rises with slopes of at most 2: a Lipschitz isotonic regression,
    solved exactly by dynamic programming. Tied to the smooth calibration error:
    smCE² ≤ pGap ≤ 2·smCE (arXiv:2305.18764).

    Args:
        probabilities: [n], of the positive class, in [0, 1].
        labels: [n], 0 or 1.
        weights: [n], non-negative; all equal by default.

    Returns:
        in [0, 1]; 0 is calibrated.

    Raises:
        ValueError: an argument of another shape or range.
    """
    found = levels(checked(probabilities, labels, weights))
    change = best_change(found)
    return max(0.0, float(change @ (2 * found.surplus - found.mass * change)))


def best_change(found: Level) -> Floats:
    """η(v) = κ(v) − v at each distinct prediction, for the κ that the gap compares with, [m]."""
    from alliage.evaluation.calibration.kernels import lipschitz_fit

    change: Floats = lipschitz_fit(found.mass, found.surplus, np.diff(found.values), 1.0)
    return change


def dual_post_processing_gap(
    logits: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Post-processing gap of cross-entropy: max E[ℓ(y, t) − ℓ(y, t + η(t))] over gentle η.

    ℓ(y, t) = ln(1 + eᵗ) − yt; η is 1-Lipschitz with |η| ≤ 4. Tied to the dual smooth calibration
    error: ½·smCE*² ≤ ¼·pGap* ≤ smCE* (arXiv:2305.18764). By Newton's method, each step of which is
    an exact Lipschitz regression, until a step gains less than 1e-14.

    Args:
        logits: [n], of the positive class; of infinite ones the limit is taken.
        labels: [n], 0 or 1.
        weights: [n], non-negative; all equal by default.

    Returns:
        in nats, in [0, 4]; 0 is calibrated.

    Raises:
        ValueError: an argument of another shape or range.
    """
    from alliage.evaluation.calibration.kernels import lipschitz_fit

    found = levels(checked_logits(logits, labels, weights))
    bound = 1 / LIPSCHITZ
    shares = expit(found.values)
    gaps = np.minimum(np.diff(found.values), 2 * bound)

    def gained(change: Floats) -> float:
        # ln(1 + eᵗ⁺ᶯ) − ln(1 + eᵗ), which holds at infinite t too.
        rise = np.log1p(shares * np.expm1(change))
        return float(found.positive @ change - found.mass @ rise)

    change, best = np.zeros_like(shares), 0.0
    for _ in range(_STEPS):
        changed = expit(found.values + change)
        slopes = found.positive - found.mass * changed
        curvatures = found.mass * changed * (1 - changed)
        aim = lipschitz_fit(curvatures, slopes + curvatures * change, gaps, bound)
        direction = aim - change
        expected = float(slopes @ direction)
        if expected <= _PRECISION:
            break
        length = 1.0
        while gained(change + length * direction) < best + 0.1 * length * expected:
            length /= 2
        change = change + length * direction
        best = gained(change)
    return best
