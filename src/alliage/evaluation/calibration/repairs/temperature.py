"""Temperature scaling (arXiv:1706.04599): softmax(ln p / T)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import softmax

from alliage.evaluation.calibration.checks import (
    Floats,
    checked,
    checked_probabilities,
    checked_rows,
    shares_of,
)

_LEAST = np.finfo(np.float64).tiny  # what a probability of 0 counts as
_RANGE = 10.0  # of |ln T|


@dataclass(frozen=True)
class Temperature:
    """One temperature for all classes; above 1 it makes a model less confident.

    It keeps the order of the classes, so every answer and its accuracy. ln p are the model's
    logits but for a constant in each row, so it is the temperature of these too.
    """

    name: ClassVar[str] = "temperature"
    temperature: float

    @classmethod
    def fit(
        cls, probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Self:
        """The temperature of least cross-entropy, which is convex in 1/T; within e^±10."""
        if np.ndim(probabilities) == 1:
            values, outcomes, mass = checked(probabilities, labels, weights)
            rows, truth = np.stack([1 - values, values], axis=1), outcomes.astype(np.int64)
        else:
            rows, truth = checked_rows(probabilities, labels)
            mass = shares_of(weights, len(rows))
        logits = _logits(rows)
        right = logits[np.arange(len(rows)), truth]

        def slope(log_inverse: float) -> float:
            inverse = np.exp(log_inverse)
            expected = (softmax(inverse * logits, axis=1) * logits).sum(axis=1)
            return float(mass @ (expected - right))

        if slope(_RANGE) <= 0:  # nothing is answered wrong
            return cls(float(np.exp(-_RANGE)))
        if slope(-_RANGE) >= 0:  # wrong answers are no less sure
            return cls(float(np.exp(_RANGE)))
        return cls(float(np.exp(-brentq(slope, -_RANGE, _RANGE, xtol=1e-14))))

    @property
    def limit(self) -> str:
        """What the answers are like that put it at an end of its range; empty elsewhere."""
        if self.temperature <= np.exp(-_RANGE):
            return "no answer is wrong"
        if self.temperature >= np.exp(_RANGE):
            return "wrong answers are no less sure than right ones"
        return ""

    def apply(self, probabilities: ArrayLike) -> Floats:
        """See `Repair.apply`."""
        values = checked_probabilities(probabilities)
        rows = np.stack([1 - values, values], axis=1) if values.ndim == 1 else values
        repaired: Floats = softmax(_logits(rows) / self.temperature, axis=1)
        return repaired[:, 1] if values.ndim == 1 else repaired

    def to_json(self) -> dict[str, Any]:
        """See `Repair.to_json`."""
        return {"repair": self.name, "temperature": self.temperature}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """See `Repair.from_json`."""
        found = document.get("temperature")
        if not isinstance(found, int | float) or not 0 < found < np.inf:
            raise ValueError("temperature must be a positive number.")
        return cls(float(found))


def _logits(rows: Floats) -> Floats:
    logits: Floats = np.log(np.maximum(rows, _LEAST))
    return logits
