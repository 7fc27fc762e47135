"""What a survey holds: distances between models, module by module, T_d[i, j, k]."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from alliage.errors import nearest
from alliage.geometry.distances import ANGLE_DISTANCES
from alliage.geometry.mapping.pictures import Pictures

METRICS: Mapping[str, str] = {
    "l2": "‖ΔW₁ − ΔW₂‖_F, in units of the weights",
    "cosine": "1 − cos of the angle between ΔW₁ and ΔW₂, from 0 to 2",
} | {name: (distance.__doc__ or "").rstrip(".") for name, distance in ANGLE_DISTANCES.items()}

_CLOSER = 3.0  # standard deviations under the mean of random subspaces


@dataclass(frozen=True)
class Survey(Pictures):
    """Distances between task vectors: T_d[i, j, k] for metrics d, models i, j and modules k.

    Attributes:
        data: one variable for each metric with the dimensions (task, other, module), float64,
            symmetric in the first two. Modules carry the coordinates `layer` (−1 outside the stack)
            and `kind`. NaN where a distance is not defined: angles of biases and norms, cosine and
            angles of updates that are zero.
        null: for each metric of angles, what random subspaces of the same dimensions give: their
            mean, and under the metric's name with "_sd" their standard deviation, shaped like
            `data`. Distances near that mean say that nothing is shared.
        notes: what was left out, and why, one sentence each.
    """

    data: xr.Dataset
    null: xr.Dataset
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The models'."""
        return tuple(self.data["task"].values.tolist())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order asked for."""
        return tuple(str(name) for name in self.data.data_vars)

    def __getitem__(self, metric: str) -> xr.DataArray:
        """T_d of one metric, dimensions (task, other, module).

        Raises:
            KeyError: the metric was not measured; with the nearest names.
        """
        if metric not in self.metrics:
            raise KeyError(f"{metric}: not measured here. {nearest(metric, self.metrics)}")
        return self.data[metric]

    def to_rows(self, metrics: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Every defined distance of every pair once, as rows of the results table "distances"."""
        modules = self.data["module"].values.tolist()
        layers, kinds = self.data["layer"].values.tolist(), self.data["kind"].values.tolist()
        for metric in metrics or self.metrics:
            values = self[metric].to_numpy()
            for i, j in itertools.combinations(range(len(self.names)), 2):
                for k, value in enumerate(values[i, j].tolist()):
                    if not math.isnan(value):
                        yield {
                            "metric": metric,
                            "first": self.names[i],
                            "second": self.names[j],
                            "module": modules[k],
                            "layer": layers[k],
                            "kind": kinds[k],
                            "value": value,
                        }

    def findings(self) -> list[str]:
        """What stands out, one line for each metric: nearest and farthest pair, and chance."""
        return [self._finding(metric) for metric in self.metrics]

    def _finding(self, metric: str) -> str:
        pairs = list(itertools.combinations(range(len(self.names)), 2))
        means = self[metric].mean("module").to_numpy()
        defined = sorted((float(means[p]), p) for p in pairs if not math.isnan(means[p]))
        if not defined:
            return f"{metric}: not defined for any pair."
        (near, first), (far, last) = defined[0], defined[-1]
        alone = len(defined) == 1
        text = f"{metric}: {'' if alone else 'nearest '}{self._pair(first)} {near:.4g}"
        if not alone:
            text += f", farthest {self._pair(last)} {far:.4g}"
        if metric not in self.null:
            return text + "."
        null = self.null[metric].mean("module").to_numpy()
        # Random modules are independent: variances of their mean add up.
        deviations = self.null[f"{metric}_sd"]
        count = deviations.notnull().sum("module")
        deviation = ((deviations**2).sum("module") ** 0.5 / count).to_numpy()
        closer = sum(value < null[p] - _CLOSER * deviation[p] for value, p in defined)
        verdict = f"{closer} of {len(defined)} pairs" if not alone else "it is" if closer else "not"
        chance = np.mean([null[p] for _, p in defined])
        return f"{text}; random subspaces {chance:.4g}: {verdict} closer than chance."

    def _pair(self, pair: tuple[int, int]) -> str:
        return " – ".join(self.names[index] for index in pair)

    def __repr__(self) -> str:
        return (
            f"<Survey of {len(self.names)} models, {self.data.sizes['module']} modules: "
            f"{', '.join(self.metrics)}>"
        )

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(repr(self)[1:-1])}. Means over modules.</p>"]
        for metric in self.metrics:
            frame = self[metric].mean("module").to_pandas()
            frame.index.name = frame.columns.name = None
            table = frame.to_html(float_format=lambda value: f"{value:.4g}", na_rep="–", border=0)
            parts.append(f"<p><b>{metric}</b>: {html.escape(METRICS[metric])}</p>{table}")
        parts += [f"<p>{html.escape(line)}</p>" for line in (*self.findings(), *self.notes)]
        return "\n".join(parts)
