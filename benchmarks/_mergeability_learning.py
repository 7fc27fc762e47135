"""Lessons for the forecast from measured merges, each checked on tasks that were left out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks._merge_families import FAMILIES
from benchmarks._mergeability_losses import interval, within
from benchmarks._mergeability_merges import UNLABELLED

COMMAND = "python -m benchmarks mergeability --home HOME --learn"
FROM_WEIGHTS = {"lora": ("all.lost",), "full": ("value.lost",)}
FROM_ANSWERS = ("expected", "variation")
_FEW = 100  # losses that a lesson needs: those of the pairs of two seeds
_EDGES = (-np.inf, 2.0, 5.0, np.inf)  # points


def check(
    rows: pd.DataFrame, predictors: Sequence[str], *, partners: bool
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Forecasts by models that have seen no merge with the task, and how near they come."""
    from alliage.geometry.forecasting.model import leave_one_task_out

    members = [frozenset(models.split("+")) for models in rows["models"]]
    forecasts, widths = leave_one_task_out(
        rows[list(predictors)].to_numpy(float), rows["loss"].to_numpy(), list(rows["task"]),
        members, predictors, partners=partners,
    )  # fmt: skip
    found = rows.assign(forecast=forecasts, error=np.abs(forecasts - rows["loss"]))
    pairs = found[found["size"] == 2]
    each = within(pairs, "forecast")
    low, high = interval(each)
    errors = pairs.set_index("task")["error"]
    return found, {
        "spearman": float(each.mean()),
        "spread": float(each.std()),
        "interval": (low, high),
        "pooled": float(spearmanr(pairs["forecast"], pairs["loss"]).statistic),
        "error": float(errors.mean()),
        "error_interval": interval(errors),
        "held": float((found["error"] <= widths).mean()),
        "width": float(np.mean(widths)),
        "merges": len(found),
    }


def learn(table: pd.DataFrame, weights: Mapping[tuple[str, str], pd.DataFrame]) -> Any:
    """Everything that is shipped.

    Args:
        table: of `losses`, all families.
        weights: (family, method) -> the table with the predictors from weights beside it.
    """
    import torch
    import transformers

    from alliage.geometry.forecasting.learned import Comparison, Learned, Lesson
    from alliage.geometry.forecasting.model import Model

    def lesson(rows: pd.DataFrame, form: Any, method: str, needs: Any) -> Lesson:
        partners = needs == "weights"
        predictors = FROM_WEIGHTS[form] if partners else FROM_ANSWERS
        _, checked = check(rows, predictors, partners=partners)
        model = Model.fit(
            rows[list(predictors)].to_numpy(float), rows["loss"].to_numpy(), list(rows["task"]),
            [frozenset(models.split("+")) for models in rows["models"]], predictors,
            partners=partners,
        )  # fmt: skip
        sizes = [_SIZES[family] for family in rows["family"].unique()]
        return Lesson(
            form, method, needs, model, (min(sizes), max(sizes)),
            (8, 8) if form == "lora" else (0, 0),
            rows.groupby(["family", "seed", "models", "method"]).ngroups,
            round(checked["spearman"], 3), round(checked["error"], 3),
        )  # fmt: skip

    lessons = [lesson(table, "any", "any", "answers")]
    forms = {(form_of(family), method) for family, method in weights}
    for form, method in sorted(forms):
        rows = pd.concat(
            [
                rows
                for (family, m), rows in weights.items()
                if (form_of(family), m) == (form, method)
            ]
        )
        if len(rows) >= _FEW:
            lessons.append(lesson(rows, form, method, "weights"))
    comparisons = [
        Comparison(form, method, against, *values)
        for form in ("full", "lora")
        for method, against, *values in compared(table[table["form"] == form])
    ]
    digest = hashlib.sha256(table.to_csv(index=False, float_format="%.6g").encode()).hexdigest()
    source = {
        "families": {
            name: {
                "tasks": list(FAMILIES[name].tasks),
                "seeds": sorted(rows["seed"].unique().tolist()),
            }
            for name, rows in table.groupby("family")
        },
        "scored": int(table["examples"].max()),
        "unlabelled": UNLABELLED,
        "merges": counted(table),
        "losses": len(table),
        "losses_sha256": digest,
        "versions": {
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
        },
    }
    return Learned(COMMAND, source, lessons, comparisons)


