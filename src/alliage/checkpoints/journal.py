"""An output that survives being killed: what is done is written down, and a new run goes on there.

    .OUT.partial/journal   one JSON object a line, the first says what is being made
    .OUT.partial/files/    the output itself; renamed to OUT when complete

The journal is locked while a process works on the output; the lock dies with the process. What it
says is on the disk: whoever adds a line has synced the data that the line speaks of.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from alliage.checkpoints.locks import lock_file
from alliage.checkpoints.writer import (
    OutputFolder,
    is_disk_full,
    refuse_existing,
    sync_folder,
    sync_tree,
)
from alliage.errors import AlliageError, Problem, TransientError, UsageError, brief

_SHORT = 80  # characters of a value in a message


class JournaledFolder(OutputFolder):
    """An output folder with a journal beside it.

    Leaving the `with` block without an error renames the files to the output. A wrong input
    (`AlliageError`, but for `TransientError`) removes everything; any other end leaves what the
    journal knows to be done, and the exception gets a note (PEP 678) that says so.

    Attributes:
        choices: as given, or those of the interrupted run that this one goes on with.
        entries: what that run has written down, without the first line.
    """

    def __init__(
        self,
        out: str | Path,
        subject: Mapping[str, Any],
        choices: Mapping[str, Any],
        *,
        resume: bool,
    ) -> None:
        """Prepare to make `out`; nothing is written before the `with` block.

        Args:
            out: a path that does not exist.
            subject: what is being made, as plain values: a run with another subject cannot go on.
            choices: how it is made, as plain values: a run that goes on takes over what was chosen.
            resume: whether to go on where an interrupted run ended, if there was one.

        Raises:
            UsageError: `out` exists, or its parent cannot be written to.
        """
        super().__init__(out)
        self.entries: list[dict[str, Any]] = []
        self.choices = choices
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
        try:
            self._take()
            self._read()
            self.staging = self._home / "files"
            self.staging.mkdir(exist_ok=True)
            sync_folder(self._home)
            sync_folder(self.out.parent)
        except BaseException as error:
            self._remove_empty()
            self._let_go()
            if is_disk_full(error):
                raise self._disk_full(error) from error
            raise
        return self

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write down what was done, durably and in whole lines; any thread may call it."""
        left = memoryview(json.dumps(entry).encode() + b"\n")
        with self._lock:
            before = os.fstat(self._fd).st_size
            try:
                while left:  # a full disk takes a part
                    left = left[os.write(self._fd, left) :]
                os.fdatasync(self._fd)
            except BaseException:
                os.ftruncate(self._fd, before)
                raise

    def __exit__(self, kind: type[BaseException] | None, error: Any, *_: object) -> None:
        try:
            if error is None:
                self._publish()
                return
            wrong = isinstance(error, AlliageError) and not isinstance(error, TransientError)
            self._give_up(error, worthless=wrong)
        finally:
            self._let_go()

    def _publish(self) -> None:
        try:
            sync_tree(self.staging)
            refuse_existing(self.out)  # it may have appeared meanwhile
            self.staging.rename(self.out)
        except BaseException as error:
            self._give_up(error, worthless=False)
            raise
        sync_folder(self.out.parent)
        # Another process may be about to look into it.
        shutil.rmtree(self._home, ignore_errors=True)

    def _give_up(self, error: BaseException, *, worthless: bool) -> None:
        """Remove what nobody can go on with; say of anything else that it is there.

        Raises:
            TransientError: instead of an `error` by which the system says that the disk is full.
        """
        named = self._disk_full(error) if is_disk_full(error) else error
        if worthless or self._journal.stat().st_size <= self._first_line:
            shutil.rmtree(self._home, ignore_errors=True)
        else:
            named.add_note(f"{self.out}: what is done is kept. Go on with --resume (resume=True).")
        if named is not error:
            raise named from error

    def _disk_full(self, error: BaseException) -> TransientError:
        assert isinstance(error, OSError)
        return TransientError(Problem(str(self.out), f"{error.strerror}.", "Make room."))

    def _take(self) -> None:
        """Make the journal, or open it, and lock it.

        Raises:
            UsageError: another process has it.
        """
        found = None
        while found is None:  # whoever has it may finish at any moment and remove it
            self._home.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(self._journal.lstat().st_mode):
                    raise self._unreadable(self._journal, "is no file")
            try:
                found = lock_file(self._journal)
            except BlockingIOError:
                what = "is being written by another process."
                raise UsageError(
                    Problem(str(self.out), what, "Wait for it, or choose another output.")
                ) from None
        self._fd = found

    def _unreadable(self, path: Path, what: str) -> UsageError:
        where = f"Remove {self._home}, or choose another output."
        return UsageError(Problem(str(path), f"{what}; expected an interrupted run's.", where))

    def _read(self) -> None:
        """Take what the journal says, or begin it.

        Raises:
            UsageError: an interrupted run was left that this one does not or cannot go on with.
        """
        refuse_existing(self.out)  # who held the journal until now may have finished
        lines = self._journal.read_bytes().split(b"\n")
        # A killed process may have left half a line, a lost disk worse; what follows is not known.
        whole = list(itertools.takewhile(_is_object, lines[:-1]))
        first = {"subject": self._subject, "choices": self.choices}
        self._first_line = len(json.dumps(first)) + 1
        begun = json.loads(whole[0]) if whole else {}
        if lines[:-1] and begun.keys() != first.keys():
            raise self._unreadable(self._journal, "is damaged")
        if len(whole) < 2 or not (self._home / "files").is_dir():  # nothing done, or all
            os.ftruncate(self._fd, 0)
            shutil.rmtree(self._home / "files", ignore_errors=True)
            self.add(first)
            return
        if not self._resume:
            raise UsageError(
                Problem(
                    str(self.out),
                    f"an interrupted run left its work in {self._home}.",
                    "Go on with --resume (resume=True), or remove that folder.",
                )
            )
        different = list(_differences(begun["subject"], self._subject))
        if different:
            raise UsageError(
                Problem(
                    str(self.out),
                    f"the interrupted run in {self._home} was another one: {'; '.join(different)}.",
                    "Run it as it was begun, or remove that folder.",
                )
            )
        self._first_line = len(whole[0]) + 1
        self.choices = begun["choices"]
        self.entries = [json.loads(line) for line in whole[1:]]
        os.ftruncate(self._fd, sum(len(line) + 1 for line in whole))

    def _remove_empty(self) -> None:
        """Remove a journal that was only just made."""
        if self._fd >= 0 and not os.fstat(self._fd).st_size:
            self._journal.unlink()
            with contextlib.suppress(OSError):  # there is more in it
                self._home.rmdir()

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except ValueError:
        return False


def _differences(then: Any, now: Any, where: str = "") -> Iterator[str]:
    """Where two plain values differ, and how where that is short."""
    if then == now:
        return
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            yield from _differences(then.get(key), now.get(key), f"{where} {key}".lstrip())
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, pair in enumerate(zip(then, now, strict=True), start=1):
            yield from _differences(*pair, f"{where} {number}")
    else:
        shown = [brief(value) for value in (then, now)]
        short = max(map(len, shown)) <= _SHORT
        yield f"{where} was {shown[0]}, now {shown[1]}" if short else f"{where} differs"


def discard_finished(out: Path) -> None:
    """Remove the journal of a run that was killed after its output had appeared."""
    home = out.parent / f".{out.name}.partial"
    if (home / "journal").is_file() and not (home / "files").exists():
        shutil.rmtree(home, ignore_errors=True)
