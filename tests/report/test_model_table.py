from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from alliage.report.model_table import model_table
from alliage.report.scores import Scores

ROLES = {"one": "single", "all": "merged", "none": "pruned", "unknown": "other"}
SCORES = Scores(
    "f1_macro", ("one", "all"), ("x", "y"), np.array([[0.9, np.nan], [0.8, 0.5]]), ROLES
)
MODELS = pd.DataFrame(
    [("one", "full", 12, 66_000_000, 264_000_000), ("none", "lora", 6, 147_456, 74_120)],
    columns=["model", "method", "layers", "parameters", "bytes"],
)


def test_means_are_over_the_tasks_that_were_measured() -> None:
    table = model_table(MODELS, SCORES, ROLES)
    at = [heading for heading, _ in table.columns].index("tasks")
    scored = {row[0]: row[at:] for row in table.rows}
    assert scored == {
        "one": (1, 0.9, 0.9, None), "all": (2, pytest.approx(0.65), 0.8, 0.5),
        "none": (0, None, None, None),
    }  # fmt: skip
    assert "macro F1" in table.caption


def test_sizes_have_the_decimals_that_the_smallest_needs() -> None:
    decimals = dict(model_table(MODELS, SCORES, ROLES).columns)
    assert decimals["parameters, M"] == 3
    large = MODELS.assign(
        parameters=[66_000_000, 7_000_000_000], bytes=[264_000_000, 28_000_000_000]
    )
    decimals = dict(model_table(large, SCORES, ROLES).columns)
    assert (decimals["parameters, M"], decimals["size, MB"]) == (1, 0)