def compared(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    """What each method lost beside each other one, where that one lost little or much."""
    keys = ["family", "seed", "models", "task"]
    found = []
    for against in sorted(rows["method"].unique()):
        for method in sorted(set(rows["method"]) - {against}):
            both = rows[rows["method"] == method].merge(
                rows[rows["method"] == against], on=keys, suffixes=("", "_against")
            )
            # By halves: chosen and measured on the same examples, noise would make a difference.
            both = both.assign(difference=both["second"] - both["second_against"])
            for low, high in itertools.pairwise(_EDGES):
                some = both[both["first_against"].between(low, high, inclusive="left")]
                means = some.groupby(["family", "task"])["difference"].mean()
                if len(means) >= 4:
                    error = float(means.std() / np.sqrt(len(means)))
                    found.append(
                        (method, against, max(low, -1e3), min(high, 1e3), len(some),
                         round(float(means.mean()), 2), round(error, 2))
                    )  # fmt: skip
    return found


def counted(table: pd.DataFrame) -> dict[str, dict[str, dict[str, int]]]:
    """Merges that were measured: family -> method -> size of the set -> count."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for (family, method, size), rows in table.groupby(["family", "method", "size"]):
        count = rows.groupby(["seed", "models"]).ngroups
        found.setdefault(str(family), {}).setdefault(str(method), {})[str(size)] = count
    return found


def constant(rows: pd.DataFrame) -> float:
    """The error of the mean loss of merges without the task, as a forecast of pairs; points."""
    errors = []
    pairs = rows[rows["size"] == 2]
    for task, own in pairs.groupby("task"):
        others = rows[[task not in models.split("+") for models in rows["models"]]]
        errors.append((own["loss"] - others["loss"].mean()).abs())
    return float(pd.concat(errors).mean())


def chosen_elsewhere(candidates: Mapping[str, pd.Series]) -> tuple[str, pd.Series]:
    """Coefficients of each task by the predictor that is best on all other tasks.

    Args:
        candidates: predictor -> coefficients of `within`, by task and more.

    Returns:
        the predictor that is chosen most often, and the coefficients.
    """
    table = pd.DataFrame(dict(candidates)).fillna(0.0)
    tasks = table.index.get_level_values("task")
    picked, parts = [], []
    for task in sorted(set(tasks)):
        best = table[tasks != task].mean().idxmax()
        picked.append(best)
        parts.append(table.loc[tasks == task, best])
    return max(sorted(set(picked)), key=picked.count), pd.concat(parts)


def ceiling(pairs: pd.DataFrame) -> float:
    """The largest coefficient that any forecast could reach on losses of these examples.

    One half of the examples foretells the other with r, all of them others like them with
    2r/(1 + r) (Spearman, Brown), and the truth foretells them with the square root of that.
    """
    r = max(float(within(pairs.assign(loss=pairs["second"]), "first").mean()), 0.0)
    return float(np.sqrt(2 * r / (1 + r)))


def form_of(family: str) -> str:
    """How a family was tuned."""
    return "lora" if family.endswith("lora") else "full"


_SIZES: dict[str, int] = {}


def sizes(home: Path) -> None:
    """Read the sizes of the bases."""
    from alliage.checkpoints import open as open_checkpoint

    for name, family in FAMILIES.items():
        if (home / name / family.base).exists():
            with open_checkpoint(home / name / family.base) as base:
                _SIZES[name] = base.numel
