"""The file that is shipped, and what is refused by it."""

from __future__ import annotations

import dataclasses

import numpy as np

from alliage.geometry.forecasting.advice import advise
from alliage.geometry.forecasting.forecasting import expect
from alliage.geometry.forecasting.learned import (
    FILE,
    Comparison,
    Learned,
    Lesson,
    shipped,
)
from alliage.geometry.forecasting.model import LEVEL, Model
from alliage.geometry.forecasting.result import Forecast

MODEL = Model(("x",), (0.0,), (10.0,), (5.0,), (2.0,), (4.0,), 6.0, 1.5)
LESSON = Lesson("lora", "average", "weights", MODEL, (1_000_000, 2_000_000), (8, 8), 10, 0.5, 1.0)


def _expected(x, size=1_000_000, ranks=(8, 8), task="a", method="average"):
    return expect(LESSON, "lora", method, ("a", "b"), task, {"x": x}, size, ranks)


def test_a_forecast_by_hand() -> None:
    # 6 + 4·(8 − 5)/2 = 12, give or take 1.5.
    found = _expected(8.0)
    assert (found.points, found.low, found.high) == (12.0, 10.5, 13.5)
    assert found.refused == ()


def test_what_lies_outside_is_refused_with_the_reason() -> None:
    assert "x lies outside" in _expected(11.5).refused[0]
    assert _expected(10.9).refused == ()  # a tenth of the range beyond is near enough
    assert "not defined" in _expected(float("nan")).refused[0]
    assert "learned from 1 million" in _expected(5.0, size=9_000_000).refused[0]
    assert "the rank is 8 to 16, learned from 8" in _expected(5.0, ranks=(8, 16)).refused[0]
    refused = expect(None, "full", "ties", ("a", "b"), "a", {}, 1, (0, 0)).refused
    assert refused == ("nothing was learned of merging models tuned in full by ties",)


def test_the_shipped_file_says_where_it_comes_from() -> None:
    learned = shipped()
    assert "--learn" in learned.command
    assert len(learned.source["losses_sha256"]) == 64
    assert set(learned.source["families"]) >= {"texts-lora", "texts-full"}
    assert learned.find("full", "any method at all", "answers") is not None
    assert learned.find("lora", "factor_average", "weights") is not None
    assert learned.find("full", "factor_average", "weights") is None
    for lesson in learned.lessons:
        assert 0 < lesson.model.width < 30
        assert all(np.isfinite(lesson.model.weights))
    assert LEVEL == 0.9


def test_writing_what_was_read_gives_the_same_bytes(tmp_path) -> None:
    Learned.read().write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == FILE.read_bytes()


def test_advice_tells_what_was_measured_where_it_is_clear() -> None:
    losses = [_expected(x, task=task) for x, task in ((5.0, "a"), (6.0, "b"))]  # 6 and 8 points
    clear = Comparison("lora", "ties", "average", 5.0, 1000.0, 30, -2.0, 0.5)
    noise = dataclasses.replace(clear, method="della", difference=-0.5)
    lower = dataclasses.replace(clear, method="slerp", low=-1000.0, high=5.0)
    learned = Learned("", {}, [LESSON], [clear, noise, lower])
    found = Forecast(("a", "b"), tuple(losses), "answers")
    assert advise(found, learned, "lora") == [
        "Where average (λ = 0.5) cost 5 points and more, ties cost 2.0 points less "
        "(± 0.5, 30 measured losses)."
    ]
    assert advise(found, learned, "full") == []


def test_the_better_method_is_advised() -> None:
    both = [
        _expected(x, task=task, method=method)
        for method, x in (("average", 5.0), ("factor_average", 7.0))
        for task in ("a", "b")
    ]
    found = Forecast(("a", "b"), tuple(both), "answers")
    (line,) = advise(found, Learned("", {}, [], []), "lora")
    assert line.startswith("Merge by average: expected to cost 6.0 points")
    assert "factor_average 10.0" in line
