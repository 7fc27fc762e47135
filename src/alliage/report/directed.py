"""What one model is in another: directed metrics, from the results table to matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alliage.geometry.mapping.inclusion_graph import ENERGIES
from alliage.report.distances import groups
from alliage.report.runs import Run, by_run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Directed:
    """Mean values of a directed metric for a group of models.

    Attributes:
        metric: its name.
        models: the group in words, and the run where there are several.
        names: of the models, n of them.
        values: float64 [n, n], of the row's model in the column's; NaN on the diagonal and where
            a pair was not measured.
        chance: float64 [n, n], the mean for random spaces, NaN where it is not known.
        chance_sd: float64 [n, n], the standard deviation of such a mean.
    """

    metric: str
    models: str
    names: tuple[str, ...]
    values: np.ndarray
    chance: np.ndarray
    chance_sd: np.ndarray


def directed(table: pd.DataFrame) -> list[Directed]:
    """Means over modules of each metric and group of models, from the table "inclusion".

    Raises:
        ValueError: a run that holds a pair and module twice.
    """
    found = [one for run in by_run(table) for one in _directed(run)]
    return sorted(found, key=lambda one: (one.metric not in ENERGIES, one.metric, one.models))


def _directed(run: Run) -> list[Directed]:
    found = []
    for one in groups(run.rows.rename(columns={"model": "first", "into": "second"})):
        names = tuple(sorted({*one.rows["first"], *one.rows["second"]}))
        place_of = {name: index for index, name in enumerate(names)}
        tables = np.full((3, len(names), len(names)), np.nan)
        if one.rows.duplicated(["first", "second", "module"]).any():
            raise ValueError(f"{one.metric}: a pair and module is there twice, a duplicate row")
        for (first, second), part in one.rows.groupby(["first", "second"], sort=True):
            deviations = part["chance_sd"].to_numpy(np.float64)
            # Random modules are independent: variances of their mean add up.
            deviation = float(np.sqrt((deviations**2).sum()) / len(deviations))
            cell = place_of[str(first)], place_of[str(second)]
            tables[(slice(None), *cell)] = (part["value"].mean(), part["chance"].mean(), deviation)
        found.append(Directed(one.metric, run.named(one.models), names, *tables))
    return found
