"""The settings stand for what their names say, and the table for its runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.training_science import Found, Setting, interval, rows, settings
from scipy import stats

from alliage.tuning import parse_recipe
from benchmarks import training_science


def test_every_recipe_is_one_and_every_normal_run_is_as_long():
    chosen = settings()
    named = {setting[:2]: setting for setting in chosen}
    assert len(named) == len(chosen)
    for setting in chosen:
        recipe = parse_recipe({**setting.recipe, "task": "t"})
        if setting.normal is not None:
            normal = named[setting.experiment, setting.normal].recipe
            assert recipe.epochs == normal["epochs"]
            changed = {key for key in setting.recipe if setting.recipe[key] != normal.get(key)}
            assert changed in ({"deficit"}, {"dropout"}, {"stochastic_depth"})
        if recipe.deficit is not None:
            assert recipe.deficit.end <= recipe.epochs


def test_the_interval_is_scipys():
    values = [0.7, 0.72, 0.79]
    low, high = stats.t.interval(
        0.95, 2, loc=np.mean(values), scale=stats.sem(values)
    )  # fmt: skip
    assert interval(values) == pytest.approx((high - low) / 2)


def test_rows_pair_runs_by_their_seeds():
    chosen = [Setting("x", "none", {}, None), Setting("x", "blur", {}, "none")]
    traces = (((0.0, 1.0), (2.0, 5.0), (4.0, 2.0)), ((0.0, 3.0), (2.0, 7.0), (4.0, 3.0)))
    results = {
        ("x", "none"): [Found(0.5, 1.0, traces[0]), Found(0.7, 2.0, traces[1])],
        ("x", "blur"): [Found(0.4, 1.0, ()), Found(0.6, 1.0, ())],
    }
    none, blur = rows(chosen, results)
    half = 12.706 * 100 * math.sqrt(0.02 / 2)  # t of one degree of freedom
    assert none["accuracy"] == f"60.0 ± {half:.1f}"
    assert none["against normal"] == ""
    assert none["training loss"] == "1.500"
    assert none["Fisher trace: highest (epoch), last"] == "6 (2), 2.5"
    assert blur["against normal"] == "-10.0 ± 0.0"


@pytest.mark.slow
def test_a_run_is_measured(data_folder):
    recipe = {
        **settings()[0].recipe, "epochs": 2, "train_limit": 64,
        "fisher_trace": {"every": 1, "examples": 2},
    }  # fmt: skip
    found = training_science.run(recipe, 0, data_folder / training_science.TASK)
    assert 0 < found.accuracy < 1
    assert [epoch for epoch, _ in found.traces] == [0, 1, 2]
