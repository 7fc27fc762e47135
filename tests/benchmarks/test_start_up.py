"""Starting is timed for each command that is installed."""

from __future__ import annotations

import json

import pytest

from benchmarks import _report, start_up


@pytest.mark.slow
def test_commands_are_timed_and_a_missing_peer_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(_report, "OUT", tmp_path / "out")
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(start_up, "RUNS", 1)
    monkeypatch.setattr(start_up, "PEERS", tmp_path)
    start_up.main()
    content = json.loads((tmp_path / "out" / "start_up.json").read_text())
    walls = {name: wall for name, (wall,) in content["wall"].items()}
    assert not any(name.startswith("mergekit") for name in walls)
    assert walls["python -c pass"] < walls["python -c 'import torch'"]
    assert len(content["rows"]) == len(walls) == 5
