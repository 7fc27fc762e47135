"""What drawings share: colours and shapes that all readers can tell apart, labels that keep clear.

Colour never stands alone: the n-th line differs from its neighbours by marker and dashes too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from alliage.checkpoints.names import stack_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito 2008, told apart with any colour vision; without the yellow that white swallows.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^DvP*Xp"
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

_DIRECTIONS = [(math.cos(turn * math.pi / 4), math.sin(turn * math.pi / 4)) for turn in range(8)]
_REACH = (7, 16, 28, 42, 60, 80)  # points between a marker and its label, tried in turn
_LEADER = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}


class Look(NamedTuple):
    """How the n-th of several things is drawn."""

    colour: str
    marker: str
    dashes: Any


def look(index: int) -> Look:
    """Colours repeat after 7, markers after 9, dashes after 4: alike only after 252."""
    return Look(
        _COLOURS[index % len(_COLOURS)],
        _MARKERS[index % len(_MARKERS)],
        _DASHES[index % len(_DASHES)],
    )


def blank(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of so many inches that no global state of pyplot knows, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def stacks(modules: Iterable[str], layers: Iterable[int]) -> list[str]:
    """The stack of layers that each module is in, to be named where a model has several.

    Args:
        modules: their names.
        layers: of each, below 0 outside the stacks.

    Returns:
        empty names for what is in no stack, and where there is only one.
    """
    found = [
        stack_of(module) if layer >= 0 else ""
        for module, layer in zip(modules, layers, strict=True)
    ]
    return found if len({*found} - {""}) > 1 else [""] * len(found)


def room_for(count: int) -> float:
    """By what factor the sides of a figure with so many labels must grow."""
    return max(1.0, math.sqrt(count / 12))


def unwritten(left_out: int) -> str:
    """What is said of names that found no room."""
    return f" Names without room: {left_out}." if left_out else ""


def settle(figure: Any) -> None:
    """Fix the scale and the place of a figure's axes, which labels are placed by."""
    figure.canvas.draw()
    figure.set_layout_engine("none")


def write_labels(axes: Any, names: Sequence[str], points: npt.NDArray[Any]) -> int:
    """Write each name beside its point, at the first place that is free.

    Args:
        axes: settled.
        names: one for each point.
        points: [n, 2], in the axes' data.

    Returns:
        how many names found no room, and are not written.
    """
    from matplotlib.transforms import Bbox

    renderer = axes.figure.canvas.get_renderer()
    pixel = axes.figure.dpi / 72
    places = axes.transData.transform(points)
    page = axes.bbox.padded(-4)  # text is a little wider at other resolutions
    left_out = 0
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in places]
    for name, (x, y), place in zip(names, points, places, strict=True):
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=9)
        size = text.get_window_extent(renderer)
        for reach, (right, up) in itertools.product(_REACH, _DIRECTIONS):
            # The label's nearest edge or corner lies `reach` points away.
            left = reach * pixel * right + (right - 1) / 2 * size.width
            below = reach * pixel * up + (up - 1) / 2 * size.height
            box = Bbox.from_bounds(place[0] + left, place[1] + below, size.width, size.height)
            if _contains(page, box) and not any(box.overlaps(other) for other in taken):
                taken.append(box.padded(1))
                text.set_position((left / pixel, below / pixel))
                if reach > _REACH[1]:
                    edge = (reach * right, reach * up)
                    axes.annotate("", (x, y), edge, textcoords="offset points", arrowprops=_LEADER)
                break
        else:
            text.remove()
            left_out += 1
    return left_out


def _contains(outer: Any, inner: Any) -> bool:
    return bool(
        outer.x0 <= inner.x0
        and inner.x1 <= outer.x1
        and outer.y0 <= inner.y0
        and inner.y1 <= outer.y1
    )
