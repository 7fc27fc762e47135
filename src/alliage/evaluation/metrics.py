"""Task metrics, as the field computes them. Pure: labels in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike


def classification_metrics(truth: ArrayLike, predicted: ArrayLike, labels: int) -> dict[str, float]:
    """Scores of single labels, through scikit-learn.

    Args:
        truth: [n], indices of labels.
        predicted: [n], the same.
        labels: how many labels the task has.

    Returns:
        accuracy; f1_macro, the mean over the labels that occur; matthews, from −1 to 1; and of
        two labels f1, of the second one, as GLUE counts it.
    """
    from sklearn import metrics

    scores = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "f1_macro": metrics.f1_score(truth, predicted, average="macro", zero_division=0),
        "matthews": metrics.matthews_corrcoef(truth, predicted),
    }
    if labels == 2:
        scores["f1"] = metrics.f1_score(truth, predicted, pos_label=1, zero_division=0)
    return {name: float(score) for name, score in scores.items()}


def entity_metrics(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Scores of entities tagged in IOB2, through seqeval.

    An entity counts when its type and both ends are right. As in conlleval, and unlike seqeval's
    strict mode, a predicted "I-" without a "B-" before it starts an entity.

    Args:
        truth: the tags of each sentence.
        predicted: the same.

    Returns:
        accuracy of tags; precision, recall and f1 of entities, over all types together.
    """
    from seqeval import metrics

    truth, predicted = [list(tags) for tags in truth], [list(tags) for tags in predicted]
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "precision": float(metrics.precision_score(truth, predicted, zero_division=0)),
        "recall": float(metrics.recall_score(truth, predicted, zero_division=0)),
        "f1": float(metrics.f1_score(truth, predicted, zero_division=0)),
    }
