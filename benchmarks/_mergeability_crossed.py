"""What needs both models on one task's examples: features, gradients, the path between them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from benchmarks._merge_families import Family
from benchmarks._mergeability_merges import SCALED, UNLABELLED, Merge, Models


def crossed(family: Family, home: Path, answers: Path, seed: int) -> pd.DataFrame:
    """For every ordered pair on the unlabelled examples of the first one's task.

    cka: 1 − linear CKA of what the two bodies give the head. gradient: distance of the two tasks'
    gradients at the base, each of the cross-entropy to its own model's answers. barrier: of the
    log loss from one model over their average to the other, and height: of the average over the
    mean of the two, a barrier where it is positive; these alone look at labels.
    """
    from alliage.forecasting.measures import connectivity_barrier, gradient_distance, linear_cka

    models = Models(family, home, seed, UNLABELLED)
    tasks = list(family.tasks)
    gradients = {}
    models.become(Merge(f"{SCALED}0", (tasks[0],)))
    for task in tasks:
        parent = np.load(answers / f"parent-{task}.npz")[f"{task}/unlabelled"]
        gradients[task] = models.gradient(task, parent.argmax(1))
    features: dict[tuple[str, str], Any] = {}
    losses: dict[tuple[str, str], float] = {}
    for model in tasks:
        models.become(Merge("parent", (model,)))
        for task in tasks:
            logits, features[task, model] = models.features(task)
            losses[task, model] = _log_loss(logits, _truth(answers, task))
    rows = []
    for task, other in itertools.permutations(tasks, 2):
        pair = "+".join(name for name in tasks if name in (task, other))
        middle = np.load(answers / f"average-{pair}.npz")[f"{task}/unlabelled"]
        path = [
            losses[task, task], _log_loss(middle, _truth(answers, task)), losses[task, other]
        ]  # fmt: skip
        rows.append(
            {
                "task": task,
                "other": other,
                "cka": 1 - linear_cka(features[task, task], features[task, other]),
                "gradient": gradient_distance(gradients[task], gradients[other]),
                "barrier": connectivity_barrier(path),
                "height": path[1] - (path[0] + path[2]) / 2,
            }
        )
    return pd.DataFrame(rows)


def _truth(answers: Path, task: str) -> Any:
    return np.load(answers / f"parent-{task}.npz")[f"{task}/unlabelled_truth"]


def _log_loss(logits: Any, truth: Any) -> float:
    return float(-log_softmax(logits.astype(float), 1)[np.arange(len(truth)), truth].mean())
