"""The picture of who contains whom."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from alliage.geometry.mapping.containment import (
    arrows,
    bends,
    contained,
    places,
    reachable,
    reduced,
)
from alliage.geometry.mapping.drawing import (
    blank,
    look,
    room_for,
    settle,
    unwritten,
    write_labels,
)
from alliage.geometry.mapping.picture import Picture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

ENERGIES = ("core_energy", "explained_energy")  # shares of energy, the better first
MARGIN = 0.1
_CLEAR = 9.0  # points between an arrow and a model: the marker, half of the widest line, and air
CLOSER = 3.0  # standard deviations above chance


@dataclass(frozen=True, repr=False, eq=False)
class InclusionGraph(Picture):
    """Models, and an arrow from each to those that it lies in.

    An arrow stands where the share of i's energy in j's space exceeds what random spaces give by 3
    standard deviations, and the share of j's in i's by the margin.

    Attributes:
        names: the models', n of them.
        energies: float64 [n, n], the share of i's energy in j's space.
        chance: float64 [n, n], the mean for random spaces; NaN where it is not known.
        relation: bool [n, n], True where i lies in j.
        drawn: bool [n, n], the arrows drawn: those that go along others are left out.
        metric: of the energies.
        margin: by what part of the reverse a share must exceed it.
    """

    names: tuple[str, ...]
    energies: Array
    chance: Array
    relation: npt.NDArray[np.bool_]
    drawn: npt.NDArray[np.bool_]
    metric: str
    margin: float

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        energies: npt.ArrayLike,
        metric: str,
        *,
        chance: npt.ArrayLike | None = None,
        chance_sd: npt.ArrayLike | None = None,
        margin: float = MARGIN,
    ) -> InclusionGraph:
        """The graph of shares [n, n], i's in j.

        Args:
            names: of the models.
            energies: from 0 to 1.
            metric: their name.
            chance: [n, n], their mean for random spaces; not tested where it is NaN or missing.
            chance_sd: [n, n], their standard deviation.
            margin: 0 or more.

        Raises:
            ValueError: not [n, n], or a margin below 0.
        """
        shares = np.asarray(energies, dtype=np.float64)
        missing = np.full_like(shares, np.nan)
        expected = missing if chance is None else np.asarray(chance, dtype=np.float64)
        spread = np.zeros_like(shares) if chance_sd is None else np.asarray(chance_sd, np.float64)
        floor = np.nan_to_num(expected + CLOSER * np.nan_to_num(spread))
        relation = contained(shares, floor, margin)
        return cls(
            tuple(names), shares, expected, relation, reduced(relation), metric, margin
        )  # fmt: skip

    def to_pandas(self) -> pd.DataFrame:
        """Every ordered pair: share of "model" in "into", the reverse, and what is made of it."""
        import pandas as pd

        n = len(self.names)
        rows = [
            (self.names[i], self.names[j], self.energies[i, j], self.energies[j, i],
             self.chance[i, j], bool(self.relation[i, j]), bool(self.drawn[i, j]))
            for i in range(n) for j in range(n) if i != j
        ]  # fmt: skip
        columns = ["model", "into", "share", "reverse", "chance", "contained", "drawn"]
        return pd.DataFrame(rows, columns=columns)

    def figure(self) -> Figure:
        """Arrows point upwards, from what is contained to what contains it; wider is more."""
        from matplotlib.patches import FancyArrowPatch

        points = places(self.drawn)
        rows = int(points[:, 1].max(initial=0.0)) + 1
        figure, axes = blank(7.5 * room_for(len(self.names)), max(2.6, 1.3 * rows + 1.3))
        axes.set_title(f"Who lies in whom, by {self.metric}", loc="left")
        axes.set_axis_off()
        axes.set_xlim(-0.05, 1.05)
        axes.set_ylim(-0.6, rows - 0.4)
        caption = figure.supxlabel(
            textwrap.fill(self.rule(), 110), x=0.01, ha="left", fontsize=8.5, color="0.35"
        )
        for index, (x, y) in enumerate(points):
            colour, marker, _ = look(index)
            axes.scatter(x, y, s=55, color=colour, marker=marker, zorder=3)
        settle(figure)
        box = axes.bbox
        where = axes.transData.transform(points)
        bows = bends(self.drawn, where, _CLEAR * figure.dpi / 72, (box.x0, box.y0, box.x1, box.y1))
        most = float(self.energies[self.drawn].max(initial=1e-300))
        for i, j in arrows(self.drawn):
            arrow = FancyArrowPatch(
                points[i], points[j], arrowstyle="-|>", mutation_scale=12, shrinkA=7, shrinkB=7,
                color="0.35", linewidth=0.7 + 2.3 * self.energies[i, j] / most,
                connectionstyle=f"arc3,rad={bows[i, j]}",
            )  # fmt: skip
            axes.add_patch(arrow)
        left_out = write_labels(axes, self.names, points)
        caption.set_text(textwrap.fill(self.rule() + unwritten(left_out), 110))
        return figure

    def rule(self) -> str:
        """When an arrow is drawn, in words."""
        against = "" if np.isnan(self.chance[~np.eye(len(self.names), dtype=bool)]).all() else (
            "more than random spaces would hold, and "
        )  # fmt: skip
        rule = f"Arrow: {against}at least {self.margin:.0%} more than the other way round."
        if not self.drawn.any():
            return f"{rule} There is none."
        shares = self.energies[self.drawn]
        said = (
            f"{rule} {len(shares)} drawn, for shares from {shares.min():.2g} to {shares.max():.2g}"
        )
        left = int(self.relation.sum()) - len(shares)
        if left:
            said += f"; {left} more go along paths of these"
        loose = int((reachable(self.drawn) & ~self.relation).sum())
        if loose:
            said += f"; {loose} paths are no inclusion from end to end"
        return said + "."

    def __repr__(self) -> str:
        count = int(self.relation.sum())
        return f"<InclusionGraph of {len(self.names)} models: {self.metric}, {count} inclusions>"
