"""How far predicted probabilities are from what happens. Pure: arrays in, numbers out."""

from alliage.evaluation.calibration.binned import Bin, expected_calibration_error, reliability
from alliage.evaluation.calibration.distance import lower_calibration_distance
from alliage.evaluation.calibration.gap import dual_post_processing_gap, post_processing_gap
from alliage.evaluation.calibration.smooth import (
    dual_smooth_calibration_error,
    smooth_calibration_error,
)

__all__ = [
    "Bin",
    "dual_post_processing_gap",
    "dual_smooth_calibration_error",
    "expected_calibration_error",
    "lower_calibration_distance",
    "post_processing_gap",
    "reliability",
    "smooth_calibration_error",
]
