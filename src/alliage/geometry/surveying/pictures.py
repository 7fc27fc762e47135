"""The pictures that a survey can draw of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from alliage.errors import Problem, UsageError, nearest
from alliage.geometry.mapping.inclusion_graph import ENERGIES, MARGIN, InclusionGraph
from alliage.geometry.mapping.layer_profile import BY, LayerProfile
from alliage.geometry.mapping.maps import is_directed
from alliage.geometry.mapping.spectrum_curves import SpectrumCurves
from alliage.geometry.mapping.task_map import MAPS, TaskMap
from alliage.geometry.mapping.trees import Dendrogram, HeatMap
from alliage.geometry.surveying.metrics import METRICS

if TYPE_CHECKING:
    import xarray as xr


class Pictures(ABC):
    """What a survey draws; the survey itself has the names and the numbers."""

    null: xr.Dataset
    spectra: xr.Dataset

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The models'."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """What was measured."""

    @abstractmethod
    def __getitem__(self, metric: str) -> xr.DataArray:
        """One metric, dimensions (task, other, module)."""

    def map(self, metric: str, method: str = "pca") -> TaskMap:
        """The models as points in the plane, by their mean distances over modules.

        Args:
            metric: one of `metrics` that is a distance.
            method: "pca", principal components of the rows of the distance matrix (Fosse 2024,
                hal-04622988); "mds", classical multidimensional scaling; "nonmetric", Kruskal's,
                which keeps only the order of the distances.

        Raises:
            KeyError: the metric was not measured.
            UsageError: an unknown method, a metric that is no distance, or a pair without one.
        """
        _check("method", method, MAPS)
        return TaskMap.of(self.names, self._distances(metric, "map"), metric, method)

    def dendrogram(self, metric: str) -> Dendrogram:
        """The models joined into groups by average linkage of their mean distances.

        Raises:
            KeyError: the metric was not measured.
            UsageError: a metric that is no distance, or a pair without a distance.
        """
        return Dendrogram.of(self.names, self._distances(metric, "dendrogram"), metric)

    def heatmap(self, metric: str) -> HeatMap:
        """Means over modules of all pairs, in the order of the dendrogram.

        Raises:
            KeyError: the metric was not measured.
        """
        values = self[metric].mean("module").to_numpy()
        return HeatMap.of(self.names, values, metric, distance=is_distance(metric))

    def profile(self, metric: str, by: str = "kind") -> LayerProfile:
        """A metric layer by layer, beside what random subspaces give.

        Args:
            metric: one of `metrics`.
            by: a line for each "kind" of module, or for each "pair" of models.

        Raises:
            KeyError: the metric was not measured.
            UsageError: an unknown `by`, or nothing defined in any layer.
        """
        _check("by", by, BY)
        chance, chance_sd = (self.null.get(name) for name in (metric, f"{metric}_sd"))
        random = METRICS[metric].by_chance if metric in METRICS else "chance"
        found = LayerProfile.of(self[metric], by, chance=chance, chance_sd=chance_sd, random=random)
        if not len(found.table):
            raise UsageError(
                Problem(f"{metric} profile", "nothing is defined in any layer of the stack.",
                        "Survey by module or layer, and models that differ from the base.")
            )  # fmt: skip
        return found

    def inclusion(self, metric: str | None = None, margin: float = MARGIN) -> InclusionGraph:
        """Who lies in whom, by the share of each model's energy in the others' spaces.

        Args:
            metric: "core_energy" or "explained_energy"; the first of them that was measured by
                default.
            margin: by what part of the reverse a share must exceed it, 0 or more.

        Raises:
            KeyError: the metric was not measured.
            UsageError: neither was, or another metric.
        """
        found = [name for name in ENERGIES if name in self.metrics]
        if metric is None and not found:
            raise UsageError(
                Problem("inclusion", f"needs the metric {' or '.join(ENERGIES)}.",
                        f"Measured were {', '.join(self.metrics)}.")
            )  # fmt: skip
        name = found[0] if metric is None else metric
        _check("metric", name, ENERGIES)
        expected, deviation = None, None
        if name in self.null and f"{name}_sd" in self.null:
            expected = self.null[name].mean("module").to_numpy()
            spread = self.null[f"{name}_sd"]
            # Random modules are independent: variances of their mean add up.
            deviation = ((spread**2).sum("module") ** 0.5 / spread.notnull().sum("module")).values
        energies = self[name].mean("module").to_numpy()
        return InclusionGraph.of(
            self.names, energies, name, chance=expected, chance_sd=deviation, margin=margin
        )

    def spectrum(self) -> SpectrumCurves:
        """How the updates of each model use their directions: singular values as shares.

        Raises:
            UsageError: the survey measured no spectra.
        """
        if "singular_values" not in self.spectra:
            raise UsageError(
                Problem("spectrum", "no singular values were measured.",
                        "Survey matrices by module, with spectra=True.")
            )  # fmt: skip
        return SpectrumCurves.of(self.spectra["singular_values"])

    def _distances(self, metric: str, what: str) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = self[metric].mean("module").to_numpy()
        if np.isnan(values).any():
            gaps = np.isnan(values).sum(axis=1).tolist()
            names = ", ".join(name for name, gap in zip(self.names, gaps, strict=True) if gap)
            raise UsageError(
                Problem(
                    f"{metric} {what}",
                    f"some distances are not defined, among {names}.",
                    "Leave out models that do not differ from the base.",
                )
            )
        if is_directed(values) or not is_distance(metric):
            raise UsageError(
                Problem(
                    f"{metric} {what}",
                    "cannot be drawn, for it is no distance.",
                    "Its pictures are the heat map and the profile.",
                )
            )
        return (values + values.T) / 2


def is_distance(metric: str) -> bool:
    """Whether a metric is small for models that are alike, and the same both ways."""
    known = METRICS.get(metric)
    return known is None or (known.sense == "distance" and not known.directed)


def _check(what: str, word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise UsageError(Problem(f"{what} {word!r}", "is unknown.", nearest(word, known)))
