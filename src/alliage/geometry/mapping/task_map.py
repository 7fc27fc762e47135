"""Models as points in the plane, and the picture of it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from alliage.geometry.mapping.drawing import (
    blank,
    look,
    room_for,
    settle,
    unwritten,
    write_labels,
)
from alliage.geometry.mapping.maps import Embedding, classical_mds, principal_components
from alliage.geometry.mapping.nonmetric import (
    is_collapsed,
    nonmetric_mds,
    rank_agreement,
    stress,
)
from alliage.geometry.mapping.picture import Picture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class MapMethod(NamedTuple):
    """A way from distances to points.

    Attributes:
        embed: the function.
        title: what it is, in words.
        shares: whether its axes have shares of a variance worth telling.
    """

    embed: Callable[[npt.ArrayLike], Embedding]
    title: str
    shares: bool


MAPS: Mapping[str, MapMethod] = {
    "pca": MapMethod(principal_components, "principal components of distances", True),
    "mds": MapMethod(classical_mds, "classical scaling", True),
    "nonmetric": MapMethod(nonmetric_mds, "non-metric scaling", False),
}


COLLAPSED = "Groups fell into points: it shows no more than which are near."


@dataclass(frozen=True, repr=False, eq=False)
class TaskMap(Picture):
    """Where models lie in the plane.

    Attributes:
        names: the models', n of them.
        coordinates: float64 [n, 2].
        explained: float64 [2], the share of the variance on each axis.
        metric: of the distances.
        method: "pca", "mds" or "nonmetric".
        stress: Kruskal's stress-1 of the map, 0 where it keeps the order of all distances.
        agreement: Spearman's rank correlation of distances on the map with those measured.
    """

    names: tuple[str, ...]
    coordinates: npt.NDArray[np.float64]
    explained: npt.NDArray[np.float64]
    metric: str
    method: str
    stress: float
    agreement: float

    @classmethod
    def of(
        cls, names: Sequence[str], distances: npt.ArrayLike, metric: str, method: str
    ) -> TaskMap:
        """Make the map of a distance matrix [n, n] by one of `MAPS`."""
        coordinates, explained = MAPS[method].embed(distances)
        kept = stress(distances, coordinates), rank_agreement(distances, coordinates)
        return cls(tuple(names), coordinates, explained, metric, method, *kept)

    def to_pandas(self) -> pd.DataFrame:
        """Coordinates with the columns "first" and "second", one row for each model."""
        import pandas as pd

        return pd.DataFrame(
            self.coordinates,
            index=pd.Index(self.names, name="task"),
            columns=["first", "second"],
        )

    def figure(self) -> Figure:
        """A scatter plot with one label for each model; labels do not lie on each other."""
        grown = room_for(len(self.names))
        figure, axes = blank(7 * grown, 5.8 * grown)
        for index, (x, y) in enumerate(self.coordinates):
            colour, marker, _ = look(index)
            axes.scatter(x, y, s=42, color=colour, marker=marker, zorder=3)
        method = MAPS[self.method]
        axes.set_title(f"{self.metric}: {method.title}", loc="left")
        shares = [
            f" ({share:.0%} of variance)" if method.shares else "" for share in self.explained
        ]
        axes.set_xlabel(f"first axis{shares[0]}")
        axes.set_ylabel(f"second axis{shares[1]}")
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.15)
        axes.grid(alpha=0.25)
        caption = figure.supxlabel(
            textwrap.fill(self.quality(), 105), x=0.01, ha="left", fontsize=8.5, color="0.35"
        )
        settle(figure)
        left_out = write_labels(axes, self.names, self.coordinates)
        caption.set_text(textwrap.fill(self.quality() + unwritten(left_out), 105))
        return figure

    def quality(self) -> str:
        """How well distances on the map keep the measured ones, in words."""
        said = kept_distances(self.stress, self.agreement)
        if self.method == "nonmetric" and is_collapsed(self.coordinates):
            said += " " + COLLAPSED
        return said

    def __repr__(self) -> str:
        title = MAPS[self.method].title
        return f"<TaskMap of {len(self.names)} models: {self.metric}, {title}. {self.quality()}>"


def kept_distances(stress: float, agreement: float) -> str:
    """A map's stress-1 and rank correlation as a sentence."""
    if math.isnan(agreement):
        return "Too few different distances to say how well the map keeps them."
    return (
        f"Distances on the map against those measured: rank correlation {agreement:.2f}, "
        f"stress-1 {stress:.3f}."
    )
