"""How far predicted probabilities are from what happens. Pure: arrays in, numbers out."""

from alliage.evaluation.calibration.binned import Bin, expected_calibration_error, reliability

__all__ = ["Bin", "expected_calibration_error", "reliability"]
