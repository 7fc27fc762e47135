"""The table of all models: what is known of them, and their scores by the main metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alliage.report.scores import Scores
from alliage.report.words import metric_name

if TYPE_CHECKING:
    import pandas as pd

CELL_LIMIT = 10_000
Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class ModelTable:
    """A row for each model.

    Attributes:
        caption: one line.
        columns: headings, with the decimals of numbers, or None above words.
        rows: cells; None where nothing is known.
        left_out: how many more models there are.
    """

    caption: str
    columns: tuple[tuple[str, int | None], ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int


def model_table(
    models: pd.DataFrame, scores: Scores | None, roles: Mapping[str, str]
) -> ModelTable:
    """All models that are described or scored.

    Args:
        models: the models table, each model once.
        scores: of the main metric, or None.
        roles: model -> role, in the order of the rows.
    """
    facts = {row["model"]: row for row in models.to_dict("records")}
    tasks = scores.tasks if scores else ()
    scored = dict(zip(scores.models, scores.values, strict=True)) if scores else {}
    rows: list[tuple[Cell, ...]] = []
    for name, role in roles.items():
        if name not in facts and name not in scored:
            continue
        known = facts.get(name, {})
        values = scored.get(name, np.full(len(tasks), np.nan))
        size = (known["parameters"] / 1e6, known["bytes"] / 1e6) if known else (None, None)
        measured = [float(value) if np.isfinite(value) else None for value in values]
        given = [value for value in measured if value is not None]
        mean = sum(given) / len(given) if given else None
        rows.append(
            (name, role, known.get("method") or None, known.get("layers"), *size,
             len(given), mean, *measured)
        )  # fmt: skip
    columns: tuple[tuple[str, int | None], ...] = (
        ("model", None), ("role", None), ("method", None), ("layers", 0),
        ("parameters, M", _decimals(row[4] for row in rows)),
        ("size, MB", _decimals(row[5] for row in rows)),
        ("tasks", 0), ("mean", 3), *((task, 3) for task in tasks),
    )  # fmt: skip
    shown = rows[: max(1, CELL_LIMIT // len(columns))]
    caption = (
        f"Under the names of tasks: {metric_name(scores.metric)}; before them: on how many tasks "
        "the model was scored, and the mean over these."
        if scores
        else ""
    )
    return ModelTable(caption, columns, tuple(shown), len(rows) - len(shown))


def _decimals(column: Iterable[Cell]) -> int:
    """As many as give the smallest number three significant digits, but no more than three."""
    smallest = min((cell for cell in column if isinstance(cell, float) and cell > 0), default=1.0)
    return max(0, min(3, 2 - math.floor(math.log10(smallest))))
