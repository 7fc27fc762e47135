from __future__ import annotations

import math

import pytest

from alliage.evaluation.metrics import METRICS as SCORES
from alliage.geometry.surveying.metrics import METRICS
from alliage.report.words import (
    metric_label,
    metric_name,
    number,
    score,
    several,
    shared_prefix,
    signed,
)  # fmt: skip


def test_every_metric_that_is_written_has_words() -> None:
    own_words = {"accuracy", "perplexity", "precision", "recall"}
    for metric in {*METRICS, *(name for names in SCORES.values() for name in names)}:
        assert "_" not in metric_name(metric)
        assert metric_name(metric) != metric or metric in own_words
    assert metric_label("geodesic") == "geodesic distance (radians)"
    assert metric_label("l2") == "L2 distance"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"), (0.9, "0.900"), (-0.04567, "−0.0457"), (12.0, "12.0"), (123.4, "123"),
        (999.9, "1,000"), (123456.0, "123,000"), (1234567.0, "1.23e+06"), (math.inf, "n/a"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_have_three_decimals_and_seconds_three_figures() -> None:
    assert score(0.0457, "ece") == "0.046"
    assert score(-0.5, "matthews") == "−0.500"
    assert score(0.0457, "seconds") == "0.0457"
    assert score(math.nan, "accuracy") == "n/a"
    assert [signed(value) for value in (0.1, -0.1, -0.0001)] == ["+0.100", "−0.100", "+0.000"]


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        ([], ""), (["digits:loop"], ""), (["digits:loop"] * 2, ""), (["sst2", "sst5"], ""),
        (["digits:loop", "digits:line"], "digits:"), (["glue/a:x", "glue/b:x"], "glue/"),
        (["digits:", "digits:loop"], ""), (["glue/cola", "super/cola"], ""),
    ],
)  # fmt: skip
def test_shared_prefixes(names: list[str], prefix: str) -> None:
    assert shared_prefix(names) == prefix


def test_groups_are_named_by_their_first() -> None:
    assert [several("abcdef"[:n]) for n in (1, 2, 3, 4)] == [
        "a", "a and b", "a, b and c", "a, b and 2 more",
    ]  # fmt: skip
