from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn import metrics

import alliage
from alliage.data import Example, Task
from alliage.errors import AlliageError, UsageError
from alliage.evaluation import Unlabelled, predict
from alliage.evaluation.evidence import weigh
from alliage.evaluation.models import Classifier
from alliage.studies.results import read_table, write_table

WORDS = ["good", "bad", "the film", "rain", "sun sun sun", "a long awful book", "team"]
EXAMPLES = tuple(Example((text,), number % 2) for number, text in enumerate(WORDS * 3))
MOOD = Task("mood", "sequence-classification", ("negative", "positive"), {"validation": EXAMPLES})


def test_scores_agree_with_transformers_and_scikit_learn(family):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(family / "sentiment").eval()
    tokenizer = AutoTokenizer.from_pretrained(family / "sentiment")
    with torch.inference_mode():
        shares = torch.stack(
            [
                model(**tokenizer(e.inputs[0], return_tensors="pt")).logits[0].softmax(0)
                for e in EXAMPLES
            ]
        )
    truth, predicted = [e.label for e in EXAMPLES], shares.argmax(1)
    found = alliage.evaluate(family / "sentiment", MOOD, batch_size=4)["mood"]
    assert found.metrics["accuracy"] == metrics.accuracy_score(truth, predicted)
    assert found.metrics["f1"] == metrics.f1_score(truth, predicted)
    assert found.metrics["matthews"] == metrics.matthews_corrcoef(truth, predicted)
    right = (predicted == torch.tensor(truth)).float()
    bins = (shares.max(1).values * 15).ceil()
    gap = sum(((right - shares.max(1).values)[bins == b]).sum().abs() for b in bins.unique()) / len(
        truth
    )
    assert found.metrics["ece"] == pytest.approx(float(gap), abs=1e-6)
    assert found.examples == len(EXAMPLES)


def test_sizes_come_from_the_files(family):
    full = alliage.evaluate(family / "sentiment", MOOD)
    adapter = alliage.evaluate(family / "sentiment-lora", MOOD)
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(family / "sentiment")
    assert full.parameters == sum(p.numel() for p in model.parameters())
    # Two layers, query and value, A and B of rank 2 and width 16; the head's 2 · 16 + 2 are new.
    assert adapter.parameters == full.parameters + 2 * 2 * 2 * 2 * 16
    assert adapter.bytes == 4 * (2 * 2 * 2 * 2 * 16 + 2 * 16 + 2)
    assert (full.layers, adapter.layers) == (2, 2)
    assert (full.role, full.method) == ("base", "")


def test_rows_fit_the_results_tables(family, tmp_path):
    scores = alliage.evaluate(family / "sentiment", MOOD)
    for table, rows in scores.to_rows().items():
        write_table(tmp_path, table, rows)
        assert len(read_table(tmp_path, table)) == len(rows)
    stored = read_table(tmp_path, "scores").set_index("metric")["value"]
    assert stored["accuracy"] == scores["mood"].metrics["accuracy"]
    assert read_table(tmp_path, "reliability")["examples"].sum() == len(EXAMPLES)
    assert "sentiment (base): 2 layers" in str(scores)
    assert "&lt;" not in scores._repr_html_()


def test_a_limit_scores_a_part_and_progress_is_told(family):
    seen = []
    scores = alliage.evaluate(
        family / "sentiment", MOOD, limit=10, batch_size=4,
        on_event=lambda *event: seen.append(event),
    )  # fmt: skip
    assert scores["mood"].examples == 10
    assert seen == [("sentiment on mood", done, 10) for done in (4, 8, 10)]


def test_an_unknown_split_is_refused_before_the_model_is_opened():
    with pytest.raises(UsageError, match="no such split"):
        alliage.evaluate("nowhere", MOOD, split="test")


