"""Errors that say where, what was expected, what was found, and what to do."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 200
_BRIEF.maxlist = _BRIEF.maxdict = 12
_BRIEF.maxlevel = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: the file, tensor or key concerned, as the user would name it.
        what: what was expected and what was found, one sentence.
        fix: what to do about it, one sentence, or nothing where nothing helps.
    """

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.fix}" if self.fix else "")


class AlliageError(Exception):
    """Something failed. Carries every problem that was found, once, not only the first.

    The command line prints each problem on its own line and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        given = (problems,) if isinstance(problems, Problem) else problems
        self.problems = tuple(dict.fromkeys(given))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UsageError(AlliageError):
    """The command, the recipe or an argument is wrong: nothing was started."""

    exit_code = 2


class TransientError(AlliageError):
    """Nothing is wrong with the inputs: the same run may succeed later, and go on with its work."""


class CheckFailed(AlliageError):
    """A check ran to its end and said no."""

    exit_code = 3


class PlugInWarning(UserWarning):
    """An installed package's methods cannot be used; everything else can."""


def brief(value: Any) -> str:
    """A value for a message, cut where it is long or deep.

    >>> brief([0] * 99)
    '[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...]'
    """
    return _BRIEF.repr(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known names nearest to a wrong one, as a sentence.

    >>> nearest("tise", ["ties", "average"])
    "Did you mean 'ties'?"
    >>> nearest("zzz", ["ties", "average"])
    "Known: 'average', 'ties'."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "Known: " + ", ".join(repr(name) for name in names) + "." if names else ""
