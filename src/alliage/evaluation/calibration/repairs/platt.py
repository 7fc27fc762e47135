"""Platt scaling: a logistic regression on log-odds (Platt, 1999)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from alliage.evaluation.calibration.checks import Binary, Floats
from alliage.evaluation.calibration.repairs.columns import events, mapped, numbers

_LEAST = np.finfo(np.float64).tiny
_MOST = 1 - np.finfo(np.float64).epsneg


@dataclass(frozen=True)
class Platt:
    """σ(slope · ln(p / (1 − p)) + intercept), for one event or for each class against the rest."""

    name: ClassVar[str] = "platt"
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    @classmethod
    def fit(
        cls, probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Self:
        """By scikit-learn, without a penalty, towards Platt's targets.

        These are (n₁ + 1)/(n₁ + 2) for the n₁ positives and 1/(n₀ + 2) for the n₀ negatives: they
        keep the slope finite where the events are told apart without an error. With weights,
        counts are of their sum scaled to the number of examples.
        """
        fitted = [_fit(one) for one in events(probabilities, labels, weights)]
        return cls(tuple(one[0] for one in fitted), tuple(one[1] for one in fitted))

    def apply(self, probabilities: ArrayLike) -> Floats:
        """See `Repair.apply`."""
        curves = zip(self.slopes, self.intercepts, strict=True)
        return mapped(probabilities, [partial(_sigmoid, *curve) for curve in curves])

    def to_json(self) -> dict[str, Any]:
        """See `Repair.to_json`."""
        return {
            "repair": self.name,
            "slopes": list(self.slopes),
            "intercepts": list(self.intercepts),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """See `Repair.from_json`."""
        slopes, intercepts = numbers(document, "slopes"), numbers(document, "intercepts")
        if len(slopes) != len(intercepts):
            raise ValueError("slopes and intercepts must be as many.")
        return cls(slopes, intercepts)


def _sigmoid(slope: float, intercept: float, probabilities: Floats) -> Floats:
    repaired: Floats = expit(slope * _log_odds(probabilities) + intercept)
    return repaired


def _log_odds(probabilities: Floats) -> Floats:
    odds: Floats = logit(np.clip(probabilities, _LEAST, _MOST))
    return odds


def _fit(event: Binary) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    count = len(event.values) * event.mass
    positives = float(count @ event.outcomes)
    negatives = float(count.sum()) - positives
    target = np.where(event.outcomes == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A target between 0 and 1 is an example of each label with the target's share.
    features = np.tile(_log_odds(event.values), 2)[:, None]
    labels = np.repeat([1, 0], len(target))
    shares = np.concatenate([count * target, count * (1 - target)])
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    model.fit(features, labels, sample_weight=shares)
    return float(model.coef_[0, 0]), float(model.intercept_[0])
