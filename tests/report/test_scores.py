from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from alliage.report.scores import best_singles, compare_with_singles, roles_of, scores_by_metric
from alliage.studies.results import TABLES

ROLES = {"one": "single", "two": "single", "average": "merged", "ties": "merged"}


def table(*rows: tuple[object, ...]) -> pd.DataFrame:
    columns = ["model", "task", "split", "metric", "value", "examples"]
    return pd.DataFrame(rows, columns=columns)


def test_merged_models_against_the_best_single_of_each_task_by_hand() -> None:
    (scores,) = scores_by_metric(
        table(
            ("one", "x", "test", "accuracy", 0.9, 10), ("two", "x", "test", "accuracy", 0.8, 10),
            ("two", "y", "test", "accuracy", 0.7, 10), ("ties", "x", "test", "accuracy", 0.85, 10),
            ("ties", "y", "test", "accuracy", 0.75, 10), ("ties", "z", "test", "accuracy", 0.1, 10),
            ("average", "x", "test", "accuracy", 0.6, 10),
            ("average", "y", "test", "accuracy", 0.6, 10),
        ),
        ROLES,
    )  # fmt: skip
    np.testing.assert_array_equal(best_singles(scores), [0.9, 0.7, np.nan])
    first, second = compare_with_singles(scores, "merged")
    assert (first.model, first.tasks) == ("ties", ("x", "y"))
    np.testing.assert_allclose(first.difference, [-0.05, 0.05])
    assert second.model == "average"
    assert second.difference.mean() == pytest.approx(-0.2)
    assert compare_with_singles(scores, "pruned") == []


def test_splits_are_tasks_of_their_own_and_the_larger_run_counts() -> None:
    (scores,) = scores_by_metric(
        table(
            ("one", "x", "test", "f1", 0.5, 100), ("one", "x", "test", "f1", 0.9, 10),
            ("one", "x", "train", "f1", 1.0, 10), ("one", "y", "test", "f1", 0.4, 10),
        ),
        ROLES,
    )  # fmt: skip
    assert scores.tasks == ("x (test)", "x (train)", "y")
    np.testing.assert_array_equal(scores.values, [[0.5, 1.0, 0.4]])


def test_the_main_metric_is_the_quality_measured_most_often() -> None:
    found = scores_by_metric(
        table(
            ("one", "x", "test", "seconds", 3.0, 1), ("one", "y", "test", "seconds", 3.0, 1),
            ("one", "z", "test", "seconds", 3.0, 1), ("one", "x", "test", "accuracy", 0.5, 1),
            ("one", "x", "test", "f1", 0.5, 1), ("one", "y", "test", "f1", 0.5, 1),
        ),
        ROLES,
    )  # fmt: skip
    assert [scores.metric for scores in found] == ["f1", "accuracy", "seconds"]


def test_models_that_nothing_describes_are_other() -> None:
    tables = {name: pd.DataFrame(columns=list(columns)) for name, columns in TABLES.items()}
    tables["models"] = pd.DataFrame({"model": ["m", "b"], "role": ["merged", "base"]})
    tables["distances"] = pd.DataFrame({"first": ["m"], "second": ["z"]})
    assert roles_of(tables) == {"b": "base", "m": "merged", "z": "other"}
