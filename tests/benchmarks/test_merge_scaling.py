"""Growth is measured inside a process and as a whole command."""

from __future__ import annotations

import json

import pytest
from benchmarks._models import BASE, TUNED
from safetensors.torch import load_file

from benchmarks import _report, merge_scaling


@pytest.fixture
def out(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    for module in (_report, merge_scaling):
        monkeypatch.setattr(module, "OUT", folder)
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    return folder


def test_a_run_is_measured_and_leaves_the_merge(family, tmp_path):
    recipe = {
        "method": "ties",
        "base": str(family / BASE),
        "models": [str(family / name) for name in TUNED],
    }
    found = merge_scaling.measure_run(recipe, tmp_path / "merged", threads=1)
    assert 0 < found["within"] < found["seconds"] < 60
    assert 0 <= found["peak"] < 2**30
    assert found["passes"] >= 1
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert merged.keys() == load_file(family / BASE / "model.safetensors").keys()


@pytest.mark.slow
def test_every_size_gets_a_row(family, out, monkeypatch):
    monkeypatch.setattr(merge_scaling, "make_family", lambda size: family)
    monkeypatch.setattr(merge_scaling, "RUNS", 1)
    monkeypatch.setattr(merge_scaling, "SIZES", ("34M", "336M"))
    merge_scaling.main()
    content = json.loads((out / "merge_scaling.json").read_text())
    assert [row["parameters"] for row in content["rows"]] == list(merge_scaling.SIZES)
    for runs in content["runs"].values():
        assert {len(values) for values in runs.values()} == {1}
        for threads in merge_scaling.THREADS:  # a command does what run() does, and starts first
            assert min(runs[f"command, {threads}"]) > min(runs[f"run, {threads}"])
    assert [path.name for path in out.iterdir()] == ["merge_scaling.json"]


def test_a_size_that_does_not_fit_into_memory_is_left_out(family, out, monkeypatch, capsys):
    available = merge_scaling.psutil.virtual_memory()._replace(available=10**6)
    monkeypatch.setattr(merge_scaling.psutil, "virtual_memory", lambda: available)
    assert merge_scaling.missing_room(family) == "its 0.0 GB would not stay in 0.0 GB of memory"
