from __future__ import annotations

import pytest
from seqeval import metrics as seqeval

from alliage.evaluation.metrics import count_entities, glue_metrics, positive_label
from alliage.evaluation.text_metrics import exact_match, rouge


def test_entities_count_when_type_and_both_ends_are_right():
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O", "O", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "I-ORG", "O", "O"]]
    assert count_entities(truth, predicted).values() == {
        "accuracy": pytest.approx(6 / 8),
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(1 / 3),
    }


@pytest.mark.parametrize("seed", range(20))
def test_any_tags_score_as_in_seqeval(seed):
    import numpy as np

    random = np.random.default_rng(seed)
    tags = ["O", "B-A", "I-A", "B-B", "I-B"]
    truth, predicted = (
        [[tags[tag] for tag in random.integers(5, size=length)] for length in (1, 3, 7, 12)]
        for _ in range(2)
    )
    # Like a model: mostly right.
    predicted = [
        [t if random.random() < 0.7 else p for t, p in zip(*pair, strict=True)]
        for pair in zip(truth, predicted, strict=True)
    ]
    assert count_entities(truth, predicted).values() == pytest.approx(
        {
            "accuracy": seqeval.accuracy_score(truth, predicted),
            "precision": seqeval.precision_score(truth, predicted, zero_division=0),
            "recall": seqeval.recall_score(truth, predicted, zero_division=0),
            "f1": seqeval.f1_score(truth, predicted, zero_division=0),
        }
    )


def test_a_predicted_entity_may_start_with_i():
    assert count_entities([["O", "B-PER"]], [["O", "I-PER"]]).values()["f1"] == 1


def test_no_entity_at_all_scores_zero_without_a_warning(recwarn):
    assert count_entities([["O", "B-PER"]], [["O", "O"]]).values()["f1"] == 0
    assert not recwarn.list


def test_glue_counts_what_its_paper_says():
    assert glue_metrics("cola") == ("matthews",)
    assert glue_metrics("glue/mrpc") == glue_metrics("QQP") == ("accuracy", "f1")
    assert glue_metrics("sts-b") == ("pearson", "spearman")
    assert glue_metrics("MNLI-mismatched") == ("accuracy",)
    assert glue_metrics("sick") == ()


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (("not_equivalent", "equivalent"), 1), (("equivalent", "not_equivalent"), 0),
        (("1", "0"), 0), (("0", "1"), 1), (("duplicate", "not_duplicate"), 0),
        (("negative", "positive"), 1),
    ],
)  # fmt: skip
def test_f1_is_of_the_label_that_glue_writes_as_1(labels, positive):
    assert positive_label(labels) == positive


@pytest.mark.parametrize(
    ("expected", "written", "same"),
    [
        # The cases of SQuAD's evaluate-v1.1.py: case, articles, punctuation, white space.
        ("The Broncos", "broncos", True), ("a  b", "b", True), ("U.S.", "us", True),
        ("an apple", "anapple", False), ("theatre", "atre", False), ("", "the", True),
        ("été", "ete", False),
    ],
)  # fmt: skip
def test_exact_match_normalises_as_squad(expected, written, same):
    assert exact_match(expected, written) is same


def test_rouge_is_the_packages_own_for_english():
    from rouge_score.rouge_scorer import RougeScorer

    expected = ["The cat sat on the mat, at 9 o'clock.", "police killed the gunman"]
    written = ["the cat was on a mat at 9", "the gunman kill police"]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    scores = [scorer.score(*pair) for pair in zip(expected, written, strict=True)]
    found = rouge(expected, written)
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == [score[name].fmeasure for score in scores]


def test_rouge_by_hand():
    # Lin, 2004, 3.1: of 4 words 3 are in the longest common subsequence "police the gunman".
    found = rouge(["police killed the gunman"], ["police kill the gunman"])
    assert found["rougeL"] == [0.75]
    assert found["rouge1"] == [0.75]
    assert found["rouge2"] == [pytest.approx(1 / 3)]  # "the gunman"


def test_rouge_keeps_words_of_other_letters_whole():
    assert rouge(["un bel été"], ["un thé"])["rouge1"] == [pytest.approx(2 / 5)]  # "un" alone
