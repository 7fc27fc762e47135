"""Distances by depth, beside what random subspaces give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alliage.geometry.mapping.drawing import blank, look, stacks
from alliage.geometry.mapping.maps import is_directed
from alliage.geometry.mapping.picture import Picture

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

BY = ("kind", "pair")
_BAND = 2.0  # standard deviations on both sides of chance


@dataclass(frozen=True, repr=False, eq=False)
class LayerProfile(Picture):
    """A metric layer by layer.

    Attributes:
        table: one row for each line and layer, with the columns "line" (a kind of module or a pair
            of models), "layer", "low", "mean" and "high" over pairs of models, "chance" and
            "chance_sd" (mean and standard deviation for random subspaces, NaN where unknown).
        metric: its name.
        by: "kind" or "pair".
        random: what is random where chance is, in words.
    """

    table: pd.DataFrame
    metric: str
    by: str
    random: str

    @classmethod
    def of(
        cls,
        values: xr.DataArray,
        by: str = "kind",
        *,
        chance: xr.DataArray | None = None,
        chance_sd: xr.DataArray | None = None,
        random: str = "random subspaces",
    ) -> LayerProfile:
        """Means at each layer of the stack; what lies outside it is left out.

        Args:
            values: dimensions (task, other, module), with the coordinates `layer` and `kind`.
            by: a line for each kind of module, or for each pair; of each stack of layers where
                there are several, such as an encoder and a decoder.
            chance: the mean for random subspaces, shaped like the values.
            chance_sd: and their standard deviation.
            random: what is random there.
        """
        import pandas as pd

        rows = []
        for line, pairs, modules in _lines(values, by):
            for layer in sorted(set(values["layer"].values[modules].tolist()) - {-1}):
                here = modules & (values["layer"].values == layer)
                means = _mean(values.values[:, :, here])[pairs]
                means = means[np.isfinite(means)]
                if not means.size:
                    continue
                expected, deviation = math.nan, math.nan
                if chance is not None and chance_sd is not None:
                    expected = float(_mean(_mean(chance.values[:, :, here])[pairs]))
                    # Random modules are independent: variances of their mean add up.
                    variances = chance_sd.values[:, :, here] ** 2
                    count = np.maximum(np.isfinite(variances).sum(axis=-1), 1)
                    deviation = float(_mean(np.sqrt(_mean(variances) / count)[pairs]))
                spread = (float(means.min()), float(means.mean()), float(means.max()))
                rows.append((line, int(layer), *spread, expected, deviation))
        columns = ["line", "layer", "low", "mean", "high", "chance", "chance_sd"]
        return cls(pd.DataFrame(rows, columns=columns), str(values.name or "metric"), by, random)

    def to_pandas(self) -> pd.DataFrame:
        """The table."""
        return self.table

    def figure(self) -> Figure:
        """A line for each kind or pair; dotted and grey where 95 % lie by chance."""
        # Beside a line for each of many pairs, their names need the height.
        figure, axes = blank(7.5, max(4.5, 0.6 + 0.19 * self.table["line"].nunique()))
        bands: dict[tuple[float, ...], Any] = {}
        for index, (line, part) in enumerate(self.table.groupby("line", sort=False)):
            colour, marker, dashes = look(index)
            layers = part["layer"].to_numpy()
            if self.by == "kind":
                axes.fill_between(layers, part["low"], part["high"], color=colour, alpha=0.13,
                                  linewidth=0)  # fmt: skip
            axes.plot(layers, part["mean"], color=colour, marker=marker, linestyle=dashes,
                      markersize=5, label=str(line))  # fmt: skip
            if part["chance"].notna().all():
                bands.setdefault(tuple(part["chance"].round(6)), (layers, part))
        for index, (layers, part) in enumerate(bands.values()):
            middle, width = part["chance"].to_numpy(), _BAND * part["chance_sd"].to_numpy()
            axes.fill_between(layers, middle - width, middle + width, color="0.5", alpha=0.25,
                              linewidth=0)  # fmt: skip
            axes.plot(layers, middle, color="0.35", linestyle=":",
                      label=self.random if index == 0 else None)  # fmt: skip
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("layer, from 0")
        axes.set_ylabel(self.metric)
        over = "mean over pairs, and their range" if self.by == "kind" else "pairs of models"
        axes.set_title(f"{self.metric} by layer: {over}", loc="left")
        axes.grid(alpha=0.25)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
        return figure

    def __repr__(self) -> str:
        lines, layers = self.table["line"].nunique(), self.table["layer"].nunique()
        return f"<LayerProfile of {self.metric}: {lines} lines by {self.by}, {layers} layers>"


def _lines(
    values: xr.DataArray, by: str
) -> Iterator[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Each line's name, which pairs [n, n] and which modules it is of."""
    n = values.sizes["task"]
    apart = ~np.eye(n, dtype=bool)
    layers = values["layer"].values.tolist()
    stack = np.array(stacks(map(str, values["module"].values), layers))
    if by == "kind":
        kinds = values["kind"].values
        for home, kind in dict.fromkeys(zip(stack.tolist(), kinds.tolist(), strict=True)):
            line = f"{home} {kind or 'whole layer'}".strip()
            yield line, apart, (kinds == kind) & (stack == home)
        return
    inside = np.array(layers) >= 0
    homes = dict.fromkeys(stack[inside].tolist())
    directed = is_directed(values.values)
    names = values["task"].values.tolist()
    for i in range(n):
        for j in range(n):
            if i != j and (directed or i < j):
                pair = np.zeros((n, n), dtype=bool)
                pair[i, j] = True
                line = f"{names[i]} {'in' if directed else '–'} {names[j]}"
                for home in homes:
                    yield f"{line}, {home}" if home else line, pair, inside & (stack == home)


def _mean(values: Array) -> Array:
    """Over the last axis, of what is defined; NaN where nothing is."""
    counts = np.isfinite(values).sum(axis=-1)
    sums = np.nansum(values, axis=-1)
    mean: Array = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return mean
