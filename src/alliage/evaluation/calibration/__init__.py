"""How far predicted probabilities are from what happens. Pure: arrays in, numbers out."""

from alliage.evaluation.calibration.binned import Bin, expected_calibration_error, reliability
from alliage.evaluation.calibration.chance import (
    Band,
    DomainBands,
    bootstrap_band,
    null_band,
    null_bands,
)
from alliage.evaluation.calibration.classes import (
    Confidence,
    Domain,
    Domains,
    OneAgainstRest,
    by_domain,
    confidence,
    log_odds,
    one_against_rest,
)
from alliage.evaluation.calibration.distance import lower_calibration_distance
from alliage.evaluation.calibration.gap import dual_post_processing_gap, post_processing_gap
from alliage.evaluation.calibration.smooth import (
    dual_smooth_calibration_error,
    smooth_calibration_error,
)
from alliage.evaluation.calibration.smoothed import (
    Smoothed,
    smoothed_null_band,
    smoothed_reliability,
)

__all__ = [
    "Band",
    "Bin",
    "Confidence",
    "Domain",
    "DomainBands",
    "Domains",
    "OneAgainstRest",
    "Smoothed",
    "bootstrap_band",
    "by_domain",
    "confidence",
    "dual_post_processing_gap",
    "dual_smooth_calibration_error",
    "expected_calibration_error",
    "log_odds",
    "lower_calibration_distance",
    "null_band",
    "null_bands",
    "one_against_rest",
    "post_processing_gap",
    "reliability",
    "smooth_calibration_error",
    "smoothed_null_band",
    "smoothed_reliability",
]
