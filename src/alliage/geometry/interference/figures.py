"""Pictures of interference, after arXiv:2306.01708, figures 4, 6, 9 and 11."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from alliage.geometry.interference.steps import STEPS
from alliage.geometry.interference.words import percent
from alliage.geometry.mapping.drawing import blank, look, stacks
from alliage.geometry.mapping.picture import Picture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from alliage.geometry.interference.result import Interference

# As in the paper: plain, the step that takes the interference away, and all of TIES.
_SHOWN = {
    "influence": ("mean", "trimmed_disjoint", "ties"),
    "agreement": ("mean", "elected_disjoint", "ties"),
}


def by_number(found: Interference) -> Figure:
    """Sign conflicts by the number of models, with the range over subsets (figure 4)."""
    shares = found.by_number()
    figure, axes = blank(6, 4)
    numbers = shares["number"].values
    axes.fill_between(numbers, shares["low"], shares["high"], alpha=0.2, color=look(0).colour,
                      linewidth=0, label="range over subsets")  # fmt: skip
    _line(axes, 0, numbers, shares["conflict_of_all"], "of all parameters")
    _line(axes, 1, numbers, shares["conflict"], "of those that two or more keep")
    _line(axes, 2, numbers, shares["random"], "the same with random signs")
    axes.set_xticks(numbers)
    _finish(axes, f"Sign conflicts, top {percent(found.top_k)}", "models", "share of parameters")
    return figure


def by_top_k(found: Interference) -> Figure:
    """Sign conflicts of all models by the share that trimming keeps (figure 9)."""
    shares = found.conflicts().isel(group=0)
    figure, axes = blank(6, 4)
    kept = shares["top_k"].values
    _line(axes, 0, kept, shares["conflict_of_all"], "of all parameters")
    _line(axes, 1, kept, shares["conflict"], "of those that two or more keep")
    _line(axes, 2, kept, shares["random"], "the same with random signs")
    axes.xaxis.set_major_formatter(_ticks)
    title = f"Sign conflicts among {len(found.names)} models"
    _finish(axes, title, "largest entries kept of each model", "share of parameters")
    return figure


def by_influence(found: Interference) -> Figure:
    """Magnitudes by how many models find a parameter influential (figures 6a and 11a)."""
    return _magnitudes(found, "influence", f"who keeps the parameter (top {percent(found.top_k)})")


def by_agreement(found: Interference) -> Figure:
    """Magnitudes by the agreement of signs (figures 6b and 11b)."""
    return _magnitudes(found, "agreement", "share of models on the majority's side")


def by_kind(found: Interference) -> Figure:
    """Sign conflicts by kind of module and layer."""
    figure, axes = blank(7, 4)
    shares = _by_kind_and_layer(found)["conflict"]
    depth = shares["layer"].values
    for index, kind in enumerate(shares["kind"].values.tolist()):
        _line(axes, index, depth, shares.values[index], kind)
    axes.set_xticks(depth)
    title = f"Sign conflicts by layer, top {percent(found.top_k)}"
    _finish(axes, title, "layer", "share of what two or more keep")
    return figure


def by_pair(found: Interference) -> Figure:
    """Conflict of any two models above the diagonal, overlap below it."""
    pairs = found.pairs().isel(group=0).sel(top_k=found.top_k)
    count = len(found.names)
    upper = np.triu(np.ones((count, count), bool), 1)
    values = np.where(upper, pairs["conflict"].values, pairs["overlap"].values)
    np.fill_diagonal(values, np.nan)
    size = 2.5 + 0.55 * count
    figure, axes = blank(size + 1, size)
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value < 0.5 else "black"
            axes.text(column, row, percent(value), ha="center", va="center", fontsize=8,
                      color=colour)  # fmt: skip
    axes.set_xticks(range(count), found.names, rotation=45, ha="right")
    axes.set_yticks(range(count), found.names)
    figure.colorbar(image, ax=axes, format=_ticks, shrink=0.8)
    title = f"above: sign conflict; below: overlap (top {percent(found.top_k)})"
    axes.set_title(title, loc="left", fontsize=10)
    return figure


_DRAWN: Mapping[str, Callable[[Interference], Figure]] = {
    "number": by_number,
    "top_k": by_top_k,
    "influence": by_influence,
    "agreement": by_agreement,
    "kinds": by_kind,
    "pairs": by_pair,
}
PICTURES = tuple(_DRAWN)


@dataclass(frozen=True, repr=False, eq=False)
class InterferencePicture(Picture):
    """One picture of what was counted.

    Attributes:
        found: all of it.
        name: one of `PICTURES`.
    """

    found: Interference
    name: str

    def figure(self) -> Figure:
        """Drawn by matplotlib."""
        return _DRAWN[self.name](self.found)

    def to_pandas(self) -> pd.DataFrame:
        """The numbers drawn, and others of their kind, one row each."""
        found = self.found
        shares = {
            "number": found.by_number(),
            "top_k": found.conflicts(),
            "influence": found.magnitudes(),
            "agreement": found.magnitudes("agreement"),
            "kinds": _by_kind_and_layer(found),
            "pairs": found.pairs(),
        }
        frame = shares[self.name].to_dataframe().reset_index()
        if self.name == "pairs":  # each of them once
            places = {name: place for place, name in enumerate(found.names)}
            frame = frame[frame["task"].map(places) < frame["other"].map(places)]
        return frame.reset_index(drop=True)

    def __repr__(self) -> str:
        return f"<InterferencePicture {self.name} of {len(self.found.names)} models>"


def _by_kind_and_layer(found: Interference) -> xr.Dataset:
    """Conflicts at `top_k` by kind and layer; what lies outside the stack is left out.

    Where there are several stacks, such as an encoder and a decoder, each has its own kinds.
    """
    data = found.data.sel(top_k=found.top_k)
    inside = data["layer"].values >= 0
    homes = stacks(data["module"].values.tolist(), data["layer"].values.tolist())
    places = [
        (f"{home} {kind}".strip(), layer)
        for home, kind, layer in zip(
            homes, data["kind"].values.tolist(), data["layer"].values.tolist(), strict=True
        )
        if layer >= 0
    ]
    kinds = list(dict.fromkeys(kind for kind, _ in places))
    depth = sorted({layer for _, layer in places})
    counts = np.zeros((2, len(kinds), len(depth)))
    for place, (kind, layer) in enumerate(places):
        for row, name in enumerate(("conflicting", "shared")):
            count = float(data[name].values[inside][place])
            counts[row, kinds.index(kind), depth.index(layer)] += count
    with np.errstate(invalid="ignore"):
        values = counts[0] / counts[1]
    return xr.Dataset({"conflict": (("kind", "layer"), values)}, {"kind": kinds, "layer": depth})


def _magnitudes(found: Interference, by: str, label: str) -> Figure:
    """Bars of means, with standard deviations over parameters."""
    sizes = found.magnitudes(by)
    groups = [group for group in sizes[by].values.tolist() if group != "unchanged"]
    figure, axes = blank(7.5, 4)
    steps = _SHOWN[by]
    width = 0.8 / len(steps)
    for index, step in enumerate(steps):
        here = sizes.sel({by: groups, "step": step})
        places = np.arange(len(groups)) + (index - (len(steps) - 1) / 2) * width
        axes.bar(places, here["magnitude"], width, yerr=here["deviation"], label=STEPS[step],
                 color=look(index).colour, hatch=("", "//", "..")[index], edgecolor="white",
                 error_kw={"elinewidth": 0.8, "ecolor": "0.3"})  # fmt: skip
    axes.set_xticks(range(len(groups)), groups)
    _finish(axes, "Size of merged parameters", label, "mean magnitude")
    return figure


def _ticks(share: float, _: int | None = None) -> str:
    return percent(share)


def _line(axes: Any, index: int, places: Any, values: Any, label: str) -> None:
    colour, marker, dashes = look(index)
    axes.plot(places, values, color=colour, marker=marker, linestyle=dashes, label=label)


def _finish(axes: Any, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_ylim(bottom=0)
    if axes.get_ylim()[1] <= 1.2 and up.startswith("share"):
        axes.yaxis.set_major_formatter(_ticks)
    axes.grid(alpha=0.25)
    axes.figure.legend(loc="outside lower left", frameon=False, fontsize=9)
