"""What a survey holds: values for pairs of models, module by module, T_d[i, j, k]."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr

from alliage.errors import nearest
from alliage.geometry.intervals import mean_interval
from alliage.geometry.surveying import storing
from alliage.geometry.surveying.findings import finding
from alliage.geometry.surveying.metrics import METRICS
from alliage.geometry.surveying.pictures import Pictures

if TYPE_CHECKING:
    import pandas as pd


class Interval(NamedTuple):
    """Where a mean over modules may lie.

    Attributes:
        low: dimensions (task, other).
        high: the same.
    """

    low: xr.DataArray
    high: xr.DataArray


@dataclass(frozen=True)
class Survey(Pictures):
    """Values for pairs of task vectors: T_d[i, j, k] for metrics d, models i, j and modules k.

    Attributes:
        data: one variable for each metric with the dimensions (task, other, module), float64.
            Distances are symmetric in the first two. Of directed metrics [i, j] says what `task` i
            is in the directions of `other` j: core_energy 0.9 means that nine tenths of i lie in j.
            Modules carry the coordinates `layer` (−1 outside the stack) and `kind`. NaN where a
            value is not defined: angles of biases and norms, cosine and angles of zero updates.
        null: for metrics of which that is known, the mean for updates that have nothing to do with
            each other, and under the metric's name with "_sd" its standard deviation, shaped like
            `data`. Values near that mean say that nothing is shared.
        notes: what was left out, and why, one sentence each.
        spectra: of the models by themselves, (task, module): rank, effective_rank, stable_rank,
            entropy, norm, energy and error, see `gathering.QUANTITIES`; by module
            `singular_values` (task, module, direction), NaN after the last. Empty if not measured.
    """

    data: xr.Dataset
    null: xr.Dataset
    notes: tuple[str, ...]
    spectra: xr.Dataset = field(default_factory=xr.Dataset)

    @property
    def names(self) -> tuple[str, ...]:
        """The models'."""
        return tuple(self.data["task"].values.tolist())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order asked for."""
        return tuple(str(name) for name in self.data.data_vars)

    @property
    def directed(self) -> tuple[str, ...]:
        """The metrics among them for which [i, j] and [j, i] differ."""
        return tuple(name for name in self.metrics if name in METRICS and METRICS[name].directed)

    def __getitem__(self, metric: str) -> xr.DataArray:
        """T_d of one metric, dimensions (task, other, module).

        Raises:
            KeyError: the metric was not measured; with the nearest names.
        """
        if metric not in self.metrics:
            raise KeyError(f"{metric}: not measured here. {nearest(metric, self.metrics)}")
        return self.data[metric]

    def interval(self, metric: str, level: float = 0.95) -> Interval:
        """Percentile bootstrap interval of each pair's mean over modules, seeded.

        It says how much the mean depends on which modules there are, not on how the models were
        tuned. NaN with fewer than two modules.

        Raises:
            KeyError: the metric was not measured.
        """
        values = self[metric].transpose("task", "other", "module")
        ends = mean_interval(values.to_numpy(), level)
        mean = values.mean("module")
        return Interval(*(mean.copy(data=end) for end in ends))

    def to_rows(self, metrics: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Every defined distance of every pair once, as rows of the results table "distances".

        Args:
            metrics: all but the directed ones by default.
        """
        chosen = [name for name in self.metrics if name not in self.directed]
        asked = self.data.attrs
        held = next((f"{key} {asked[key]:.6g}" for key in ("rank", "energy") if key in asked), "")
        settings = {"side": asked.get("side", ""), "of": asked.get("of", ""), "directions": held}
        for metric in chosen if metrics is None else metrics:
            pairs = itertools.combinations(range(len(self.names)), 2)
            for i, j, module, value, chance in self._cells(metric, pairs):
                yield {
                    "metric": metric, "first": self.names[i], "second": self.names[j],
                    **module, "value": value, "chance": chance[0], "chance_sd": chance[1],
                    **settings,
                }  # fmt: skip

    def to_inclusion_rows(self) -> Iterator[dict[str, Any]]:
        """Every defined value of the directed metrics, as rows of the results table "inclusion"."""
        for metric in self.directed:
            pairs = itertools.permutations(range(len(self.names)), 2)
            for i, j, module, value, chance in self._cells(metric, pairs):
                yield {
                    "metric": metric, "model": self.names[i], "into": self.names[j],
                    **module, "value": value, "chance": chance[0], "chance_sd": chance[1],
                }  # fmt: skip

    def to_spectrum_rows(self) -> Iterator[dict[str, Any]]:
        """Every singular value, as rows of the results table "spectra"."""
        if "singular_values" not in self.spectra:
            return
        modules = _modules(self.spectra)
        for i, table in enumerate(self.spectra["singular_values"].values.tolist()):
            for module, values in zip(modules, table, strict=True):
                for direction, value in enumerate(values):
                    if not math.isnan(value):
                        yield {
                            "model": self.names[i], **module,
                            "direction": direction, "value": value,
                        }  # fmt: skip

    def to_xarray(self) -> xr.Dataset:
        """Everything in one dataset: metrics, `chance:` before what chance gives, and spectra."""
        chance = self.null.rename({name: f"chance:{name}" for name in self.null})
        whole = self.data.merge(chance, compat="identical")
        if not self.spectra:
            return whole
        # Over the same modules: to fill up others would make the layers floats.
        found = self.spectra.reindex(module=whole["module"])
        found = found.drop_vars(["layer", "kind"], errors="ignore")
        return whole.merge(found, compat="no_conflicts")

    def to_pandas(self) -> pd.DataFrame:
        """A row for each pair and module, a column for each metric.

        The index has the levels task, other, layer, kind and module; pairs of distances stand there
        once, those of surveys with directed metrics in both directions.
        """
        frame = self.data.to_dataframe().reset_index()
        place = {name: index for index, name in enumerate(self.names)}
        first, second = frame["task"].map(place), frame["other"].map(place)
        kept = frame[first != second] if self.directed else frame[first < second]
        return kept.set_index(["task", "other", "layer", "kind", "module"])[list(self.metrics)]

    def save(self, folder: str | Path) -> list[Path]:
        """Write the survey as Parquet files into a folder; `load` brings it back the same.

        Raises:
            UsageError: the folder is a file.
        """
        return storing.save(folder, self.data, self.null, self.spectra, self.notes)

    @classmethod
    def load(cls, folder: str | Path) -> Survey:
        """A survey that `save` wrote.

        Raises:
            AlliageError: no survey is there, or its files are damaged.
        """
        return cls(*storing.load(folder))

    def findings(self) -> list[str]:
        """What stands out, one line for each metric: smallest and largest pair, and chance."""
        return [finding(metric, self[metric], self.null) for metric in self.metrics]

    def _cells(
        self, metric: str, pairs: Iterator[tuple[int, ...]]
    ) -> Iterator[tuple[int, int, dict[str, Any], float, tuple[float, float]]]:
        """Defined values of some pairs with their modules, and mean and deviation of chance."""
        modules = _modules(self.data)
        values = self[metric].to_numpy()
        chance = [
            self.null[name].to_numpy() if name in self.null else None
            for name in (metric, f"{metric}_sd")
        ]
        for i, j in pairs:
            for k, value in enumerate(values[i, j].tolist()):
                if not math.isnan(value):
                    mean, deviation = (
                        math.nan if table is None else float(table[i, j, k]) for table in chance
                    )
                    yield i, j, modules[k], value, (mean, deviation)

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
            words = self[metric].attrs.get("long_name", "")
            if metric in self.directed:
                words += f"; each row {METRICS[metric].link} each column"
            parts.append(f"<p><b>{metric}</b>: {html.escape(words)}</p>{table}")
        parts += [f"<p>{html.escape(line)}</p>" for line in (*self.findings(), *self.notes)]
        return "\n".join(parts)


def _modules(dataset: xr.Dataset) -> list[dict[str, Any]]:
    columns = {key: dataset[key].values.tolist() for key in ("module", "layer", "kind")}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
