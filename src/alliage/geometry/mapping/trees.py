"""Models as a tree, and their distances as a heat map in the tree's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alliage.geometry.mapping.clustering import average_linkage, leaf_order
from alliage.geometry.mapping.drawing import blank
from alliage.geometry.mapping.maps import is_directed
from alliage.geometry.mapping.picture import Picture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ON_DARK = 0.55  # share of the colours' range from which on dark ink shows better than white


@dataclass(frozen=True, repr=False, eq=False)
class Dendrogram(Picture):
    """Models joined into groups, the nearest first.

    Attributes:
        names: the models', n of them, in the order given.
        tree: scipy's linkage matrix [n − 1, 4] by average linkage, leaves in the best order.
        metric: of the distances.
    """

    names: tuple[str, ...]
    tree: npt.NDArray[np.float64]
    metric: str

    @classmethod
    def of(cls, names: Sequence[str], distances: npt.ArrayLike, metric: str) -> Dendrogram:
        """The tree of a distance matrix [n, n], n from 2."""
        return cls(tuple(names), average_linkage(distances), metric)

    @property
    def order(self) -> tuple[str, ...]:
        """The models from the first leaf to the last: near ones stand side by side."""
        return tuple(self.names[leaf] for leaf in leaf_order(self.tree))

    def to_pandas(self) -> pd.DataFrame:
        """One row for each join, lowest first: "first" and "second" group, "height", "models"."""
        import pandas as pd

        groups: list[tuple[str, ...]] = [(name,) for name in self.names]
        rows = []
        for first, second, height, count in self.tree.tolist():
            joined = [groups[int(first)], groups[int(second)]]
            groups.append(joined[0] + joined[1])
            rows.append((*(", ".join(group) for group in joined), height, int(count)))
        return pd.DataFrame(rows, columns=["first", "second", "height", "models"])

    def figure(self) -> Figure:
        """The tree from left to right, names at its leaves."""
        from scipy.cluster import hierarchy

        n = len(self.names)
        figure, axes = blank(7, max(2.0, 1.0 + 0.3 * n))
        drawn = hierarchy.dendrogram(self.tree, no_plot=True)
        for ys, xs in zip(drawn["icoord"], drawn["dcoord"], strict=True):
            # scipy puts the leaf k at 10 k + 5.
            axes.plot(xs, [y / 10 - 0.5 for y in ys], color="#0072B2", linewidth=1.6)
        axes.set_yticks(range(n), self.order)
        axes.set_ylim(n - 0.5, -0.5)
        # From 0 on, joins at about one height, as of unrelated models, would be one line.
        low, high = float(self.tree[0, 2]), float(self.tree[-1, 2])
        room = (high - low) or high or 1.0
        axes.set_xlim(max(0.0, low - room / 3), high + room / 20)
        axes.set_xlabel(f"{self.metric}: mean distance of the groups joined")
        axes.set_title(f"{self.metric}: average linkage", loc="left")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return figure

    def __repr__(self) -> str:
        return f"<Dendrogram of {len(self.names)} models: {self.metric}, average linkage>"


@dataclass(frozen=True, repr=False, eq=False)
class HeatMap(Picture):
    """A matrix over pairs of models, near ones side by side.

    Attributes:
        names: the models' in the order drawn, n of them.
        values: float64 [n, n] in that order; NaN where nothing is defined.
        metric: of the values.
        directed: whether [i, j] and [j, i] say different things: of i, in j.
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float64]
    metric: str
    directed: bool

    @classmethod
    def of(
        cls, names: Sequence[str], values: npt.ArrayLike, metric: str, *, distance: bool = True
    ) -> HeatMap:
        """The heat map of a matrix [n, n].

        Distances are ordered by `average_linkage`. What is directed goes by how much of the others
        a model holds, most first; what is no distance or not defined everywhere stays as it is.
        """
        matrix = np.asarray(values, dtype=np.float64)
        directed = is_directed(matrix)
        order = list(range(len(matrix)))
        if directed:
            others = ~np.eye(len(matrix), dtype=bool) & np.isfinite(matrix)
            held = np.where(others, matrix, 0.0).sum(axis=0) / np.maximum(others.sum(axis=0), 1)
            order.sort(key=lambda model: -held[model])
        elif distance and len(matrix) > 1 and np.isfinite(matrix).all():
            order = leaf_order(average_linkage(matrix))
        ordered = matrix[np.ix_(order, order)]
        return cls(tuple(names[index] for index in order), ordered, metric, directed)

    def to_pandas(self) -> pd.DataFrame:
        """The matrix, in the order drawn."""
        import pandas as pd

        return pd.DataFrame(
            self.values,
            index=pd.Index(self.names, name="task"),
            columns=pd.Index(self.names, name="other"),
        )

    def figure(self) -> Figure:
        """Cells in cividis, which all colour vision reads alike, with their numbers."""
        from matplotlib import colormaps

        n = len(self.names)
        side = max(3.0, 0.62 * n)
        figure, axes = blank(side + 2.6, side + 1.4)
        shown = np.ma.masked_invalid(self.values)
        apart = self.values[~np.eye(n, dtype=bool) & np.isfinite(self.values)]
        # Off the diagonal: its values would take the contrast from all others.
        low, high = (apart.min(), apart.max()) if apart.size else (0.0, 1.0)
        colours = colormaps["cividis"].with_extremes(bad="0.9")
        image = axes.imshow(shown, cmap=colours, vmin=low, vmax=high)
        for (row, column), value in np.ndenumerate(self.values):
            if np.isfinite(value):
                ink = "white" if _share(value, low, high) < _ON_DARK else "black"
                axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=8,
                          color=ink)  # fmt: skip
        axes.set_xticks(range(n), self.names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(n), self.names)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if self.directed:
            axes.set_ylabel("of this model …")
            axes.set_xlabel("… in this one")
        axes.set_title(self.metric, loc="left")
        figure.colorbar(image, ax=axes, shrink=0.6)
        return figure

    def __repr__(self) -> str:
        return f"<HeatMap of {len(self.names)} models: {self.metric}>"


def _share(value: Any, low: float, high: float) -> float:
    return float((value - low) / (high - low)) if high > low else 0.0
