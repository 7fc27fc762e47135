"""Scores of models, from the results table to comparisons that compare like with like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("base", "single", "merged", "pruned")
OTHER = "other"
# Where models are named, besides the models table.
NAMES = {"distances": ("first", "second"), "scores": ("model",), "reliability": ("model",)}
ECE = "ece"
# Metrics of quality, all of them better when higher; the report's main one is the first that was
# measured most often.
QUALITY = (
    "accuracy", "f1", "f1_macro", "matthews", "precision", "recall", "balanced_accuracy",
    "spearman", "pearson", "exact_match", "rougeL",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scores:
    """One metric's scores of models on tasks.

    Attributes:
        metric: its name.
        models: names, by role, then by name.
        tasks: names, with the split where a task was scored on several.
        values: float64 [models, tasks], NaN where a model was not scored on a task.
        roles: role of each model.
    """

    metric: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    values: np.ndarray
    roles: Mapping[str, str]

    def of_role(self, role: str) -> list[int]:
        """Indices of the models with this role."""
        return [index for index, model in enumerate(self.models) if self.roles[model] == role]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against the best single model of each task, on the tasks that both were scored on.

    Attributes:
        model: its name.
        tasks: the tasks compared.
        own: its scores, [tasks].
        best: the best single model's, [tasks].
    """

    model: str
    tasks: tuple[str, ...]
    own: np.ndarray
    best: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """Own minus best, [tasks]."""
        difference: np.ndarray = self.own - self.best
        return difference


def roles_of(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Model -> role for every model in any table, by role, then by name.

    Models that the models table does not describe are `OTHER`: what they are is not known.
    """
    described = tables["models"]
    roles = dict(zip(described["model"], described["role"], strict=True))
    for table, columns in NAMES.items():
        for column in columns:
            for name in tables[table][column].unique():
                roles.setdefault(name, OTHER)
    return dict(sorted(roles.items(), key=lambda item: (role_rank(item[1]), item[1], item[0])))


def role_rank(role: str) -> int:
    """Its place in `ROLES`; others after them."""
    return ROLES.index(role) if role in ROLES else len(ROLES)


def sorted_roles(roles: Iterable[str]) -> list[str]:
    """Each role once, as in `ROLES`; others after them."""
    return sorted(set(roles), key=lambda role: (role_rank(role), role))


def with_split(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with "task" naming the split too, where a task occurs with several."""
    several = rows.groupby("task")["split"].transform("nunique") > 1
    named = rows["task"].where(~several, rows["task"] + " (" + rows["split"] + ")")
    return rows.assign(task=named)


def scores_by_metric(scores: pd.DataFrame, roles: Mapping[str, str]) -> list[Scores]:
    """All metrics, the main one first.

    Where a model has several scores for the same task and split, the one of most examples counts,
    and of equal numbers the last in the table.
    """
    rows = with_split(scores).sort_values("examples", kind="stable")
    found = []
    for metric, part in rows.groupby("metric", sort=True):
        table = part.drop_duplicates(["model", "task"], keep="last").pivot(
            index="model", columns="task", values="value"
        )
        order = [model for model in roles if model in table.index]
        values = table.loc[order].to_numpy(np.float64)
        found.append(Scores(str(metric), tuple(order), tuple(table.columns), values, roles))
    return sorted(found, key=lambda one: (_preference(one), one.metric))


def _preference(scores: Scores) -> tuple[int, int]:
    measured = int(np.isfinite(scores.values).sum())
    if scores.metric in QUALITY:
        return -measured, QUALITY.index(scores.metric)
    return 1, 0


def best_singles(scores: Scores) -> np.ndarray:
    """The best single model's score on each task, float64 [tasks], NaN where none was scored."""
    values = scores.values[scores.of_role("single")]
    best = np.where(np.isnan(values), -np.inf, values).max(axis=0, initial=-np.inf)
    return np.where(np.isfinite(best), best, np.nan)


def compare_with_singles(scores: Scores, role: str) -> list[Comparison]:
    """The models of a role against the singles, best mean difference first.

    The means of two models are over different tasks if these were scored on different tasks; each
    comparison names its own.
    """
    best = best_singles(scores)
    found = []
    for index in scores.of_role(role):
        both = np.isfinite(scores.values[index]) & np.isfinite(best)
        if both.any():
            tasks = tuple(task for task, kept in zip(scores.tasks, both, strict=True) if kept)
            found.append(
                Comparison(scores.models[index], tasks, scores.values[index][both], best[both])
            )
    return sorted(found, key=lambda one: (-len(one.tasks), -one.difference.mean(), one.model))
