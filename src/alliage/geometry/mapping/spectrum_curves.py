"""How the updates of each model use their directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from alliage.geometry.mapping.drawing import blank, look
from alliage.geometry.mapping.picture import Picture

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class SpectrumCurves(Picture):
    """Singular values of each model's updates, each module's as shares of their sum.

    Attributes:
        names: the models', n of them.
        shares: float64 [n, directions], mean over modules; NaN for a model that equals the base.
        effective_ranks: float64 [n], e^H of each module's shares, mean over modules.
        modules: how many modules the means are over.
    """

    names: tuple[str, ...]
    shares: npt.NDArray[np.float64]
    effective_ranks: npt.NDArray[np.float64]
    modules: int

    @classmethod
    def of(cls, values: xr.DataArray) -> SpectrumCurves:
        """The curves of singular values (task, module, direction), NaN after a module's last."""
        names = tuple(str(name) for name in values["task"].values)
        singular = np.nan_to_num(values.transpose("task", "module", "direction").to_numpy())
        sums = singular.sum(axis=-1, keepdims=True)
        shares = np.divide(singular, sums, out=np.zeros_like(singular), where=sums > 0)
        entropies = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=-1)
        counts = (sums[..., 0] > 0).sum(axis=1)
        counts = np.where(counts, counts, np.nan)
        ranks = np.where(sums[..., 0] > 0, np.exp(entropies), 0.0).sum(axis=1) / counts
        return cls(names, shares.sum(axis=1) / counts[:, None], ranks, values.sizes["module"])

    def to_pandas(self) -> pd.DataFrame:
        """The shares: a row for each model, a column for each direction, from 0."""
        import pandas as pd

        columns = pd.RangeIndex(self.shares.shape[1], name="direction")
        return pd.DataFrame(self.shares, index=pd.Index(self.names, name="task"), columns=columns)

    def figure(self) -> Figure:
        """A line for each model; its effective rank in the legend."""
        figure, axes = blank(7.5, 4.5)
        directions = np.arange(1, self.shares.shape[1] + 1)
        for index, (name, shares) in enumerate(zip(self.names, self.shares, strict=True)):
            colour, marker, dashes = look(index)
            rank = self.effective_ranks[index]
            known = "equals the base" if np.isnan(rank) else f"{rank:.2f}"
            axes.plot(directions, shares, color=colour, marker=marker, linestyle=dashes,
                      markersize=5, label=f"{name} ({known})")  # fmt: skip
        axes.set_ylim(bottom=0.0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("direction, largest singular value first")
        axes.set_ylabel("share of the singular values' sum")
        axes.set_title(f"Spectra of updates, mean over {self.modules} modules", loc="left")
        axes.grid(alpha=0.25)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8.5,
                           title="model (effective rank)")  # fmt: skip
        return figure

    def __repr__(self) -> str:
        directions = self.shares.shape[1]
        return f"<SpectrumCurves of {len(self.names)} models: {directions} directions>"
