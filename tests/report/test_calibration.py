from __future__ import annotations

import pandas as pd
import pytest

from alliage.report.calibration import calibration_errors, diagrams
from alliage.report.figures.reliability import reliability_diagrams
from alliage.report.scores import scores_by_metric

COLUMNS = ["model", "task", "split", "low", "high", "confidence", "accuracy", "examples"]
CURVE = ["model", "task", "split", "confidence", "accuracy", "density", "chance_low", "chance_high"]
NO_CURVES = pd.DataFrame(columns=CURVE)
ROWS = [
    ("m", "x", "test", 0.8, 1.0, 0.9, 0.6, 30),
    ("m", "x", "test", 0.6, 0.8, 0.7, 0.8, 10),
    ("m", "x", "test", 0.4, 0.6, 0.5, 0.0, 0),
]


def test_errors_of_diagrams_by_hand() -> None:
    (diagram,) = diagrams(pd.DataFrame(ROWS, columns=COLUMNS), NO_CURVES)
    assert [one.low for one in diagram.bins] == [0.6, 0.8]
    assert diagram.examples == 40
    assert diagram.error == pytest.approx((30 * 0.3 + 10 * 0.1) / 40)


def test_evaluated_errors_come_before_those_of_diagrams() -> None:
    found = diagrams(pd.DataFrame(ROWS, columns=COLUMNS), NO_CURVES)
    errors, table = calibration_errors([], found)
    assert ([one.model for one in errors], table) == (["m"], "reliability")
    columns = ["model", "task", "split", "metric", "value", "examples"]
    scored = pd.DataFrame([("m", "x", "test", "ece", 0.125, 40)], columns=columns)
    errors, table = calibration_errors(scores_by_metric(scored, {"m": "single"}), found)
    assert (errors, table) == ([("m", "x", 0.125)], "scores")


def test_curves_go_with_their_bins() -> None:
    others = [(model, "x", "test", *row[3:]) for model in ("a", "m") for row in ROWS]
    points = [
        ("m", "x", "test", 0.9, 0.6, 2.0, 0.8, 1.0),
        ("m", "x", "test", 0.5, 0.7, 1.0, 0.4, 0.6),
        ("m", "y", "test", 0.5, 0.7, 1.0, 0.4, 0.6),
    ]
    without, with_curve = diagrams(
        pd.DataFrame(others, columns=COLUMNS), pd.DataFrame(points, columns=CURVE)
    )
    assert (without.model, without.curve) == ("a", ())
    assert with_curve.curve == ((0.5, 0.7, 0.4, 0.6), (0.9, 0.6, 0.8, 1.0))
    drawn = reliability_diagrams([with_curve], {"m": 0})
    svg = str(drawn.views[0].panels[0].svg)
    # x from 44 to 344, y from 330 to 30.
    assert 'class="line hue-6" d="M194 120L314 150"' in svg
    assert 'class="band hue-6" d="M194 150L314 30L314 90L194 210Z"' in svg
    assert "Line:" in drawn.caption
    assert "Line:" not in reliability_diagrams([without], {"a": 0}).caption
