from __future__ import annotations

import importlib.util

import pytest

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
