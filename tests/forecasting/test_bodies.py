"""Merges in memory answer as those that are written."""

from __future__ import annotations

import numpy as np
import pytest

import alliage
from alliage import vectors
from alliage.checkpoints import open as open_checkpoint
from alliage.data import Example, Task
from alliage.evaluation.answers import predict
from alliage.evaluation.models import load_classifier
from alliage.forecasting.bodies import Bodies

LABELS = {"sentiment": ("negative", "positive"), "topics": ("weather", "sport", "arts")}
TEXTS = ["the film was good", "rain", "a great goal", "the book is not good", "a short team"] * 4


def _tasks():
    return [
        Task(name, "sequence-classification", labels,
             {"validation": tuple(Example((text,), 1) for text in TEXTS)})
        for name, labels in LABELS.items()
    ]  # fmt: skip


def _bodies(family, suffix=""):
    found = [
        vectors.open(family / f"{name}{suffix}", base=family / "base", name=name) for name in LABELS
    ]
    return Bodies(found, _tasks(), "validation", 20)


@pytest.mark.parametrize("method", ["average", "ties"])
def test_full_models_answer_as_the_merge_on_disk(family, tmp_path, method) -> None:
    bodies = _bodies(family)
    found = bodies.answers(("sentiment", "topics"), method)
    alliage.merge(
        method, base=family / "base", models=[family / name for name in LABELS],
        out=tmp_path / "merged",
    )  # fmt: skip
    with open_checkpoint(tmp_path / "merged") as checkpoint:
        for task in _tasks():
            classifier = load_classifier(checkpoint, task, head=task.name)
            expected = predict(classifier, task.examples("validation")).logits
            assert np.allclose(found[task.name], expected, atol=1e-5)
    assert not np.allclose(found["topics"], bodies.parents["topics"], atol=1e-3)
    again = bodies.answers(("sentiment", "topics"), method)
    assert np.array_equal(again["topics"], found["topics"])  # nothing of a merge stays


@pytest.mark.parametrize("method", ["average", "factor_average"])
def test_adapters_answer_as_their_merge(family, tmp_path, method) -> None:
    found = _bodies(family, "-lora").answers(("sentiment", "topics"), method)
    alliage.merge(
        method, base=family / "base", models=[family / f"{name}-lora" for name in LABELS],
        out=tmp_path / "merged",
    )  # fmt: skip
    merged = tmp_path / "merged"
    if method == "factor_average":
        alliage.apply(merged, out=tmp_path / "whole")
        merged = tmp_path / "whole"
    with open_checkpoint(merged) as checkpoint:
        for task in _tasks():
            classifier = load_classifier(checkpoint, task, head=f"{task.name}-lora")
            expected = predict(classifier, task.examples("validation")).logits
            assert np.allclose(found[task.name], expected, atol=1e-5)


def test_parents_answer_for_themselves(family) -> None:
    bodies = _bodies(family, "-lora")
    for task in _tasks():
        with open_checkpoint(family / f"{task.name}-lora", base=family / "base") as checkpoint:
            expected = predict(load_classifier(checkpoint, task), task.examples("validation"))
        assert np.allclose(bodies.parents[task.name], expected.logits, atol=1e-5)
