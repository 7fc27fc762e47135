"""Models as points in the plane, and the picture of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_TITLES = {"pca": "principal components of distances", "mds": "classical scaling"}
# Okabe & Ito 2008, told apart with any colour vision; without the yellow that white swallows.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^DvP"
_DIRECTIONS = [(math.cos(turn * math.pi / 4), math.sin(turn * math.pi / 4)) for turn in range(8)]
_REACH = (7, 16, 28, 42, 60, 80)  # points between a marker and its label, tried in turn


@dataclass(frozen=True)
class TaskMap:
    """Where models lie in the plane.

    Attributes:
        names: the models', n of them.
        coordinates: float64 [n, 2].
        explained: float64 [2], the share of the variance on each axis.
        metric: of the distances.
        method: "pca" or "mds".
    """

    names: tuple[str, ...]
    coordinates: npt.NDArray[np.float64]
    explained: npt.NDArray[np.float64]
    metric: str
    method: str

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
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 5.5), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for index, (x, y) in enumerate(self.coordinates):
            colour = _COLOURS[index % len(_COLOURS)]
            marker = _MARKERS[index // len(_COLOURS) % len(_MARKERS)]
            axes.scatter(x, y, s=42, color=colour, marker=marker, zorder=3)
        axes.set_title(f"{self.metric}: {_TITLES[self.method]}", loc="left")
        axes.set_xlabel(f"first axis ({self.explained[0]:.0%} of variance)")
        axes.set_ylabel(f"second axis ({self.explained[1]:.0%} of variance)")
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.15)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        canvas.draw()  # fixes the scale that labels are placed by
        figure.set_layout_engine("none")
        _label(axes, self.names, self.coordinates)
        return figure


def _label(axes: Any, names: Sequence[str], coordinates: npt.NDArray[np.float64]) -> None:
    """Write each name beside its point, at the first place that is free."""
    from matplotlib.transforms import Bbox

    renderer = axes.figure.canvas.get_renderer()
    pixel = axes.figure.dpi / 72
    points = axes.transData.transform(coordinates)
    page = axes.figure.bbox.padded(-10)  # text is a little wider at other resolutions
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points]
    for name, (x, y), place in zip(names, coordinates, points, strict=True):
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=9)
        size = text.get_window_extent(renderer)
        best: tuple[int, Bbox, tuple[float, float], tuple[float, float]] | None = None
        for reach, (right, up) in itertools.product(_REACH, _DIRECTIONS):
            # The label's nearest edge or corner lies `reach` points away.
            left = reach * pixel * right + (right - 1) / 2 * size.width
            below = reach * pixel * up + (up - 1) / 2 * size.height
            box = Bbox.from_bounds(place[0] + left, place[1] + below, size.width, size.height)
            outside = not _contains(page, box)
            conflicts = sum(box.overlaps(other) for other in taken) + outside
            if best is None or conflicts < best[0]:
                edge = (reach * right, reach * up)
                best = (conflicts, box, (left / pixel, below / pixel), edge)
            if not conflicts:
                break
        assert best is not None
        _, box, offset, edge = best
        taken.append(box.padded(1))
        text.set_position(offset)
        if math.hypot(*edge) > _REACH[1]:
            line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", (x, y), edge, textcoords="offset points", arrowprops=line)


def _contains(outer: Any, inner: Any) -> bool:
    return bool(
        outer.x0 <= inner.x0
        and inner.x1 <= outer.x1
        and outer.y0 <= inner.y0
        and inner.y1 <= outer.y1
    )
