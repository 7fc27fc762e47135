"""Searches in memory and by files are timed, and score the same."""

from __future__ import annotations

import json

import pytest

from benchmarks import _report, search


@pytest.mark.slow
def test_both_ways_are_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(_report, "OUT", tmp_path / "out")
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "vocab_size": 64}
    monkeypatch.setattr(search, "SETTINGS", small)
    search.main()
    content = json.loads((tmp_path / "out" / "search.json").read_text())
    ratios = {row["way"]: float(row["ratio"]) for row in content["rows"]}
    assert ratios["to disk and loaded"] == 1
    assert ratios["in memory"] >= ratios["in memory, with the start"]
    counts = {key: len(values) for key, values in content["seconds"].items()}
    assert counts == {"start": 1, "memory": 69, "answers": 69, "merge": 7, "load": 7}
