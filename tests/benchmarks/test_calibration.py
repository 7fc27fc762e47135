"""Small sizes are measured beside HiGHS, larger ones without."""

from __future__ import annotations

import json

from benchmarks import _report, calibration


def test_measures_are_timed_and_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(_report, "OUT", tmp_path / "out")
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(calibration, "SIZES", (100, 2000))
    monkeypatch.setattr(calibration, "SOLVER_SIZE", 1000)
    monkeypatch.setattr(calibration, "RUNS", 1)
    calibration.main()
    content = json.loads((tmp_path / "out" / "calibration.json").read_text())
    small, large = content["seconds"]["100"], content["seconds"]["2000"]
    assert small["difference"] < 1e-12
    assert small["pGap off by"] < 1e-12
    assert "difference" not in large
    assert [row["predictions"] for row in content["rows"]] == ["100", "2,000"]
    assert content["rows"][1]["by HiGHS, s"] == ""
    assert "## Calibration, measured exactly" in (tmp_path / "RESULTS.md").read_text()
