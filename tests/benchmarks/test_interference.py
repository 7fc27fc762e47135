"""Counting is timed as models grow, and real models are put into tables."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import alliage
from benchmarks import _report, interference

TASKS = 8


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(_report, "OUT", tmp_path / "out")
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(interference, "OUT", tmp_path)


def test_cost_is_measured(tmp_path, family, monkeypatch):
    monkeypatch.setattr(interference, "RUNS", 1)
    monkeypatch.setattr(interference, "make_family", lambda size: family)
    interference.measure_cost(["0.1M"])
    content = json.loads((tmp_path / "out" / "interference_cost.json").read_text())
    (row,) = content["rows"]
    assert row["parameters"] == "0.1M"
    assert float(row["processor seconds"]) > 0
    assert 0 < float(row["memory, MiB"]) < 2000
    assert set(content["runs"]["0.1M"]) == {"1", "2"}
    assert "## Counting interference as models grow" in (tmp_path / "RESULTS.md").read_text()


def test_tables_hold_what_was_counted(tmp_path):
    def write(name, tensor):
        (tmp_path / name).mkdir()
        save_file({"layers.0.q_proj.weight": tensor}, tmp_path / name / "model.safetensors")
        return tmp_path / name

    draw = torch.Generator().manual_seed(0)
    base = write("base", torch.zeros(20, 20))
    models = [write(f"t{n}", torch.randn(20, 20, generator=draw)) for n in range(TASKS)]
    tasks = [alliage.interference(base, models), alliage.interference(base, models[::-1])]
    seeds = [alliage.interference(base, models[:3]), alliage.interference(base, models[3:6])]
    interference.report_families({"images": {"tasks": tasks, "seeds": seeds}})

    def rows(name):
        return json.loads((tmp_path / "out" / f"interference_{name}.json").read_text())["rows"]

    of_all = [float(run.by_number()["conflict_of_all"].sel(number=8)) for run in tasks]
    assert of_all[0] == of_all[1]  # the order of models does not matter
    assert rows("number")[-1]["images, in full: of all"] == f"{of_all[0]:.1%} ± 0.0"
    assert [row["models"] for row in rows("number")] == [str(n) for n in range(2, TASKS + 1)]
    assert len(rows("top_k")) == 10
    assert {row["where"] for row in rows("places")} == {"query", "layer 0"}
    assert "two seeds of one task: overlap" in rows("pairs")[0]
    magnitudes = {row[""]: row for row in rows("magnitudes")}
    ties = magnitudes["mean of what trimming keeps and has the elected sign"]
    assert ties["images, in full: for one"] == "1.000"
    assert ties["images, in full: redundant"] == "0.000"
