"""Merges in memory answer as those that are written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import alliage
from alliage import vectors
from alliage.checkpoints import open as open_checkpoint
from alliage.data import Example, Task
from alliage.errors import UsageError
from alliage.evaluation.answers import predict
from alliage.evaluation.models import load_classifier
from alliage.forecasting.asking import _measured, _widened
from alliage.forecasting.bodies import Bodies
from alliage.geometry.forecasting.result import Expected

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


def test_equal_models_lose_nothing_by_their_answers(family) -> None:
    task = _tasks()[0]
    same = {"a": family / "sentiment", "b": family / "sentiment"}
    found = alliage.forecast(family / "base", same, tasks=[task, task], examples=20)
    assert [each.points for each in found.expected] == [0, 0]
    assert "a 20, b 20" in found.notes[0]
    assert "of n fewer" in found.notes[1]


def test_what_was_never_measured_is_refused() -> None:
    merges = {"texts-lora": {"average": {"2": 9}}, "images": {"ties": {"2": 3, "4": 1}}}
    known = Expected(("a", "b"), "a", "average", 3.0, 1.0, 5.0, {})
    assert _measured(known, "lora", merges) == known
    assert "tuned in full by average was" in _measured(known, "full", merges).refused[0]
    mixed = "LowRankVector and TaskVector"
    assert "no merge" in _measured(known, mixed, merges).refused[0]
    many = replace(known, models=("a", "b", "c"))
    assert "at most 2" in _measured(many, "lora", merges).refused[0]
    assert not _measured(replace(many, method="ties"), "full", merges).refused


def test_fewer_examples_widen_the_interval() -> None:
    known = Expected(("a", "b"), "a", "average", 3.0, 1.0, 5.0, {})
    assert (_widened(known, 16).low, _widened(known, 16).high) == (-1.0, 7.0)  # √(64/16) = 2
    assert _widened(known, 400) == known


def test_factors_of_full_models_are_refused_before_anything_is_loaded(family) -> None:
    for names in (("sentiment", "topics"), ("sentiment-lora", "topics")):
        with pytest.raises(UsageError, match="topics: is no LoRA adapter"):
            alliage.forecast(
                family / "base", [family / name for name in names], "factor_average",
                tasks=_tasks(),
            )  # fmt: skip


def test_factors_of_several_ranks_are_refused(family, tmp_path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(family / "base", num_labels=3)
    config = LoraConfig(
        r=3, target_modules=["query", "value"], modules_to_save=["classifier"]
    )  # fmt: skip
    get_peft_model(model, config).save_pretrained(tmp_path / "wide")
    with pytest.raises(UsageError, match=r"rank 3, sentiment-lora 2"):
        alliage.forecast(
            family / "base", [family / "sentiment-lora", tmp_path / "wide"], "factor_average",
            tasks=_tasks(),
        )  # fmt: skip
