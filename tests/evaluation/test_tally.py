"""Metrics as functions of sums, against scikit-learn, scipy and hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from alliage.evaluation.tally import (
    classification_tally,
    entity_tally,
    joined,
    perplexity_tally,
    ratio_tally,
    regression_tally,
)


def test_two_labels_by_hand():
    # tp 2, fp 1, fn 1, tn 4: F1 of the second 2/3, of the first 4/5.
    truth = [1, 1, 1, 0, 0, 0, 0, 0]
    predicted = [1, 1, 0, 1, 0, 0, 0, 0]
    assert classification_tally(truth, predicted, 2).values() == {
        "accuracy": pytest.approx(6 / 8),
        "balanced_accuracy": pytest.approx((2 / 3 + 4 / 5) / 2),
        "f1": pytest.approx(2 / 3),
        "f1_macro": pytest.approx((2 / 3 + 4 / 5) / 2),
        # (2·4 − 1·1) / √(3·3·5·5)
        "matthews": pytest.approx(7 / 15),
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
    }


def test_the_positive_label_may_be_the_first():
    found = classification_tally([0, 0, 1, 1], [0, 1, 1, 0], 2, positive=0).values()
    other = classification_tally([1, 1, 0, 0], [1, 0, 0, 1], 2).values()
    assert found == other


@given(
    st.integers(2, 5).flatmap(
        lambda labels: st.tuples(
            st.just(labels),
            st.lists(
                st.tuples(st.integers(0, labels - 1), st.integers(0, labels - 1)),
                min_size=1,
                max_size=30,
            ),
        )
    )
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of scikit-learn: labels that never occur
def test_any_answers_score_as_in_scikit_learn(case):
    labels, pairs = case
    truth, predicted = (list(side) for side in zip(*pairs, strict=True))
    found = classification_tally(truth, predicted, labels).values()
    averaged = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "f1_macro": metrics.f1_score(truth, predicted, **averaged),
        "matthews": metrics.matthews_corrcoef(truth, predicted),
    }
    if labels == 2:
        expected["f1"] = metrics.f1_score(truth, predicted, zero_division=0)
        expected["precision"] = metrics.precision_score(truth, predicted, zero_division=0)
        expected["recall"] = metrics.recall_score(truth, predicted, zero_division=0)
    else:
        expected["precision_macro"] = metrics.precision_score(truth, predicted, **averaged)
        expected["recall_macro"] = metrics.recall_score(truth, predicted, **averaged)
    assert found == pytest.approx(expected, abs=1e-12)


def test_decisions_are_added_up_by_example():
    tally = classification_tally([0, 1, 1], [0, 1, 0], 2, examples=[0, 0, 2], count=4)
    assert len(tally) == 4
    columns = {"right": slice(0, 2), "predicted": slice(2, 4), "true": slice(4, 6)}
    rows = {name: tally.rows.toarray()[:, part].tolist() for name, part in columns.items()}
    assert rows["right"] == [[1, 1], [0, 0], [0, 0], [0, 0]]
    assert rows["predicted"] == [[1, 1], [0, 0], [1, 0], [0, 0]]
    assert rows["true"] == [[1, 1], [0, 0], [0, 1], [0, 0]]


def test_entities_by_hand():
    tally = entity_tally([4, 4], [3, 3], hits=[1, 0], predicted=[2, 1], true=[2, 1])
    assert tally.values() == pytest.approx(
        {"accuracy": 6 / 8, "precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3}
    )
    nothing = entity_tally([2], [1], hits=[0], predicted=[0], true=[1]).values()
    assert (nothing["precision"], nothing["recall"], nothing["f1"]) == (0, 0, 0)


def test_numbers_correlate_as_in_scipy():
    random = np.random.default_rng(0)
    truth = 1e6 + random.normal(size=50)
    predicted = truth + random.normal(size=50)
    found = regression_tally(truth, predicted).values()
    assert found["pearson"] == pytest.approx(stats.pearsonr(truth, predicted)[0], abs=1e-9)
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(truth, predicted))


def test_a_constant_prediction_has_no_correlation():
    assert np.isnan(regression_tally([1, 2, 3], [2, 2, 2]).values()["pearson"])


def test_perplexity_counts_tokens_not_texts():
    # Texts of 1 and 3 tokens: exp((2 + 3) / 4), not the mean of exp(2) and exp(1).
    found = perplexity_tally([2.0, 3.0], [1, 3]).values()
    assert found["perplexity"] == pytest.approx(np.exp(5 / 4))


def test_joined_tallies_keep_their_metrics():
    tally = joined(
        perplexity_tally([2.0, 3.0], [1, 3]),
        ratio_tally({"half": ([1, 0], [1, 1]), "all": ([1, 1], [1, 1])}),
    )
    assert tally.values() == pytest.approx({"perplexity": np.exp(5 / 4), "half": 0.5, "all": 1})
    assert tally.with_mean("mean", ("half", "all")).values()["mean"] == 0.75
