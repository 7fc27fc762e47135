"""Predictors of merge losses for the models of one seed: published ones and the forecast's own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks._merge_families import Family

# metric -> whether a large value speaks for a large loss
PUBLISHED = {
    "l2": True, "cosine": True, "geodesic": True, "chordal": True, "projection_two": True,
    "martin": True, "explained_energy": False, "core_energy": False, "rec": False, "sar": False,
    "sti": True, "sign_agreement": False, "top_overlap": False,
}  # fmt: skip
KINDS = {"lora": ("query", "value", ""), "full": ("query", "value", "mlp")}
LAST_LAYERS = 3


def published(family: Family, home: Path, seed: int, form: str) -> pd.DataFrame:
    """Every metric of a survey for every ordered pair, by kind of module and for the last layers.

    Columns: task, other, predictor, value; a large value is to speak for a large loss.
    """
    import alliage
    from alliage.vectors import open as open_vector

    vectors = [
        open_vector(home / f"{task}-{seed}", base=home / family.base, name=task)
        for task in family.tasks
    ]
    rows = []
    for kind, last in itertools.product(KINDS[form], (None, LAST_LAYERS)):
        survey = alliage.geometry.survey(
            vectors, list(PUBLISHED), modules=kind or None, last_layers=last
        )
        for metric, upward in PUBLISHED.items():
            means = survey[metric].mean("module")
            name = f"{metric}, {kind or 'all'}{f', last {last}' if last else ''}"
            for task, other in itertools.permutations(family.tasks, 2):
                value = float(means.sel(task=task, other=other))
                rows.append((task, other, name, value if upward else -value))
    return pd.DataFrame(rows, columns=["task", "other", "predictor", "value"])


def own(
    family: Family, home: Path, seed: int, method: str, sets: Sequence[tuple[str, ...]]
) -> pd.DataFrame:
    """The forecast's predictors from weights: columns models, task, and one for each."""
    from alliage.geometry.forecasting.predicting import predict
    from alliage.vectors import open as open_vector

    vectors = [
        open_vector(home / f"{task}-{seed}", base=home / family.base, name=task)
        for task in family.tasks
    ]
    planned: Any = "factor_average" if method == "factor_average" else "average"
    found = predict(vectors, sets, planned)
    return pd.DataFrame(
        [
            {"models": "+".join(names), "task": task, **values}
            for (names, task), values in found.items()
        ]
    )
