"""The table of merge methods: which tasks count, and what a row says."""

from __future__ import annotations

import math

import pytest
from benchmarks.merge_quality import Scored

from benchmarks import merge_quality

GUESS = {"a": {"accuracy": 0.5, "error": 0.02}, "b": {"accuracy": 0.5, "error": 0.02}}


def runs(a, b, seconds=math.nan):
    return [Scored({"a": a + s, "b": b}, {"a": 0.1, "b": 0.3}, seconds, 2**20) for s in (0, 0.02)]


def test_tasks_near_the_majority_class_do_not_count():
    found = {"": runs(0.8, 0.55), "ties": runs(0.4, 0.9, 2.0), "average": runs(0.6, 0.1, 3.0)}
    table = merge_quality.rows(found, GUESS)
    assert [row["method"] for row in table] == ["individual models", "average", "ties"]
    single, average, _ = table
    assert (single["a"], single["b*"]) == ("81.0", "55.0")
    assert single["mean"].startswith("81.0 ± ")
    assert (single["normalised"], single["s"]) == ("100.0", "")
    # (0.6 / 0.8 + 0.62 / 0.82) / 2
    assert (average["normalised"], average["ECE"]) == ("75.3", "0.100")
    assert (average["s"], average["MiB"]) == ("3.0", "1")


@pytest.mark.parametrize("family", merge_quality.FAMILIES)
def test_methods_of_two_models_are_left_out_and_those_of_factors_need_adapters(family):
    methods = merge_quality.methods_for(family)
    assert {"average", "ties", "task_arithmetic"} <= set(methods)
    assert not {"slerp", "passthrough"} & set(methods)
    assert ("factor_average" in methods) == family.endswith("lora")
