"""The journal of an output: what a killed run leaves, and what a later one makes of it."""

import errno
import json
import os
import subprocess
import sys

import pytest

from alliage.checkpoints.journal import JournaledFolder
from alliage.checkpoints.locks import lock_file
from alliage.errors import AlliageError, Problem, TransientError, UsageError

SUBJECT = {"recipe": {"method": "ties", "models": ["a", "b"]}, "inputs": {"a.bin": [4, 1]}}
DONE = [{"part": 0}, {"part": 1}]


def journaled(home, subject=SUBJECT, choices=None, *, resume=False):
    return JournaledFolder(home / "out", subject, choices or {"block": 7}, resume=resume)


def work(home, error=None, entries=DONE, *, appearing=False, resume=False):
    """Make an output, or go on with one; what was there of it by then."""
    with journaled(home, resume=resume) as folder:
        known = list(folder.entries)
        folder.add_text("weights", "whole")
        for entry in entries:
            folder.add(entry)
        if appearing:
            (home / "out").mkdir()
            (home / "out" / "mine").write_text("precious")
        if error is not None:
            raise error
    return known


def left_by(home, error, entries=DONE, *, resume=False):
    """Make an output and end by an error; that error as it comes out, and the hidden folder."""
    try:
        work(home, error, entries, resume=resume)
    except BaseException as raised:
        return raised, home / ".out.partial"
    raise AssertionError("nothing was raised")


def refused(home, match, **options):
    """Whether `work` is refused with such a message."""
    with pytest.raises(UsageError, match=match):
        work(home, **options)


def lines(left):
    return [json.loads(line) for line in (left / "journal").read_bytes().splitlines()]


def test_a_finished_output_leaves_nothing_beside_it(tmp_path):
    with journaled(tmp_path) as folder:
        folder.add(DONE[0])
        folder.add_text("weights", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), RuntimeError("bug")])
def test_an_interrupted_run_is_gone_on_with_as_it_was_begun(tmp_path, error):
    raised, left = left_by(tmp_path, error)
    assert raised is error
    assert "Go on with --resume" in "".join(raised.__notes__)
    assert lines(left) == [{"subject": SUBJECT, "choices": {"block": 7}}, *DONE]
    with journaled(tmp_path, choices={"block": 9}, resume=True) as folder:
        assert folder.entries == DONE
        assert folder.choices == {"block": 7}
        assert (folder.staging / "weights").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_run_that_had_done_nothing_leaves_nothing_and_says_nothing(tmp_path):
    raised, left = left_by(tmp_path, KeyboardInterrupt(), entries=[])
    assert not hasattr(raised, "__notes__")
    assert not left.exists()


def test_a_killed_run_that_had_done_nothing_is_in_nobodys_way(tmp_path):
    left = tmp_path / ".out.partial"
    (left / "files").mkdir(parents=True)
    (left / "files" / "weights").write_text("zeros")
    (left / "journal").write_text(json.dumps({"subject": {}, "choices": {}}) + "\n")
    with journaled(tmp_path) as folder:
        assert folder.entries == []
        assert list(folder.staging.iterdir()) == []


def test_wrong_inputs_remove_everything_and_passing_trouble_does_not(tmp_path):
    _, left = left_by(tmp_path, AlliageError(Problem("a.bin", "holds NaN.")))
    assert not left.exists()
    raised, left = left_by(tmp_path, TransientError(Problem("a.bin", "cannot be reached.")))
    assert lines(left)[1:] == DONE
    assert "Go on with --resume" in raised.__notes__[0]


