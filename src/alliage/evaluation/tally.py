"""Metrics as functions of sums over examples. Pure: arrays in, numbers out.

Accuracy, F1, correlations, perplexity: each is a function of a few sums. Kept so, a resample of the
examples costs one product of matrices, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """What each example adds to the sums, and the metrics that are functions of them.

    Attributes:
        rows: sparse [examples, columns].
        metrics: name -> a function of sums [..., columns] -> [...].
    """

    rows: Any
    metrics: Mapping[str, Callable[[Floats], Floats]]

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    @property
    def sums(self) -> Floats:
        """Over all examples, [columns]."""
        return np.asarray(self.rows.sum(axis=0), dtype=np.float64).ravel()

    def values(self) -> dict[str, float]:
        """Every metric of all examples; NaN where it is not defined."""
        return {name: float(of) for name, of in self.of(self.sums).items()}

    def of(self, sums: Floats) -> dict[str, Floats]:
        """Every metric of sums [..., columns]."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: np.asarray(metric(sums)) for name, metric in self.metrics.items()}

    def with_mean(self, name: str, of: tuple[str, ...]) -> Tally:
        """The tally with one more metric: the mean of some of its own."""
        parts = [self.metrics[one] for one in of]

        def mean(sums: Floats) -> Floats:
            return np.asarray(np.mean([part(sums) for part in parts], axis=0))

        return Tally(self.rows, {**self.metrics, name: mean})


def classification_tally(
    truth: ArrayLike,
    predicted: ArrayLike,
    labels: int,
    *,
    examples: ArrayLike | None = None,
    count: int | None = None,
    positive: int = 1,
) -> Tally:
    """Metrics of single labels; scikit-learn's, with 0 where a share has nothing below the line.

    Args:
        truth: [n], indices of labels.
        predicted: [n], the same.
        labels: how many labels the task has.
        examples: [n], the example that each decision belongs to, counted from 0; one each by
            default. Of tokens: their sentence, since the tokens of one are not independent.
        count: how many examples there are, where the last ones may have no decision.
        positive: of two labels, the one that F1, precision and recall are of.

    Returns:
        accuracy; balanced_accuracy, the mean recall over the labels that occur; f1_macro, the mean
        over those that occur or are predicted; matthews, from −1 to 1; of two labels f1, precision
        and recall of the positive one, of more precision_macro and recall_macro.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    owners = np.arange(len(truth)) if examples is None else np.asarray(examples)
    right = truth == predicted
    at = np.concatenate([owners[right], owners, owners])
    columns = np.concatenate([truth[right], labels + predicted, 2 * labels + truth])
    height = count or int(owners.max(initial=-1)) + 1
    rows = sparse.csr_array((np.ones(len(at)), (at, columns)), shape=(height, 3 * labels))
    parts = partial(_parts, labels=labels)
    metrics: dict[str, Callable[[Floats], Floats]] = {
        "accuracy": lambda sums: parts(sums)[0].sum(-1) / parts(sums)[2].sum(-1),
        "balanced_accuracy": lambda sums: _balanced(*parts(sums)),
        "f1_macro": lambda sums: _macro_f1(*parts(sums)),
        "matthews": lambda sums: _matthews(*parts(sums)),
    }
    if labels == 2:
        metrics |= {
            "f1": lambda sums: _f1(*parts(sums))[..., positive],
            "precision": lambda sums: _share(*parts(sums)[:2])[..., positive],
            "recall": lambda sums: _share(*parts(sums)[::2])[..., positive],
        }
    else:
        metrics |= {
            "precision_macro": lambda sums: _over_seen(_share(*parts(sums)[:2]), *parts(sums)[1:]),
            "recall_macro": lambda sums: _over_seen(_share(*parts(sums)[::2]), *parts(sums)[1:]),
        }
    return Tally(rows, metrics)


def ratio_tally(metrics: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Tally:
    """Metrics that are a sum over a sum.

    Args:
        metrics: name -> what each example adds above the line [n] and below it [n].
    """
    columns = np.stack([np.asarray(part, np.float64) for both in metrics.values() for part in both])
    return Tally(
        sparse.csr_array(columns.T),
        {name: partial(_ratio, at=2 * index) for index, name in enumerate(metrics)},
    )


def entity_tally(
    tokens: ArrayLike, right: ArrayLike, hits: ArrayLike, predicted: ArrayLike, true: ArrayLike
) -> Tally:
    """Metrics of entities, all types together, from counts for each sentence.

    Args:
        tokens: [n], how many there are.
        right: [n], of those, with the right tag.
        hits: [n], entities predicted with their type and both ends right.
        predicted: [n], entities predicted.
        true: [n], entities there are.

    Returns:
        accuracy of tags; precision, recall and f1 of entities.
    """
    counts = [np.asarray(part, np.float64) for part in (tokens, right, hits, predicted, true)]
    return Tally(
        sparse.csr_array(np.stack(counts, axis=1)),
        {
            "accuracy": lambda sums: sums[..., 1] / sums[..., 0],
            "precision": lambda sums: _share(sums[..., 2], sums[..., 3]),
            "recall": lambda sums: _share(sums[..., 2], sums[..., 4]),
            "f1": lambda sums: _share(2 * sums[..., 2], sums[..., 3] + sums[..., 4]),
        },
    )


def regression_tally(truth: ArrayLike, predicted: ArrayLike) -> Tally:
    """Pearson's correlation, NaN where one side does not vary, and the mean squared error "mse"."""
    x, y = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    errors = (x - y) ** 2
    x, y = x - x.mean(), y - y.mean()  # changes no correlation, and keeps the digits of the sums
    columns = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y, errors], axis=1)
    return Tally(
        sparse.csr_array(columns),
        {"pearson": _pearson, "mse": lambda sums: sums[..., 6] / sums[..., 0]},
    )


