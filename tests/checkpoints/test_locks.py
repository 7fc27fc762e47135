"""Locks on files that their holders remove."""

import os

import pytest

from alliage.checkpoints import locks
from alliage.checkpoints.locks import lock_file


def test_one_has_it_until_its_descriptor_is_closed(tmp_path):
    held = lock_file(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock")
    os.close(held)
    again = lock_file(tmp_path / "lock")
    assert again is not None
    os.close(again)


@pytest.mark.parametrize("anew", [False, True])
def test_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch, anew):
    """Its holder let go of it between opening and locking; another one may have made it anew."""
    path, opened = tmp_path / "lock", []

    def late(fd, how, flock=locks.fcntl.flock):
        opened.append(fd)
        path.unlink()
        if anew:
            path.touch()
        flock(fd, how)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    assert lock_file(path) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_a_folder_that_is_not_there_has_no_lock(tmp_path):
    assert lock_file(tmp_path / "gone" / "lock") is None
