"""Locks on files, which the system lets go of when their process ends, however it does."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def lock_file(path: Path) -> int | None:
    """Open a file, made if missing, and lock it until its descriptor is closed.

    Returns:
        the descriptor, to append by; nothing where whoever held the file has just removed it, or
        its folder: try again.

    Raises:
        BlockingIOError: somebody else has it.
    """
    with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as undo:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        undo.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == path.stat().st_ino:
            undo.pop_all()
            return fd
    return None
