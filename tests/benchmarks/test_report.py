"""Each benchmark renews its own section of RESULTS.md and leaves the others alone."""

from __future__ import annotations

import json

import psutil
import pytest

from benchmarks import _report

ROWS = [{"model": "a", "accuracy": "0.9"}, {"model": "b", "accuracy": "0.8"}]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(_report, "OUT", tmp_path / "out")
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    return tmp_path


def test_sections_are_added_and_replaced_in_place(home):
    _report.report("first", "One", ROWS)
    _report.report("second", "Two", ROWS, note=r"A note with \1 and $.")
    before = (home / "RESULTS.md").read_text()
    assert before.startswith("# Results\n")
    _report.report("first", "One again", ROWS[:1])
    after = (home / "RESULTS.md").read_text()
    assert after.count("<!-- first -->") == after.count("<!-- /first -->") == 1
    assert "## One again\n" in after
    assert "| b | 0.8 |" not in after[: after.index("<!-- second -->")]
    marker = "<!-- second -->"
    assert after[after.index(marker) :] == before[before.index(marker) :]
    assert "| model | accuracy |\n| --- | --- |\n| a | 0.9 |\n| b | 0.8 |\n" in after
    assert r"A note with \1 and $." in after


def test_the_json_holds_rows_machine_and_details(home):
    _report.report("first", "One", ROWS, details={"seconds": 1.5})
    content = json.loads((home / "out" / "first.json").read_text())
    assert content["rows"] == ROWS
    assert content["seconds"] == 1.5
    assert content["machine"]["cores"] >= 1
    total = psutil.virtual_memory().total / 2**30
    assert content["machine"]["memory"] == f"{total:.0f} GiB"
    assert content["machine"]["processor"]
