"""Two models on the same examples, from their files to the table of comparisons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import alliage
from alliage.evaluation.comparing import compare_scores
from alliage.evaluation.scores import Scores, with_distinct_names
from alliage.studies.results import read_table, write_table
from tests.evaluation.test_scoring import MOOD


@pytest.fixture(scope="module")
def scores(family):
    return [alliage.evaluate(family / name, MOOD) for name in ("sentiment", "sentiment-lora")]


def test_rows_say_what_the_scores_say(scores, tmp_path):
    first, second = scores
    rows = compare_scores(scores, first)
    write_table(tmp_path, "comparisons", rows)
    table = read_table(tmp_path, "comparisons").set_index("metric")
    assert set(table["model"]) == {"sentiment-lora"}
    assert set(table["against"]) == {"sentiment"}
    for metric in ("accuracy", "f1", "matthews"):
        gap = second["mood"].metrics[metric] - first["mood"].metrics[metric]
        assert table.loc[metric, "value"] == pytest.approx(gap)
        assert table.loc[metric, "low"] <= gap <= table.loc[metric, "high"]
        assert 0 < table.loc[metric, "p"] <= 1
    assert table.loc["accuracy", "test"] == "mcnemar"
    assert table.loc["f1", "test"] == "randomisation"


def test_mcnemar_is_of_the_examples_that_differ(scores):
    first, second = (one["mood"].evidence.decisions["accuracy"] for one in scores)
    only, other = np.sum(first & ~second), np.sum(second & ~first)
    expected = stats.binomtest(int(only), int(only + other)).pvalue if only + other else 1
    rows = compare_scores(scores, scores[1])
    (row,) = [row for row in rows if row["metric"] == "accuracy"]
    assert row["p"] == pytest.approx(expected)


def test_tasks_of_one_model_alone_are_passed_over(family):
    from dataclasses import replace

    one = alliage.evaluate(family / "sentiment", MOOD)
    other = alliage.evaluate(family / "sentiment", replace(MOOD, name="other"))
    assert compare_scores([one, other], one) == []


def named(path, model="final", repair=""):
    own = Scores(model, "single", "", path, 2, 10, 40, ())
    return replace(own, model=f"{model}+{repair}", before=own) if repair else own


def test_models_of_one_name_are_told_apart_by_as_much_of_the_path_as_it_takes(tmp_path):
    other = named("/other", "other")
    found = with_distinct_names([named("/a/x/final"), other, named("/b/x/final", repair="platt")])
    assert [one.model for one in found] == ["a/x/final", "other", "b/x/final+platt"]
    assert found[2].before.model == "b/x/final"
    urls = [named("s3://here/run1/final"), named("s3://here/run2/final")]
    assert [one.model for one in with_distinct_names(urls)] == ["run1/final", "run2/final"]
    files = [named(str(tmp_path / run / "m.safetensors"), "m") for run in ("run1", "run2")]
    assert [one.model for one in with_distinct_names(files)] == ["run1/m", "run2/m"]
    same = [named("/a/final"), named("/a/final")]
    assert [one.model for one in with_distinct_names(same)] == ["final", "final-2"]
