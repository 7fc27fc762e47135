"""How well a model's confidence is calibrated, from its answers."""

from __future__ import annotations

from alliage.evaluation.answers import Answers
from alliage.evaluation.calibration import Bin, expected_calibration_error, reliability

BINS = 15  # of confidence, as in arXiv:1706.04599


def calibration_metrics(answers: Answers) -> dict[str, float]:
    """Calibration of the top label's probability: "ece", its calibration error in 15 bins."""
    confidences = answers.probabilities.max(axis=1)
    correct = answers.predicted == answers.truth
    return {"ece": expected_calibration_error(confidences, correct, BINS)}


def confidence_bins(answers: Answers) -> tuple[Bin, ...]:
    """The reliability table of the top label's probability, in 15 bins."""
    correct = answers.predicted == answers.truth
    return tuple(reliability(answers.probabilities.max(axis=1), correct, BINS))
