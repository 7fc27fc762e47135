from __future__ import annotations

import math

import numpy as np
import pytest

from alliage.data import Example, Task
from alliage.errors import UsageError
from alliage.evaluation import Unlabelled
from alliage.evaluation.answers import Answers
from alliage.evaluation.writing import Writing
from alliage.search.questions import mean_entropy, questions_of

EXAMPLES = (Example(("a",), 0), Example(("b",), 1))


def make(kind, labels=(), examples=EXAMPLES, name="t"):
    return Task(name, kind, labels, {"validation": tuple(examples)})


TWO = make("sequence-classification", ("no", "yes"))


def test_entropy_by_hand():
    # Probabilities (½, ½), (¾, ¼) and (1, 0): entropies ln 2 = 0.693147, 0.562335, 0.
    logits = np.array([[0.0, 0.0], [math.log(3), 0.0], [0.0, -np.inf]], np.float32)
    answers = Answers(logits, np.zeros(3, int), np.arange(3), 3)
    assert mean_entropy(answers) == pytest.approx((0.6931472 + 0.5623351 + 0) / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        (TWO, "accuracy"),
        (make("token-classification", ("O", "B-X"), [Example(("a",), (0,))]), "f1"),
        (make("token-classification", ("DET", "NOUN"), [Example(("a",), (0,))]), "accuracy"),
        (make("regression"), "pearson"),
        (make("multiple-choice", (), [Example(("a", ("b", "c")), 0)]), "accuracy"),
        (make("text-generation", (), [Example(("a",), "b")]), "exact_match"),
    ],
)
def test_the_metric_that_counts(task, metric):
    (asked,) = questions_of([task])
    assert (asked.metric, asked.maximised) == (metric, True)


def test_lower_is_better_for_errors():
    assert [questions_of([TWO], metric=m)[0].maximised for m in ("ece", "matthews")] == [
        False,
        True,
    ]
    assert not questions_of([make("regression")], metric="mse")[0].maximised
    assert not questions_of([TWO], criterion="entropy")[0].maximised


def test_metrics_without_a_common_mean_are_refused():
    # One is right more often when higher, the other surer of texts when lower.
    text = make("text-generation", (), [Example(("",), "b")], name="text")
    assert questions_of([text])[0].metric == "perplexity"
    with pytest.raises(UsageError, match="accuracy, perplexity have no common mean") as error:
        questions_of([TWO, text])
    assert "Name one metric" in str(error.value)


def test_a_metric_that_the_answers_do_not_tell_is_named():
    text = make("text-generation", (), [Example(("",), "b")])
    (asked,) = questions_of([text], metric="exact_match")
    answers = Writing(np.array([1.0]), np.array([2]), ("b",), None)
    with pytest.raises(UsageError, match=r"t: exact_match is not measured here\. .*perplexity"):
        asked.measure(answers)


def test_entropy_needs_no_labels_and_scores_do():
    hidden = make("sequence-classification", ("no", "yes"), [Example(("a",), None)] * 2)
    with pytest.raises(Unlabelled, match="nothing to score"):
        questions_of([hidden])
    (asked,) = questions_of([hidden], criterion="entropy")
    assert [example.label for example in asked.examples] == [0, 0]
    tags = make("token-classification", ("DET", "NOUN"), [Example(("a", "b"), None)])
    assert questions_of([tags], criterion="entropy")[0].examples[0].label == (0, 0)


@pytest.mark.parametrize("kind", ["regression", "text-generation"])
def test_answers_without_probabilities_have_no_entropy(kind):
    with pytest.raises(UsageError, match="no entropy over labels"):
        questions_of([make(kind)], criterion="entropy")


def test_all_mistakes_are_told_at_once():
    with pytest.raises(UsageError) as error:
        questions_of([TWO], metric="acuracy", heads={"tt": "a"})
    assert "--head tt: no such task. Did you mean 't'?" in str(error.value)
    assert "t: has no metric 'acuracy'. Did you mean 'accuracy' or" in str(error.value)
    with pytest.raises(UsageError, match=r"entropy is a metric itself\. Add --criterion score"):
        questions_of([TWO], metric="f1", criterion="entropy")


def test_tasks_of_one_name_are_refused():
    with pytest.raises(UsageError) as caught:
        questions_of([TWO, make("regression", name="r"), TWO])
    problems = [each for each in caught.value.problems if "twice" in each.what]
    assert [each.where for each in problems] == ["--task t"]
