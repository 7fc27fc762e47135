"""The Trainer with and without us is timed on the same work."""

from __future__ import annotations

import json

import pytest

from benchmarks import _real_data, _report, trainer_overhead


@pytest.mark.real
def test_both_sides_are_timed_in_turn(tmp_path, monkeypatch):
    if reason := _real_data.missing([trainer_overhead.TASK]):
        pytest.skip(reason)
    monkeypatch.setattr(_report, "OUT", tmp_path / "out")
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(trainer_overhead, "RUNS", 1)
    monkeypatch.setattr(
        trainer_overhead, "SETTINGS", trainer_overhead.SETTINGS | {"train_limit": 32}
    )
    trainer_overhead.main()
    content = json.loads((tmp_path / "out" / "trainer_overhead.json").read_text())
    assert [row["method"] for row in content["rows"]] == ["full", "lora"]
    for times in content["seconds"].values():
        assert len(times["plain"]) == len(times["ours"]) == 1
