from __future__ import annotations

import pandas as pd
import pytest

from alliage.report.calibration import calibration_errors, diagrams
from alliage.report.scores import scores_by_metric

COLUMNS = ["model", "task", "split", "low", "high", "confidence", "accuracy", "examples"]
ROWS = [
    ("m", "x", "test", 0.8, 1.0, 0.9, 0.6, 30),
    ("m", "x", "test", 0.6, 0.8, 0.7, 0.8, 10),
    ("m", "x", "test", 0.4, 0.6, 0.5, 0.0, 0),
]


def test_errors_of_diagrams_by_hand() -> None:
    (diagram,) = diagrams(pd.DataFrame(ROWS, columns=COLUMNS))
    assert [one.low for one in diagram.bins] == [0.6, 0.8]
    assert diagram.examples == 40
    assert diagram.error == pytest.approx((30 * 0.3 + 10 * 0.1) / 40)


def test_evaluated_errors_come_before_those_of_diagrams() -> None:
    found = diagrams(pd.DataFrame(ROWS, columns=COLUMNS))
    errors, table = calibration_errors([], found)
    assert ([one.model for one in errors], table) == (["m"], "reliability")
    columns = ["model", "task", "split", "metric", "value", "examples"]
    scored = pd.DataFrame([("m", "x", "test", "ece", 0.125, 40)], columns=columns)
    errors, table = calibration_errors(scores_by_metric(scored, {"m": "single"}), found)
    assert (errors, table) == ([("m", "x", 0.125)], "scores")
