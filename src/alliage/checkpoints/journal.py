"""An output that survives being killed: what is done is written down, and a new run goes on there.

    .OUT.partial/journal   one JSON object a line, the first says what is being made
    .OUT.partial/files/    the output itself; renamed to OUT when complete

The journal is locked while a process works on the output; the lock dies with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from alliage.checkpoints.writer import OutputFolder, refuse_existing, sync_folder
from alliage.errors import Problem, UsageError


class JournaledFolder(OutputFolder):
    """An output folder with a journal beside it.

    Leaving the `with` block without an error renames the files to the output. A wrong input
    (`AlliageError`) removes everything; any other end leaves what the journal knows to be done.

    Attributes:
        entries: what an interrupted run has written down, without the first line.
    """

    def __init__(self, out: str | Path, subject: Mapping[str, Any], *, resume: bool) -> None:
        """Prepare to make `out`; nothing is written before the `with` block.

        Args:
            out: a path that does not exist.
            subject: what is being made, as plain values: a run with another subject cannot go on.
            resume: whether to go on where an interrupted run ended, if there was one.

        Raises:
            UsageError: `out` exists, or its parent cannot be written to.
        """
        super().__init__(out)
        self.entries: list[dict[str, Any]] = []
        self._subject = json.loads(json.dumps(subject))
        self._resume = resume
        self._home = self.out.parent / f".{self.out.name}.partial"
        self._journal = self._home / "journal"
        self._fd = -1
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(self._home) and (self._home.is_symlink() or not self._home.is_dir()):
            raise self._unreadable(self._home, "is no folder")
        self._home.mkdir(exist_ok=True)
        self._take()
        try:
            self._read()
        except BaseException:
            self._let_go()
            raise
        self.staging = self._home / "files"
        self.staging.mkdir(exist_ok=True)
        return self

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write down what was done, durably; any thread may call it."""
        with self._lock:
            os.write(self._fd, json.dumps(entry).encode() + b"\n")
            os.fdatasync(self._fd)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                sync_folder(self.staging)
                refuse_existing(self.out)  # it may have appeared meanwhile
                self.staging.rename(self.out)
                sync_folder(self.out.parent)
                shutil.rmtree(self._home)
            elif self.is_worthless(kind):
                shutil.rmtree(self._home, ignore_errors=True)
        finally:
            self._let_go()

    def is_worthless(self, kind: type[BaseException]) -> bool:
        """Whether a failed run left nothing that a new one could go on with."""
        from alliage.errors import AlliageError

        return issubclass(kind, AlliageError) or self._journal.stat().st_size <= self._first_line

    def _take(self) -> None:
        """Lock the journal.

        Raises:
            UsageError: another process has it.
        """
        while True:
            if os.path.lexists(self._journal) and not stat.S_ISREG(self._journal.lstat().st_mode):
                raise self._unreadable(self._journal, "is no file")
            self._fd = os.open(self._journal, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._fd)
                self._fd = -1
                what = "is being written by another process."
                raise UsageError(
                    Problem(str(self.out), what, "Wait for it, or choose another output.")
                ) from None
            # Whoever held it before may have finished and removed it since it was opened.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(self._fd).st_ino == self._journal.stat().st_ino:
                    return
            os.close(self._fd)
            self._home.mkdir(exist_ok=True)

    def _unreadable(self, path: Path, what: str) -> UsageError:
        where = f"Remove {self._home}, or choose another output."
        return UsageError(Problem(str(path), f"{what}; expected an interrupted run's.", where))

    def _read(self) -> None:
        """Take what the journal says, or begin it.

        Raises:
            UsageError: an interrupted run was left that this one does not or cannot go on with.
        """
        refuse_existing(self.out)
        lines = self._journal.read_bytes().split(b"\n")
        # A killed process may have left half a line, a lost disk worse; what follows is not known.
        whole = list(itertools.takewhile(_is_object, lines[:-1]))
        if lines[:-1] and not whole:
            raise self._unreadable(self._journal, "is damaged")
        first = json.dumps(self._subject).encode()
        self._first_line = len(first) + 1
        if not whole or not (self._home / "files").is_dir():  # new, or finished but for this
            os.ftruncate(self._fd, 0)
            shutil.rmtree(self._home / "files", ignore_errors=True)
            self.add(self._subject)
            return
        found = json.loads(whole[0])
        if not self._resume:
            raise UsageError(
                Problem(
                    str(self.out),
                    f"an interrupted run left its work in {self._home}.",
                    "Go on with --resume (resume=True), or remove that folder.",
                )
            )
        different = [
            key for key in {**found, **self._subject} if found.get(key) != self._subject.get(key)
        ]
        if different:
            raise UsageError(
                Problem(
                    str(self.out),
                    f"the interrupted run in {self._home} was another one: "
                    f"{', '.join(sorted(different))} differ.",
                    "Run it as it was begun, or remove that folder.",
                )
            )
        self.entries = [json.loads(line) for line in whole[1:]]
        os.ftruncate(self._fd, sum(len(line) + 1 for line in whole))

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except ValueError:
        return False


def begun(out: Path) -> dict[str, Any] | None:
    """What an interrupted run to `out` was making, or nothing."""
    journal = out.parent / f".{out.name}.partial" / "journal"
    with contextlib.suppress(OSError, ValueError):
        first: dict[str, Any] = json.loads(journal.read_bytes().split(b"\n", 1)[0])
        return first
    return None
