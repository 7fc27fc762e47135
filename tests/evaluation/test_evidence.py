"""Which metrics belong to which answers."""

from __future__ import annotations

import numpy as np
import pytest
from seqeval import metrics as seqeval
from sklearn import metrics

from alliage.data import Example, Task
from alliage.evaluation.answers import Answers
from alliage.evaluation.confidence import calibration_metrics
from alliage.evaluation.evidence import known_metrics, weigh
from alliage.evaluation.writing import Writing

RANDOM = np.random.default_rng(3)


def task(kind, labels=(), name="t"):
    return Task(name, kind, labels, {"test": (Example(("",), None),)})


def answers(labels, count=40, owners=None):
    truth = RANDOM.integers(labels, size=count)
    logits = RANDOM.normal(size=(count, labels)).astype(np.float32)
    owners = np.arange(count) if owners is None else owners
    return Answers(logits, truth, owners, int(owners.max()) + 1)


def test_where_every_answer_is_right_the_accuracy_has_its_exact_interval():
    truth = np.array([0, 1, 1, 0, 1])
    found = Answers(np.eye(2)[truth], truth, np.arange(5), 5)
    known = weigh(task("sequence-classification", ("a", "b")), found).intervals()
    # P(5 of 5 right) is 0.025 at this share.
    assert known["accuracy"] == pytest.approx((0.025**0.2, 1.0, "exact"))
    assert "f1" not in known  # 1 in almost every resample


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (task("sequence-classification", ("a", "b")), answers(2)),
        (task("image-classification", ("a", "b", "c")), answers(3)),
        (task("token-classification", ("N", "V", "A")), answers(3, owners=np.arange(40) // 7)),
        (task("token-classification", ("O", "B-X", "I-X")), answers(3, owners=np.arange(40) // 7)),
        (task("multiple-choice"), answers(4)),
        (task("regression"), answers(1)),
        (task("text-generation"), Writing(np.ones(2), np.ones(2, int), ("a", "b"), ("a", "c"))),
        (task("sequence-classification", ("0", "1"), "mrpc"), answers(2)),
        (task("regression", name="stsb"), answers(1)),
    ],
    ids=lambda value: value.kind if isinstance(value, Task) else "",
)
def test_what_is_known_beforehand_is_what_is_measured(of, found):
    measured = weigh(of, found).metrics()
    if isinstance(found, Answers) and of.kind != "regression":
        measured |= calibration_metrics(found)
    assert set(measured) == set(known_metrics(of))


def test_tokens_count_alike_in_any_sentence():
    found = answers(3, owners=np.repeat([0, 1, 2], [1, 9, 30]))
    scores = weigh(task("token-classification", ("N", "V", "A")), found).metrics()
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(found.truth, found.predicted))
    assert scores["f1_macro"] == pytest.approx(
        metrics.f1_score(found.truth, found.predicted, average="macro")
    )


def test_entities_are_found_within_their_sentence():
    tags = np.array(["O", "B-X", "I-X"])
    found = answers(3, owners=np.repeat([0, 1, 2, 3], [1, 9, 14, 16]))
    scores = weigh(task("token-classification", tuple(map(str, tags))), found).metrics()
    truth, predicted = (
        [list(tags[part]) for part in np.split(side, [1, 10, 24])]
        for side in (found.truth, found.predicted)
    )
    assert scores["f1"] == pytest.approx(seqeval.f1_score(truth, predicted))


def test_glue_averages_what_it_reports_two_of():
    found = answers(2)
    scores = weigh(task("sequence-classification", ("equivalent", "not"), "mrpc"), found).metrics()
    f1 = metrics.f1_score(found.truth, found.predicted, pos_label=0)
    accuracy = metrics.accuracy_score(found.truth, found.predicted)
    assert scores["glue"] == pytest.approx((f1 + accuracy) / 2)