class Fixed(torch.nn.Module):
    """Answers log-probabilities given for each number."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.tensor(table)

    def forward(self, input_ids):
        class Output:
            logits = self.table[input_ids]

        return Output


class Numbers:
    """Tokens are numbers; the first token of each sentence has no tag."""

    def encode(self, examples):
        return [{"input_ids": list(e.inputs), "labels": [-100, *e.label]} for e in examples]

    def collate(self, encoded):
        width = max(len(e["input_ids"]) for e in encoded)
        ids = [e["input_ids"] + [0] * (width - len(e["input_ids"])) for e in encoded]
        labels = [e["labels"] + [-100] * (width - len(e["labels"])) for e in encoded]
        return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def test_tokens_keep_their_sentences_in_the_order_given(monkeypatch):
    monkeypatch.setattr("alliage.evaluation.answers._BATCHES", 1)
    table = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]).tolist()
    classifier = Classifier(Fixed(table), Numbers(), (2, 0, 1), "token-classification")
    examples = [Example((0, 1, 2), (0, 1)), Example((0, 2), (2,)), Example((0, 1), (1,))]
    answers = predict(classifier, examples, batch_size=2)
    assert [tags.tolist() for tags in answers.by_example(answers.truth)] == [[0, 1], [2], [1]]
    assert answers.examples.tolist() == [0, 0, 1, 2]
    np.testing.assert_allclose(
        answers.probabilities,
        [[0.7, 0.1, 0.2], [0.1, 0.6, 0.3], [0.1, 0.6, 0.3], [0.7, 0.1, 0.2]],
        atol=1e-7,
    )
    np.testing.assert_array_equal(answers.predicted, [0, 1, 1, 0])


def test_sentences_without_any_tag_keep_their_place():
    classifier = Classifier(Fixed([[0.0, 1.0]]), Numbers(), (0, 1), "token-classification")
    examples = [Example((0,), ()), Example((0, 0), (1,)), Example((0,), ())]
    answers = predict(classifier, examples)
    assert [tags.tolist() for tags in answers.by_example(answers.truth)] == [[], [1], []]
    task = Task("t", "token-classification", ("a", "b"), {"test": examples})
    assert len(weigh(task, answers).tally) == 3


def test_nan_answers_name_the_model_and_the_first_example():
    table = [[0.0, 1.0], [float("nan"), 0.0]]
    classifier = Classifier(Fixed(table), Numbers(), (0, 1), "token-classification", "m on t")
    examples = [Example((0, 0, 0), (0, 1)), Example((0, 1, 0), (0, 1)), Example((1, 1), (0,))]
    with pytest.raises(AlliageError, match=r"m on t: example 2 \(0, 1, 0\): .* NaN or infinity"):
        predict(classifier, examples)


def test_labels_beyond_the_head_name_the_example():
    classifier = Classifier(Fixed([[0.0, 1.0]]), Numbers(), (0, 1), "token-classification", "m")
    with pytest.raises(AlliageError, match=r"example 2 .*: label 2, but the task has 2 labels"):
        predict(classifier, [Example((0, 0), (1,)), Example((0, 0), (2,))])


class Lazy(Sequence):
    """Examples that exist when asked for; remembers how many were asked for at once."""

    def __init__(self, size):
        self.size = size
        self.most = 0

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if isinstance(index, slice):
            indices = range(self.size)[index]
            self.most = max(self.most, len(indices))
            return [self[i] for i in indices]
        return Example((0, index % 3), (index % 2,))


def test_splits_larger_than_memory_are_read_by_the_chunk(monkeypatch):
    monkeypatch.setattr("alliage.evaluation.answers._BATCHES", 2)
    table = np.log([[0.5, 0.5], [0.3, 0.7], [0.6, 0.4]]).tolist()
    classifier = Classifier(Fixed(table), Numbers(), (0, 1), "token-classification")
    lazy = Lazy(50)
    answers = predict(classifier, lazy, batch_size=4)
    assert lazy.most == 8
    assert answers.truth.tolist() == [0, 1] * 25
    assert answers.predicted.tolist() == [[0, 1, 0][index % 3] for index in range(50)]


def test_a_split_without_labels_is_said_to_have_none(family):
    hidden = tuple(example._replace(label=None) for example in EXAMPLES)
    task = Task("mood", "sequence-classification", MOOD.labels, {"test": hidden})
    with pytest.raises(Unlabelled, match="mood: test: has no labels: nothing to score"):
        alliage.evaluate(family / "sentiment", task, split="test")
