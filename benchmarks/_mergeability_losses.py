"""Answers of parents and merges as a tidy table: what was lost, and what is seen unlabelled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from scipy.stats import spearmanr

from benchmarks._mergeability_merges import SCALED

_SHARE = {2: "0.5", 3: "0.333", 4: "0.25"}  # of each task vector in an average


def losses(folder: Path, family: str, seed: int) -> pd.DataFrame:
    """One row for each task of each merge.

    Losses are of the merge against the task's own model: `loss` in points of accuracy, `log_loss`
    in nats. `first` and `second` are of the two halves of the examples. The others are seen without
    labels, on the few unlabelled examples, on the first half of those that are scored
    (`half_...`), or on all of them (`all_...`).
    """
    parents = {
        path.stem.split("-", 1)[1]: dict(np.load(path)) for path in folder.glob("parent-*.npz")
    }
    rows = []
    for path in sorted(folder.glob("*.npz")):
        method, _, joined = path.stem.partition("-")
        if method == "parent" or method.startswith(SCALED):
            continue
        names, answers = joined.split("+"), np.load(path)
        alone = "0.4" if method == "task_arithmetic" else _SHARE[len(names)]
        for task in names:
            own = parents[task]
            shrunk = np.load(folder / f"{SCALED}{alone}-{task}.npz")
            row = {
                "family": family, "form": "lora" if family.endswith("lora") else "full",
                "seed": seed, "method": method, "models": joined, "task": task,
                "other": "+".join(name for name in names if name != task), "size": len(names),
                **_lost(own[f"{task}/scored"], answers[f"{task}/scored"],
                        own[f"{task}/scored_truth"]),
                **_seen(own[f"{task}/unlabelled"], answers[f"{task}/unlabelled"],
                        shrunk[f"{task}/unlabelled"]),
                **{
                    f"{part}_{name}": value
                    for part, step in (("half", 2), ("all", 1))
                    for name, value in _seen(
                        own[f"{task}/scored"][::step], answers[f"{task}/scored"][::step]
                    ).items()
                },
            }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows)


def _lost(parent: Any, merged: Any, truth: Any) -> dict[str, float]:
    right = (parent.argmax(1) == truth).astype(float) - (merged.argmax(1) == truth)
    row = np.arange(len(truth))
    logs = [log_softmax(each.astype(float), 1)[row, truth] for each in (parent, merged)]
    return {
        "examples": len(truth),
        "parent": 100 * float((parent.argmax(1) == truth).mean()),
        "loss": 100 * float(right.mean()),
        "first": 100 * float(right[::2].mean()),
        "second": 100 * float(right[1::2].mean()),
        "log_loss": float((logs[0] - logs[1]).mean()),
    }


def _seen(parent: Any, merged: Any, alone: Any = None) -> dict[str, float]:
    from alliage.forecasting.asking import predictors
    from alliage.forecasting.measures import disentanglement_error, divergence

    found = {**predictors(parent, merged), "divergence": divergence(parent, merged)}
    if alone is not None:
        found["disentanglement"] = 100 * disentanglement_error([merged], [alone])
    return found


def within(table: pd.DataFrame, predictor: str, loss: str = "loss") -> pd.Series:
    """Spearman's coefficient over a task's partners, for each family, method, seed and task."""
    found = {}
    for key, rows in table.groupby(["family", "method", "seed", "task"]):
        values, measured = rows[predictor], rows[loss]
        if values.nunique() > 1 and measured.nunique() > 1:
            found[key] = float(spearmanr(values, measured).statistic)
    names = ["family", "method", "seed", "task"]
    return pd.Series(found, index=pd.MultiIndex.from_tuples(found, names=names), dtype=float)


def interval(
    values: pd.Series, *, draws: int = 2000, by: Iterable[str] = ("task",)
) -> tuple[float, float]:
    """95 % of means when tasks are drawn anew; all seeds of a task go together."""
    groups = [each.to_numpy() for _, each in values.groupby(list(by))]
    random = np.random.default_rng(0)
    means = [
        np.concatenate(
            [groups[place] for place in random.integers(len(groups), size=len(groups))]
        ).mean()
        for _ in range(draws)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
