"""Distances between models, from the results table to matrices, orders and layer profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from alliage.geometry.mapping.clustering import average_linkage, medoids
from alliage.geometry.mapping.drawing import stacks
from alliage.report.words import several

# What a mean is over, by what was compared.
MODULES, LAYERS, MODEL = "all modules", "all layers", "whole model"


@dataclass(frozen=True, slots=True)
class Group:
    """Models that a metric compared with each other, and with no others.

    Attributes:
        metric: its name.
        models: the group in words.
        rows: of the distances table, without those of a model with itself.
    """

    metric: str
    models: str
    rows: pd.DataFrame


def groups(distances: pd.DataFrame) -> list[Group]:
    """The connected components of what each metric compared, largest first.

    Surveys written into one folder at different times share no pair: no map holds them all.
    """
    found = []
    rows = distances[distances["first"] != distances["second"]]
    for metric, part in rows.groupby("metric", sort=True):
        names = np.unique(part[["first", "second"]].to_numpy(dtype=str))
        i, j = (
            np.searchsorted(names, part[end].to_numpy(dtype=str)) for end in ("first", "second")
        )
        pairs = coo_array((np.ones(len(i)), (i, j)), shape=(len(names), len(names)))
        n_groups, group_of = connected_components(pairs, directed=False)
        members = [names[group_of == group].tolist() for group in range(n_groups)]
        for group in sorted(range(n_groups), key=lambda group: (-len(members[group]), group)):
            found.append(Group(str(metric), several(members[group]), part[group_of[i] == group]))
    return found


@dataclass(frozen=True, slots=True)
class Matrix:
    """Mean distances between all pairs of models.

    Attributes:
        metric: its name.
        models: the group in words.
        modules: what the mean is over: `MODULES`, `LAYERS`, `MODEL` or a kind such as "query".
        names: of the models, n of them.
        values: float64 [n, n], symmetric, 0 on the diagonal, NaN where a pair was not measured.
    """

    metric: str
    models: str
    modules: str
    names: tuple[str, ...]
    values: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether every pair was measured."""
        return bool(np.isfinite(self.values).all())

    @property
    def negative(self) -> bool:
        """Whether a value is below 0, as no distance is, whatever the metric is called."""
        return bool((self.values < 0).any())

    def select(self, indices: Sequence[int]) -> Matrix:
        """The same matrix for these models in this order."""
        names = tuple(self.names[index] for index in indices)
        return Matrix(
            self.metric, self.models, self.modules, names, self.values[np.ix_(indices, indices)]
        )

    def pairs(self) -> list[tuple[float, str, str]]:
        """Every measured pair once, nearest first."""
        upper = zip(*np.triu_indices(len(self.names), 1), strict=True)
        found = [(float(self.values[i, j]), self.names[i], self.names[j]) for i, j in upper]
        return sorted(pair for pair in found if np.isfinite(pair[0]))


def matrices(distances: pd.DataFrame) -> list[Matrix]:
    """One matrix for each group over everything, then one for each group and kind of module.

    A pair's distance is the mean over the modules that were measured for it. Where a group was
    measured by module and by layer or model too, only the modules count. Rows of a pair with itself
    are ignored, for that distance is 0.
    """
    whole, by_kind = [], []
    for group in groups(distances):
        modules, finest = _finest(group.rows)
        whole.append(_matrix(group, modules, finest))
        kinds = sorted(finest["kind"].unique())
        if len(kinds) > 1:
            by_kind += [_matrix(group, str(kind), finest[finest["kind"] == kind]) for kind in kinds]
    return [*whole, *by_kind]


def _finest(rows: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    # Only modules have a kind; the whole model is in no layer.
    by_module, by_layer = rows["kind"] != "", rows["layer"] >= 0
    if by_module.any():
        return MODULES, rows[by_module]
    return (LAYERS, rows[by_layer]) if by_layer.any() else (MODEL, rows)


def _matrix(group: Group, modules: str, rows: pd.DataFrame) -> Matrix:
    names = tuple(sorted({*rows["first"], *rows["second"]}))
    place = {name: index for index, name in enumerate(names)}
    i = rows["first"].map(place).to_numpy()
    j = rows["second"].map(place).to_numpy()
    values = rows["value"].to_numpy(dtype=np.float64)
    measured = np.isfinite(values)
    sums, counts = np.zeros((2, len(names), len(names)))
    for a, b in ((i, j), (j, i)):  # a pair may be written in one order or in both
        np.add.at(sums, (a[measured], b[measured]), values[measured])
        np.add.at(counts, (a[measured], b[measured]), 1)
    mean = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    np.fill_diagonal(mean, 0.0)
    return Matrix(group.metric, group.models, modules, names, mean)


def dendrogram(matrix: Matrix) -> np.ndarray:
    """Average linkage of a complete matrix of two models or more, as scipy's [n − 1, 4]."""
    return average_linkage(matrix.values)


def representatives(matrix: Matrix, limit: int) -> Matrix:
    """The medoids of `limit` clusters: the models that stand for all where these are too many.

    Without all distances, or with values that are none, the first `limit` models by name.
    """
    if len(matrix.names) <= limit:
        return matrix
    if not matrix.complete or matrix.negative:
        return matrix.select(range(limit))
    return matrix.select(medoids(matrix.values, limit))


@dataclass(frozen=True, slots=True)
class Profile:
    """How far apart a group's models are, layer by layer, for one metric and kind of module.

    Attributes:
        metric: its name.
        models: the group in words.
        kind: of module, or "whole layer"; of which stack of layers, where there are several.
        layers: indices from 0, ascending, [l].
        low: smallest distance of a pair at each layer, [l].
        mean: over pairs, [l].
        high: largest, [l].
    """

    metric: str
    models: str
    kind: str
    layers: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray


def profiles(distances: pd.DataFrame) -> list[Profile]:
    """Profiles of every group and kind of module that was measured at two layers or more."""
    found = []
    for group in groups(distances):
        rows = group.rows[group.rows["layer"] >= 0].dropna(subset=["value"])
        home = pd.Series(stacks(rows["module"], rows["layer"]), rows.index, dtype=str)
        lines = (home + " " + rows["kind"]).str.strip()
        for kind, part in rows.groupby(lines, sort=True):
            by_layer = part.groupby("layer", sort=True)["value"].agg(["min", "mean", "max"])
            if len(by_layer) > 1:
                name, layers = str(kind) or "whole layer", by_layer.index.to_numpy()
                low, mean, high = by_layer.to_numpy(np.float64).T
                found.append(Profile(group.metric, group.models, name, layers, low, mean, high))
    return found
