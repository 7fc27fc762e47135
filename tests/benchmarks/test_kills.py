"""Killed merges are gone on with, counted by what they had come to, and compared."""

from __future__ import annotations

import pytest
from benchmarks.kills import STAGES, Kill

from benchmarks import kills


def test_killed_merges_end_as_one_that_nothing_disturbed(family, tmp_path):
    wall, parts, found = kills.kill_and_resume(family, tmp_path, 2)
    assert 0 < wall < 60
    assert parts == 1  # an output this small is one part
    assert len(found) == 2
    assert all(kill.identical for kill in found)
    assert {kill.stage for kill in found} <= set(STAGES)


def test_a_byte_or_a_file_that_differs_is_noticed(tmp_path):
    for name in ("whole", "out"):
        (tmp_path / name / "heads").mkdir(parents=True)
        (tmp_path / name / "heads" / "a").write_bytes(b"same")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert kills._same(whole, out)
    (out / "heads" / "a").write_bytes(b"samE")
    assert not kills._same(whole, out)
    (out / "heads" / "a").write_bytes(b"same")
    (out / "more").write_bytes(b"")
    assert not kills._same(whole, out)


def test_a_row_counts_what_became_of_its_kills():
    met = [
        Kill(0.1, "before the journal", 0, identical=True),
        Kill(0.6, "some parts done", 3, identical=True),
        Kill(0.7, "some parts done", 9, identical=False),
        Kill(0.9, "renamed", 16, identical=True),
    ]
    assert kills.table(met) == [
        row("before the journal", 1, 0, 1, 1),
        row("some parts done", 2, 2, 0, 1),
        row("renamed", 1, 0, 0, 1),
        row("all", 4, 2, 1, 3),
    ]


def row(stage, *counts):
    columns = ("kills", "parts kept", "started anew", "identical")
    return {"killed when": stage, **dict(zip(columns, counts, strict=True))}


def test_a_merge_that_fails_by_itself_is_not_taken_for_a_killed_one(tmp_path):
    (tmp_path / "bad.yml").write_text("method: tise\n")
    with pytest.raises(RuntimeError, match="failed by itself"):
        kills._killed(tmp_path / "bad.yml", tmp_path / "out", 1.0, 60.0, 1)
