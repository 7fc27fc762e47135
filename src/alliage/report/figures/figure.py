"""What a figure is: one or more views to choose from, words, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

DATA_LIMIT = 1_000_000  # characters of a figure's data that go into the page


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture and the line under it; a wide one keeps its size and scrolls in its own box."""

    svg: Markup
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """What is shown for one choice.

    Attributes:
        choice: one option for each of the figure's selectors.
        panels: the pictures, side by side where there is room.
    """

    choice: tuple[str, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """Rows and columns that can be taken away as CSV."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the report.

    Attributes:
        id: unique in the page; also the name of the CSV.
        title: one line.
        caption: how to read it.
        selectors: what the reader chooses, such as "metric"; as many as a view's choices.
        views: at least one.
        data: the numbers drawn.
        tables: names of the results tables that it was made from.
        notes: what was left out, or done with what was missing.
    """

    id: str
    title: str
    caption: str
    selectors: tuple[str, ...]
    views: tuple[View, ...]
    data: Data
    tables: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of the page."""
        return any(len(view.panels) > 1 or view.panels[0].wide for view in self.views)


def data(columns: Sequence[str], rows: Sequence[Sequence[str | float | int | None]]) -> Data:
    """The rows with NaN as None, as many from the first on as `DATA_LIMIT` allows."""
    kept: list[tuple[str | float | int | None, ...]] = []
    room = DATA_LIMIT
    for row in rows:
        room -= sum(len(str(cell)) + 3 for cell in row)  # quotes and comma
        if room < 0:
            break
        kept.append(tuple(None if cell != cell else cell for cell in row))
    return Data(tuple(columns), tuple(kept), len(rows) - len(kept))