def perplexity_tally(losses: ArrayLike, tokens: ArrayLike) -> Tally:
    """Perplexity exp(Σ losses / Σ tokens): of all tokens alike, whatever text they are in.

    Args:
        losses: [n], negative log-likelihood of each text, natural logarithm.
        tokens: [n], how many tokens of it were scored.
    """
    return Tally(
        sparse.csr_array(np.stack([np.asarray(losses), np.asarray(tokens)], axis=1)),
        {"perplexity": lambda sums: np.exp(sums[..., 0] / sums[..., 1])},
    )


def joined(first: Tally, second: Tally) -> Tally:
    """One tally with the metrics of two over the same examples."""
    width = first.rows.shape[1]
    own = {name: partial(_on, metric, slice(0, width)) for name, metric in first.metrics.items()}
    other = {
        name: partial(_on, metric, slice(width, None)) for name, metric in second.metrics.items()
    }
    return Tally(sparse.hstack([first.rows, second.rows], format="csr"), own | other)


def _on(metric: Callable[[Floats], Floats], columns: slice, sums: Floats) -> Floats:
    return metric(sums[..., columns])


def _parts(sums: Floats, labels: int) -> tuple[Floats, Floats, Floats]:
    """For each label: right answers, predictions, and how often it is true."""
    return sums[..., :labels], sums[..., labels : 2 * labels], sums[..., 2 * labels :]


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _ratio(sums: Floats, at: int) -> Floats:
    return sums[..., at] / sums[..., at + 1]


def _f1(right: Floats, predicted: Floats, true: Floats) -> Floats:
    return _share(2 * right, predicted + true)


def _over_seen(values: Floats, predicted: Floats, true: Floats) -> Floats:
    """The mean over the labels that occur or are predicted."""
    return np.asarray(values.sum(-1) / (predicted + true > 0).sum(-1))


def _macro_f1(right: Floats, predicted: Floats, true: Floats) -> Floats:
    return _over_seen(_f1(right, predicted, true), predicted, true)


def _balanced(right: Floats, _: Floats, true: Floats) -> Floats:
    return np.asarray(_share(right, true).sum(-1) / (true > 0).sum(-1))


def _matthews(right: Floats, predicted: Floats, true: Floats) -> Floats:
    """R_K of Gorodkin, 2004; 0 where one side does not vary."""
    count = true.sum(-1)
    covariance = count * right.sum(-1) - (predicted * true).sum(-1)
    spread = (count**2 - (predicted**2).sum(-1)) * (count**2 - (true**2).sum(-1))
    return _share(covariance, np.sqrt(np.maximum(spread, 0)))


def _pearson(sums: Floats) -> Floats:
    count, x, y, xx, yy, xy = (sums[..., index] for index in range(6))
    spread = (count * xx - x * x) * (count * yy - y * y)
    return (count * xy - x * y) / np.sqrt(spread)
