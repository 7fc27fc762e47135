"""What groups of like predictions say: expected calibration error and reliability tables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alliage.evaluation.calibration.checks import checked, levels


class Bin(NamedTuple):
    """One bin of a reliability table.

    Attributes:
        low, high: edges of the bin (low, high]; the first one holds 0 too.
        confidence: mean predicted probability in it.
        accuracy: share of positives, or of right answers, in it.
        examples: their count.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    examples: int


def expected_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    bins: int | None = None,
    *,
    weights: ArrayLike | None = None,
) -> float:
    """Expected calibration error Σ_v |Σ_{i: vᵢ=v} wᵢ (yᵢ − vᵢ)| / Σ wᵢ.

    The plug-in estimate groups by the distinct predictions themselves. Where almost every
    prediction is distinct, as a network's are, it tends to the mean of |y − v|: give `bins` then,
    which groups by equal widths (arXiv:1706.04599), right-closed, with 0 in the first bin.

    For several classes, pass the confidence (the top probability) and whether it was right.

    Args:
        probabilities: [n], of the positive class, in [0, 1].
        labels: [n], 0 or 1.
        bins: how many, or nothing for the plug-in estimate.
        weights: [n], non-negative; all equal by default.

    Returns:
        in [0, 1]; 0 is calibrated.

    Raises:
        ValueError: an argument of another shape or range.
    """
    data = checked(probabilities, labels, weights)
    if bins is None:
        found = levels(data)
        return float(np.abs(found.surplus).sum())
    groups = _bin_of(data.values, bins)
    gaps = np.bincount(groups, weights=data.mass * (data.outcomes - data.values))
    return float(np.abs(gaps).sum())


def reliability(confidences: ArrayLike, correct: ArrayLike, bins: int) -> list[Bin]:
    """The reliability table: bins of equal width, right-closed; empty ones are left out.

    Args:
        confidences: [n], in [0, 1].
        correct: [n], 0 or 1.
        bins: how many over [0, 1].

    Raises:
        ValueError: an argument of another shape or range.
    """
    values, outcomes, _ = checked(confidences, correct)
    groups = _bin_of(values, bins)
    edges = np.linspace(0, 1, bins + 1)
    return [
        Bin(
            float(edges[index]),
            float(edges[index + 1]),
            float(values[groups == index].mean()),
            float(outcomes[groups == index].mean()),
            int((groups == index).sum()),
        )
        for index in np.unique(groups)
    ]


def _bin_of(values: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}.")
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(inner, values, side="left")
