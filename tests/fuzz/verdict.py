"""What one case may come to, and how outcomes are sorted into classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from alliage.errors import AlliageError


class Violation(Exception):
    """The program did something that no input may make it do."""


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of hostile input.

    Attributes:
        name: for the table.
        make: writes one input into an empty folder.
        check: reads the folder and returns the outcome's class; raises Violation.
    """

    name: str
    make: Callable[[Random, Path], None]
    check: Callable[[Path], str]

    def case(self, seed: int, number: int, folder: Path) -> str:
        """Make case `number` of a seed in an empty folder and check it."""
        self.make(Random(f"{seed}/{self.name}/{number}"), folder)
        return self.judge(folder)

    def judge(self, folder: Path) -> str:
        """Check a folder that is made: its class, "refused: ..." for an error with a message."""
        before = snapshot(folder)
        try:
            outcome = self.check(folder)
        except AlliageError as error:
            outcome = f"refused: {sort(error)}"
        if snapshot(folder) != before:
            raise Violation(f"files were written: {sorted(snapshot(folder) ^ before)[:3]}")
        return outcome


def sort(error: AlliageError) -> str:
    """The first problem of an error without what differs from case to case."""
    if not error.problems or not all(problem.what for problem in error.problems):
        raise Violation("an error without a message")
    return general(error.problems[0].what)


def general(message: str) -> str:
    """A message without names, numbers and what follows a colon."""
    message = re.sub(
        r"'[^']*'|\"[^\"]*\"|`[^`]*`|[\[{(].*[\]})]|\[.*", "…", message[:300], flags=re.S
    )
    message = re.sub(r"-?\d[\d.e+]*", "N", message.partition(": ")[0])
    return " ".join(message.split())[:70]


def snapshot(folder: Path) -> set[tuple[str, int, int, int]]:
    """Every file below a folder with its kind, size and time."""
    found = set()
    for path in folder.rglob("*"):
        status = path.lstat()
        name = str(path.relative_to(folder)).encode(errors="backslashreplace").decode()
        found.add((name, status.st_mode, status.st_size, status.st_mtime_ns))
    return found
