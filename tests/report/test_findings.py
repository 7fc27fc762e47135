"""Sentences, on tables small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pandas as pd

from alliage.report import findings
from alliage.report.calibration import CalibrationError
from alliage.report.distances import MODULES, Matrix
from alliage.report.scores import Scores

ROLES = {"x-full": "single", "y-full": "single", "ties": "merged", "x-6": "pruned"}
SCORES = Scores(
    "accuracy", tuple(ROLES), ("x", "y"),
    np.array([[0.9, np.nan], [np.nan, 0.7], [0.85, 0.72], [0.8, np.nan]]), ROLES,
)  # fmt: skip
MODELS = pd.DataFrame(
    [("x-full", "single", 12, 100_000_000), ("x-6", "pruned", 6, 60_000_000)],
    columns=["model", "role", "layers", "bytes"],
)


def test_nearest_and_farthest() -> None:
    values = np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]], float)
    matrix = Matrix("geodesic", "a, b and c", MODULES, ("a", "b", "c"), values)
    assert findings.distance([matrix]).sentences == (
        "By geodesic distance (radians), a and b are nearest (1.00), b and c farthest (3.00); the "
        "median of 3 pairs is 2.00.",
    )
    pair = Matrix("geodesic", "d and e", MODULES, ("d", "e"), values[:2, :2])
    among, of_pair = findings.distance([pair, matrix]).sentences
    assert among.startswith("Among a, b and c, by geodesic distance (radians), a and b are near")
    assert of_pair == "By geodesic distance (radians), d and e are 1.00 apart."


def test_what_was_compared() -> None:
    two = np.array([[0.0, 1.0], [1.0, 0.0]])
    matrices = [
        Matrix("l2", "a and b", MODULES, ("a", "b"), two),
        Matrix("l2", "c and d", MODULES, ("c", "d"), two),
    ]
    assert findings.compared(matrices, ROLES, [SCORES], "digits:").sentences == (
        "4 models: 2 single, 1 merged, 1 pruned.",
        "4 models compared by L2 distance, in 2 groups apart.",
        "Scores of 4 models on 2 tasks: accuracy.",
        "The names of all tasks begin with “digits:”, which is left out here.",
    )


def test_merged_against_singles() -> None:
    assert findings.merging(SCORES).sentences == (
        "ties: mean accuracy 0.785 over 2 tasks against 0.800 of each task's best single model "
        "(−0.015; from −0.050 on x to +0.020 on y).",
    )


def test_pruned_against_singles() -> None:
    assert findings.pruning(SCORES, MODELS).sentences == (
        "x-6 (6 of 12 layers, 60.0 of 100 MB): accuracy 0.800 on x against 0.900 of the best "
        "single model (−0.100).",
    )


def test_calibration() -> None:
    errors = [("a", "x", 0.1), ("a", "y", 0.3), ("b", "x", 0.05)]
    assert findings.calibration([CalibrationError(*row) for row in errors]).sentences == (
        "Lowest expected calibration error: b (0.050, mean over 1 task); highest: a (0.200, mean "
        "over 2 tasks).",
        "Highest on one task: a on y, 0.300.",
    )


def test_nothing_to_say_is_said() -> None:
    assert "No table of distances" in findings.distance([]).sentences[0]
    assert "No scores of a merged model" in findings.merging(None).sentences[0]
    assert "No scores of a pruned model" in findings.pruning(None, MODELS).sentences[0]
    assert "No table of reliability" in findings.calibration([]).sentences[0]
