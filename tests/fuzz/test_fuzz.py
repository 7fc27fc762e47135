"""Every kind of hostile input in short; `python -m tests.fuzz` goes on for as long as one likes."""

import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.pickle_files import payloads
from tests.fuzz.sandbox import run_cases
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_input_gives_more_than_a_result_or_an_error(target, tmp_path):
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def hold(rng):
        folder = tmp_path / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        target.make(rng, folder)
        target.judge(folder)

    hold()
    assert {path.name for path in tmp_path.iterdir()} == {"case"}


def test_the_payloads_do_run_where_pickles_are_executed(tmp_path):
    """Else their silence would prove nothing. torch refuses the last one by itself."""
    canary = tmp_path / "canary"
    for payload in payloads(canary)[:-1]:
        with suppress(Exception):
            pickle.loads(payload)
        assert canary.exists(), payload
        canary.unlink()


def test_a_case_that_does_not_end_in_time_is_named_and_the_next_one_runs():
    late, next_one = (next(run_cases([("index", 0)], 0, seconds=limit)) for limit in (0, 60))
    assert "hung" in late.violation
    assert not next_one.violation
    assert next_one.outcome


@pytest.mark.slow
def test_a_minute_of_hostile_files_in_a_process_with_limits():
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", "--seconds", "60"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " 0 violations" in done.stdout
