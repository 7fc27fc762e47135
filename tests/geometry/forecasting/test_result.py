"""The forecast as tables, rows and HTML."""

from __future__ import annotations

import math

import pytest

from alliage.errors import UsageError
from alliage.geometry.forecasting.result import Expected, Forecast
from alliage.studies.results import read_table, write_table

NAMES = ("a", "b", "c")


def _forecast(refused=(), needs="answers"):
    points = {("a", "b"): 1.0, ("b", "a"): 1.5, ("a", "c"): 5.0, ("c", "a"): 0.5,
              ("b", "c"): 9.0, ("c", "b"): 2.5}  # fmt: skip
    expected = [
        Expected(
            tuple(sorted((task, other))), task, "average",
            *((math.nan,) * 3 if refused else (value, value - 1, value + 1)), {"x": 0.5}, refused,
        )
        for (task, other), value in points.items()
    ]  # fmt: skip
    whole = [Expected(NAMES, name, "average", 7.0, 6.0, 8.0, {"x": 0.5}) for name in NAMES]
    return Forecast(NAMES, (*expected, *([] if refused else whole)), needs)


def test_groups_and_findings() -> None:
    found = _forecast()
    assert found.groups("average") == [("a", "b"), ("c",)]
    assert found.groups("average", threshold=10.0) == [NAMES]
    first, second = found.findings()
    assert first == (
        "Least expected loss by average: c with a 0.5 ± 1.0 points; "
        "most: b with c 9.0 ± 1.0 points."
    )
    assert "average: a, b. Alone: c." in second


def test_tables() -> None:
    found = _forecast()
    assert found.matrix("average")[0] == ("a", "", "1.0 ± 1.0", "5.0 ± 1.0")
    assert found.together() == [("average", "7.0 ± 1.0", "7.0 ± 1.0", "7.0 ± 1.0")]
    assert found.best() == "average"
    assert "<td>5.0 ± 1.0</td>" in found._repr_html_()


def test_rows_are_those_of_the_results_table(tmp_path) -> None:
    found = _forecast()
    write_table(tmp_path, "forecast", found.to_rows())
    table = read_table(tmp_path, "forecast")
    assert len(table) == 9
    assert set(table["models"]) == {"a + b", "a + c", "b + c", "a + b + c"}
    assert found.to_pandas()["x"].eq(0.5).all()


def test_refused_ones_are_told_by_reason() -> None:
    found = _forecast(("x lies outside",))
    assert found.refused
    assert found.best() is None
    assert found.findings() == ["No forecast for 6 of 6 losses: x lies outside."]
    assert found.groups("average") == [("a",), ("b",), ("c",)]
    assert found.matrix("average")[0] == ("a", "", "–", "–")


def test_weights_order_partners_and_tell_no_level() -> None:
    found = _forecast(needs="weights")
    # b costs a 1 point, c costs it 5.
    assert found.matrix("average")[0] == ("a", "", "1", "2")
    lines = found.findings()
    assert "a with b the least, with c the most" in lines[0]
    assert "do not tell how much" in lines[1]
    assert not any("points" in line for line in lines)
    assert found.best() is None
    with pytest.raises(UsageError, match="Give the tasks"):
        found.groups("average")
