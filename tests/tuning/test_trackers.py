from __future__ import annotations

import importlib.util

import pytest

import alliage
from alliage.errors import UsageError
from alliage.tuning.trackers import refuse_missing


def test_nothing_is_reported_by_default():
    refuse_missing(())


def test_unknown_and_missing_trackers_are_refused_together():
    if any(importlib.util.find_spec(name) for name in ("trackio", "comet_ml")):
        pytest.skip("a tracker of this test is installed")
    with pytest.raises(UsageError) as caught:
        refuse_missing(["trakio", "trackio", "comet_ml"])
    assert [str(problem) for problem in caught.value.problems] == [
        "report_to: trakio: no tracker that transformers knows. Did you mean 'trackio'?",
        "report_to: trackio: is not installed. Install it: pip install trackio",
        "report_to: comet_ml: is not installed. Install it: pip install comet-ml",
    ]


def test_a_tracker_gets_the_losses_and_its_logs_stay(family, tmp_path):
    """Where tensorboardX is installed."""
    pytest.importorskip("tensorboardX", reason="no tracker that writes files is installed")
    (tmp_path / "mood").mkdir()
    rows = "text\tlabel\nvery good\ta\nbad\tb\n"
    for split in ("train", "validation"):
        (tmp_path / "mood" / f"{split}.tsv").write_text(rows)
    alliage.tune(
        model=family / "base", task=tmp_path / "mood", out=tmp_path / "out", epochs=20,
        batch_size=2, report_to=["tensorboard"],
    )  # fmt: skip
    [events] = (tmp_path / "runs" / "out").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content
    assert b"train/learning_rate" in content
