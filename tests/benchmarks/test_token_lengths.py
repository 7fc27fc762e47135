"""Every way of padding is timed and scored on real sentences."""

from __future__ import annotations

import json

import pytest

from benchmarks import _real_data, _report, token_lengths


@pytest.mark.real
def test_ways_are_timed_and_scored(tmp_path, monkeypatch):
    if reason := _real_data.missing(token_lengths.TASKS):
        pytest.skip(reason)
    monkeypatch.setattr(_report, "OUT", tmp_path / "out")
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(token_lengths, "SEEDS", 1)
    monkeypatch.setattr(token_lengths, "TASKS", {"ud_french_gsd": "accuracy"})
    small = {"train_limit": 64, "epochs": 1}
    monkeypatch.setattr(token_lengths, "SETTINGS", token_lengths.SETTINGS | small)
    token_lengths.main()
    content = json.loads((tmp_path / "out" / "token_lengths.json").read_text())
    assert len(content["rows"]) == 3
    times = content["ud_french_gsd"]["seconds"]
    assert times["grouped by length"] < times["padded to 128 tokens"]
