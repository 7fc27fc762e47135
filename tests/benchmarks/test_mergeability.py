"""Losses and checks of the mergeability study, on made-up answers with a known result."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from benchmarks._mergeability_learning import (
    ceiling,
    check,
    chosen_elsewhere,
    constant,
    counted,
)
from benchmarks._mergeability_losses import losses, within

TASKS = "abcde"


def _table(noise: float = 0.0) -> pd.DataFrame:
    """All ordered pairs; loss 2x + 1."""
    random = np.random.default_rng(0)
    pairs = list(itertools.permutations(TASKS, 2))
    x = random.uniform(0, 10, len(pairs))
    loss = 2 * x + 1 + noise * random.standard_normal(len(pairs))
    return pd.DataFrame({
        "family": "images", "form": "full", "seed": 0, "method": "average", "size": 2,
        "models": ["+".join(sorted(pair)) for pair in pairs],
        "task": [one for one, _ in pairs], "other": [two for _, two in pairs],
        "x": x, "loss": loss, "first": loss, "second": loss,
    })  # fmt: skip


def test_check_finds_a_line_and_not_chance() -> None:
    table = _table()
    _, found = check(table, ["x"], partners=False)
    assert found["spearman"] == pytest.approx(1.0)
    assert found["error"] < 0.5  # the ridge alone
    noise = table.assign(x=np.random.default_rng(1).uniform(size=len(table)))
    _, chance = check(noise, ["x"], partners=False)
    assert chance["spearman"] < 0.5
    assert chance["error"] > 3


def test_a_constant_is_the_mean_of_merges_without_the_task() -> None:
    rows = pd.DataFrame({
        "models": ["a+b", "a+b", "c+d", "c+d"], "task": list("abcd"), "size": 2,
        "loss": [1.0, 1.0, 4.0, 6.0],
    })  # fmt: skip
    # a and b are told 5, and miss by 4; c and d are told 1, and miss by 3 and 5.
    assert constant(rows) == pytest.approx(4.0)


def test_a_predictor_is_chosen_without_the_task_it_is_scored_on() -> None:
    index = pd.MultiIndex.from_tuples([("a",), ("b",)], names=["task"])
    candidates = {"x": pd.Series([1.0, 0.0], index), "y": pd.Series([-1.0, 0.5], index)}
    _, scored = chosen_elsewhere(candidates)
    # For a, y is best on b: -1. For b, x is best on a: 0.
    assert scored.sort_index().tolist() == [-1.0, 0.0]


def test_the_ceiling_of_exact_losses_is_one_and_merges_are_counted() -> None:
    assert ceiling(_table()) == pytest.approx(1.0)
    assert counted(_table()) == {"images": {"average": {"2": 10}}}


def test_losses_of_answers_by_hand(tmp_path) -> None:
    right = np.array([[5.0, 0.0], [5.0, 0.0], [0.0, 5.0], [0.0, 5.0]], np.float32)
    turned = right.copy()
    turned[0] = [0.0, 5.0]  # one of four, in the first half
    truth = np.array([0, 0, 1, 1])
    for task, answers in (("a", turned), ("b", right)):
        np.savez(
            tmp_path / f"parent-{task}.npz",
            **{f"{task}/scored": right, f"{task}/scored_truth": truth,
               f"{task}/unlabelled": right, f"{task}/unlabelled_truth": truth},
        )  # fmt: skip
        np.savez(tmp_path / f"scaled_0.5-{task}.npz", **{f"{task}/unlabelled": answers})
    merged = {}
    for task, answers in (("a", turned), ("b", right)):
        merged |= {f"{task}/scored": answers, f"{task}/unlabelled": answers}
    np.savez(tmp_path / "average-a+b.npz", **merged)
    found = losses(tmp_path, "images", 0).set_index("task")
    assert found.loc["a", ["loss", "first", "second"]].tolist() == [25.0, 50.0, 0.0]
    assert found.loc["b", "loss"] == 0.0
    assert found.loc["a", "changed"] == 25.0


def test_within_is_by_task() -> None:
    # Levels of tasks turn the order over all pairs, not that within a task.
    table = _table().assign(loss=lambda t: t["x"] - 100 * t["task"].map(TASKS.index))
    assert within(table, "x").tolist() == pytest.approx([1.0] * 5)
