from __future__ import annotations

import pytest

from alliage.evaluation.metrics import classification_metrics, entity_metrics


def test_two_labels_by_hand():
    # tp 2, fp 1, fn 1, tn 4: F1 of the second 2/3, of the first 4/5.
    truth = [1, 1, 1, 0, 0, 0, 0, 0]
    predicted = [1, 1, 0, 1, 0, 0, 0, 0]
    assert classification_metrics(truth, predicted, 2) == {
        "accuracy": pytest.approx(6 / 8),
        "f1": pytest.approx(2 / 3),
        "f1_macro": pytest.approx((2 / 3 + 4 / 5) / 2),
        # (2·4 − 1·1) / √(3·3·5·5)
        "matthews": pytest.approx(7 / 15),
    }


def test_more_labels_have_no_binary_f1():
    found = classification_metrics([0, 1, 2, 2], [0, 2, 2, 2], 3)
    # F1: 1, 0, 4/5.
    assert found["f1_macro"] == pytest.approx((1 + 0 + 0.8) / 3)
    assert "f1" not in found


def test_always_the_same_answer_has_no_correlation():
    assert classification_metrics([0, 0, 1], [0, 0, 0], 2)["matthews"] == 0


def test_entities_count_when_type_and_both_ends_are_right():
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O", "O", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "I-ORG", "O", "O"]]
    assert entity_metrics(truth, predicted) == {
        "accuracy": pytest.approx(6 / 8),
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(1 / 3),
    }


def test_a_predicted_entity_may_start_with_i():
    assert entity_metrics([["O", "B-PER"]], [["O", "I-PER"]])["f1"] == 1


def test_no_entity_at_all_scores_zero_without_a_warning(recwarn):
    assert entity_metrics([["O", "B-PER"]], [["O", "O"]])["f1"] == 0
    assert not recwarn.list