def test_a_full_disk_is_named_and_removes_nothing_that_is_done(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")  # as write() says it: without a file
    raised, left = left_by(tmp_path, full)
    assert isinstance(raised, TransientError)
    assert str(raised) == f"{tmp_path / 'out'}: No space left on device. Make room."
    assert lines(left)[1:] == DONE


def test_without_resume_an_interrupted_run_is_refused_and_kept(tmp_path):
    _, left = left_by(tmp_path, KeyboardInterrupt())
    before = (left / "journal").read_bytes()
    refused(tmp_path, r"left its work.*--resume.*or remove")
    assert (left / "journal").read_bytes() == before
    assert (left / "files" / "weights").read_text() == "whole"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"recipe": {"method": "average", "models": ["a", "b"]}},
         "recipe method was 'ties', now 'average'"),
        ({"recipe": {"method": "ties", "models": ["a", "c"]}},
         "recipe models 2 was 'b', now 'c'"),
        ({"inputs": {"a.bin": [4, 2]}}, "inputs a.bin 2 was 1, now 2"),
        ({"inputs": {}}, "inputs a.bin was [4, 1], now None"),
        ({"recipe": {"method": "t" * 90, "models": ["a", "b"]}}, "recipe method differs."),
    ],
)  # fmt: skip
def test_another_run_is_refused_and_told_what_differs(tmp_path, changed, said):
    _, left = left_by(tmp_path, KeyboardInterrupt())
    with (
        pytest.raises(UsageError) as caught,
        journaled(tmp_path, SUBJECT | changed, resume=True),
    ):
        pass
    assert said in str(caught.value)
    assert lines(left)[1:] == DONE


@pytest.mark.parametrize("tail", [b'{"par', b"\0" * 40 + b"\n", b'[2]\n{"part": 2}\n', b"\xff\n"])
def test_what_follows_a_damaged_line_is_not_believed_nor_kept(tmp_path, tail):
    _, left = left_by(tmp_path, KeyboardInterrupt())
    with (left / "journal").open("ab") as journal:
        journal.write(tail)
    _, left = left_by(tmp_path, KeyboardInterrupt(), [{"part": 2}], resume=True)
    assert lines(left)[1:] == [*DONE, {"part": 2}]


GARBAGE = [b"mine\n", b"{}\n", b'{"part": 1}\n{"part": 2}\n', b"\0\n" * 9]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_journal_of_garbage_is_left_alone(tmp_path, garbage):
    _, left = left_by(tmp_path, KeyboardInterrupt())
    (left / "journal").write_bytes(garbage)
    for resume in (True, False):
        refused(tmp_path, r"journal: is damaged.*Remove .*\.out\.partial", resume=resume)
    assert (left / "journal").read_bytes() == garbage
    assert (left / "files" / "weights").read_text() == "whole"


def test_one_writer_at_a_time(tmp_path):
    with journaled(tmp_path) as first:
        for resume in (True, False):
            refused(tmp_path, "is being written by another process", resume=resume)
        first.add_text("weights", "whole")
    assert (tmp_path / "out" / "weights").read_text() == "whole"


def test_a_writer_that_has_only_begun_keeps_its_journal(tmp_path):
    """Between locking its journal and writing the first line."""
    home = tmp_path / ".out.partial"
    home.mkdir()
    held = lock_file(home / "journal")
    refused(tmp_path, "is being written by another process")
    assert (home / "journal").exists()
    os.close(held)


def test_a_writer_that_waited_for_the_end_of_another_leaves_nothing(tmp_path):
    late = journaled(tmp_path)
    with journaled(tmp_path):
        pass
    with pytest.raises(UsageError, match="exists already"), late:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_output_that_appeared_meanwhile_is_left_alone_and_the_work_kept(tmp_path):
    with pytest.raises(UsageError, match="exists already") as caught:
        work(tmp_path, appearing=True)
    assert "Go on with --resume" in caught.value.__notes__[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert work(tmp_path, entries=[], resume=True) == DONE
    assert (tmp_path / "out" / "weights").read_text() == "whole"


_LIMITED = """
import resource, sys
from pathlib import Path
from alliage.checkpoints.journal import JournaledFolder
with JournaledFolder(sys.argv[1], {}, {}, resume=False) as folder:
    folder.add({"part": 0})
    size = (Path(sys.argv[1]).parent / ".out.partial" / "journal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, size + 5))
    folder.add({"part": 1})
"""


def test_a_line_that_did_not_fit_leaves_no_half(tmp_path):
    """As on a full disk, the system first takes a part of the line and then none."""
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, out], capture_output=True, text=True, check=False
    )
    assert "File too large" in done.stderr
    assert "Go on with --resume" in done.stderr  # Python shows an exception's notes
    written = (tmp_path / ".out.partial" / "journal").read_bytes()
    assert written.endswith(b'{"part": 0}\n')


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(UsageError, match=f"{tmp_path} cannot be written to"):
            journaled(tmp_path)
    finally:
        tmp_path.chmod(0o755)
