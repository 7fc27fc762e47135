"""How well a model's confidence is calibrated, from its answers."""

from __future__ import annotations

from alliage.evaluation.answers import Answers
from alliage.evaluation.calibration import (
    Bin,
    expected_calibration_error,
    post_processing_gap,
    reliability,
    smooth_calibration_error,
)

BINS = 15  # of confidence, as in arXiv:1706.04599


def calibration_metrics(answers: Answers) -> dict[str, float]:
    """Calibration of the top label's probability, against whether it is the right one.

    Returns:
        "ece", the calibration error in 15 bins; "smce", the smooth calibration error; "pgap", what
        the squared error could gain by a Lipschitz repair.
    """
    confidences = answers.probabilities.max(axis=1)
    correct = answers.predicted == answers.truth
    return {
        "ece": expected_calibration_error(confidences, correct, BINS),
        "smce": smooth_calibration_error(confidences, correct),
        "pgap": post_processing_gap(confidences, correct),
    }


def confidence_bins(answers: Answers) -> tuple[Bin, ...]:
    """The reliability table of the top label's probability, in 15 bins."""
    correct = answers.predicted == answers.truth
    return tuple(reliability(answers.probabilities.max(axis=1), correct, BINS))
