"""What all pictures of a survey have in common."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Picture(ABC):
    """A picture that shows itself in a notebook, and the numbers behind it."""

    @abstractmethod
    def figure(self) -> Figure:
        """The picture, drawn by matplotlib."""

    @abstractmethod
    def to_pandas(self) -> pd.DataFrame:
        """The numbers drawn."""

    @abstractmethod
    def __repr__(self) -> str:
        """What it is, in one line."""

    def svg(self) -> str:
        """The picture as SVG; the same numbers give the same text."""
        import matplotlib as mpl

        text = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "alliage"}):
            self.figure().savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        return text.getvalue()

    def _repr_svg_(self) -> str:
        return self.svg()
