"""Tuning a real encoder on real data, compared, merged and judged."""

from __future__ import annotations

from collections import Counter

import pytest

import alliage
from alliage.data import load_task

pytestmark = [pytest.mark.real, pytest.mark.slow]


def majority(task):
    counts = Counter(example.label for example in task.splits["validation"])
    return max(counts.values()) / sum(counts.values())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_sentiment_beats_the_larger_class(minilm, data_folder, tmp_path, method):
    alliage.tune(
        model=minilm, task=data_folder / "sst2", method=method, out=tmp_path / "sst2",
        epochs=1, train_limit=1500, max_length=64, warmup=0.1,
        learning_rate={"full": 1e-4, "lora": 2e-3}[method],
    )  # fmt: skip
    task = load_task(data_folder / "sst2")
    scores = alliage.evaluate(tmp_path / "sst2", task)["sst2"]
    assert scores.metrics["accuracy"] > majority(task) + 0.2


def test_entities_are_found(minilm, data_folder, tmp_path):
    alliage.tune(
        model=minilm, task=data_folder / "wnut17_ner_en", out=tmp_path / "wnut",
        epochs=3, train_limit=1000, learning_rate=5e-4, warmup=0.1, max_length=64,
    )  # fmt: skip
    scores = alliage.evaluate(tmp_path / "wnut", data_folder / "wnut17_ner_en")["wnut17_ner_en"]
    assert scores.metrics["f1"] > 0.2
