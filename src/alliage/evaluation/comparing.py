"""Which of two models is better, and whether that may be chance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alliage.evaluation.scores import Scores


def compare_scores(scores: Iterable[Scores], reference: Scores) -> list[dict[str, Any]]:
    """Rows of the table "comparisons": each model against a reference, on the tasks of both.

    Differences with 95 % intervals and p: see `alliage.evaluation.intervals.differences`. No
    correction is made for the number of comparisons.

    Args:
        scores: of models; the reference among them is passed over.
        reference: scored on the same examples.
    """
    rows = []
    for model in scores:
        if model is reference:
            continue
        for task in model.tasks:
            other = next((one for one in reference.tasks if one.task == task.task), None)
            if other is None or task.evidence is None or other.evidence is None:
                continue
            rows += [
                {
                    "model": model.model,
                    "against": reference.model,
                    "task": task.task,
                    "split": task.split,
                    "metric": metric,
                }
                | difference._asdict()
                for metric, difference in task.evidence.against(other.evidence).items()
            ]
    return rows
