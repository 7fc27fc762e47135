"""The study's own arithmetic: losses from answers, and coefficients of each task's partners."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from benchmarks._merge_families import FAMILIES
from benchmarks.geometry_study import _losses, correlations
from scipy.stats import spearmanr

TASKS = list(FAMILIES["texts-lora"].tasks)


def test_coefficients_are_of_partners_without_the_task_itself() -> None:
    random = np.random.default_rng(0)
    loss, distance = random.random((2, 6, 6))
    np.fill_diagonal(loss, 1e9)
    found = correlations(loss, distance)
    for i in range(6):
        others = [j for j in range(6) if j != i]
        assert found[i] == pytest.approx(spearmanr(loss[i, others], distance[i, others])[0])
    loss[2] = 0.5
    assert np.isnan(correlations(loss, distance)[2])


def answers(home: Path, seed: int) -> None:
    """Each task has four examples; the merge of tasks i < j is wrong on j of i's and i of j's."""
    folder = home / f"texts-lora-{seed}"
    folder.mkdir()
    truth = np.array([0, 1, 0, 1])
    right = np.eye(2)[truth]
    for task in TASKS:
        np.savez(folder / f"parent-{task}.npz",
                 **{f"{task}/scored": right, f"{task}/scored_truth": truth})  # fmt: skip
    for i, j in itertools.combinations(range(len(TASKS)), 2):
        wrong = {f"{TASKS[i]}/scored": j % 4, f"{TASKS[j]}/scored": i % 4}
        merged = {
            key: np.vstack([right[:count, ::-1], right[count:]]) for key, count in wrong.items()
        }
        np.savez(folder / f"factor_average-{TASKS[i]}+{TASKS[j]}.npz", **merged)


def test_losses_are_points_of_the_task_that_was_merged(tmp_path: Path) -> None:
    answers(tmp_path, 1)
    first, second, third = _losses("texts-lora", "factor_average", tmp_path)
    assert first is None  # not measured
    assert third is None
    assert second is not None
    assert second.seed == 1
    for i, j in itertools.permutations(range(len(TASKS)), 2):
        assert second.values[i, j] == 25.0 * (j % 4)
    assert np.isnan(second.values.diagonal()).all()
    next((tmp_path / "texts-lora-1").glob("factor_average-*")).unlink()
    assert list(_losses("texts-lora", "factor_average", tmp_path)) == [None] * 3
