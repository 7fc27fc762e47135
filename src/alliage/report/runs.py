"""What one command measured is kept apart from what another did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

# Tables whose rows mean nothing beside those of a run with other options.
BY_RUN = ("inclusion", "interference", "spectra")


class Run(NamedTuple):
    """The rows of one run.

    Attributes:
        title: "run 2: --rank 4", with what tells its command from the others; empty where there
            is no other run.
        rows: of the table.
    """

    title: str
    rows: pd.DataFrame

    def named(self, words: str) -> str:
        """The words, and of which run they are."""
        return f"{words}, {self.title}" if self.title else words


def by_run(table: pd.DataFrame) -> list[Run]:
    """The runs of a table as `read_table` gives it with `runs`; one of all rows without them."""
    if table.empty:
        return []
    if "run" not in table or table["run"].nunique() == 1:
        return [Run("", table)]
    parts = [part for _, part in table.groupby("run", sort=True)]
    apart = _apart([str(part["command"].iloc[0]) for part in parts])
    titles = [
        f"run {number}: {words}" if words else f"run {number}"
        for number, words in enumerate(apart, 1)
    ]
    return [Run(title, part) for title, part in zip(titles, parts, strict=True)]


def _apart(commands: Sequence[str]) -> list[str]:
    """The words and options of each command that not all of them have."""
    options = [_options(command) for command in commands]
    shared = set.intersection(*(set(each) for each in options))
    return [" ".join(option for option in each if option not in shared) for each in options]


def _options(command: str) -> list[str]:
    """The words of a command, each option together with its value."""
    found: list[str] = []
    for word in command.split():
        if found and found[-1].startswith("-") and " " not in found[-1] and word[0] != "-":
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found
