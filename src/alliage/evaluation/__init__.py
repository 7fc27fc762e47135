"""Scores, calibration, size and speed."""
