"""How far a merge is from its parent on some examples, and what two models do with them.

Answers are logits [n, labels]. Without labels but where said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Logits = NDArray[np.floating[Any]]


def changed_share(parent: Logits, merged: Logits) -> float:
    """The share of examples to which the two give different answers, from 0 to 1."""
    _check(parent, merged)
    return float((parent.argmax(1) != merged.argmax(1)).mean())


def divergence(parent: Logits, merged: Logits) -> float:
    """KL(parent ‖ merged) of the answers' probabilities, mean over examples, in nats; 0 or more."""
    _check(parent, merged)
    first, second = _logs(parent), _logs(merged)
    return max(float((np.exp(first) * (first - second)).sum(1).mean()), 0.0)


def expected_loss(parent: Logits, merged: Logits) -> float:
    """The accuracy that a merge loses if its parent's probabilities are right, in [0, 1].

    Mean over examples of p(y) − p(y'), p the parent's probabilities, y and y' the two answers.
    What changes where the parent was unsure costs little.
    """
    _check(parent, merged)
    p, row = np.exp(_logs(parent)), np.arange(len(parent))
    return float((p[row, parent.argmax(1)] - p[row, merged.argmax(1)]).mean())


def total_variation(parent: Logits, merged: Logits) -> float:
    """½ Σ |p − q| of the answers' probabilities, mean over examples, from 0 to 1."""
    _check(parent, merged)
    return float(np.abs(np.exp(_logs(parent)) - np.exp(_logs(merged))).sum(1).mean() / 2)


def disentanglement_error(together: Sequence[Logits], alone: Sequence[Logits]) -> float:
    """ξ = Σ_t E_t[f(x; θ₀ + α_tτ_t) ≠ f(x; θ₀ + Σατ)] (arXiv:2305.12827).

    Zero where each task vector changes answers to its own examples alone.

    Args:
        together: for each task, what the merge answers to its examples.
        alone: what the base with that task's vector alone, scaled as in the merge, answers.

    Returns:
        from 0 to the number of tasks.
    """
    return sum(changed_share(a, b) for a, b in zip(alone, together, strict=True))


def linear_cka(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Linear centred kernel alignment of features of the same examples (arXiv:1905.00414).

    ‖YᵀX‖²_F / (‖XᵀX‖_F·‖YᵀY‖_F) of centred columns; neither scaling nor rotation changes it.

    Args:
        first: X [n, d₁].
        second: Y [n, d₂].

    Returns:
        from 0 to 1; NaN where features do not differ between examples.
    """
    X, Y = (np.asarray(each, np.float64) - np.mean(each, 0) for each in (first, second))
    if len(X) != len(Y):
        raise ValueError(f"features of {len(X)} and of {len(Y)} examples")
    # By examples where those are fewer than features: the same number from n × n products.
    K, L = X @ X.T, Y @ Y.T
    norms = float(np.linalg.norm(K) * np.linalg.norm(L))
    return float((K * L).sum()) / norms if norms > 0 else math.nan


def gradient_distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """‖g₁ − g₂‖ of two losses' gradients at one place, in losses for one unit of weight.

    A predictor of mergeability in arXiv:2601.22285, there of encoders on calibration data.

    Args:
        first: g₁, any shape.
        second: g₂, the same.
    """
    if first.shape != second.shape:
        raise ValueError(f"gradients of shapes {first.shape} and {second.shape}")
    return float(np.linalg.norm(np.asarray(first, np.float64) - second))


def connectivity_barrier(losses: Sequence[float]) -> float:
    """The height of a path's losses over the line between its ends (arXiv:1912.05671).

    max over α of L(α) − ((1 − α)·L(0) + α·L(1)); 0 or more, for the ends have none. Needs labels.

    Args:
        losses: at equal steps from the first model to the second, both included.
    """
    if len(losses) < 2:
        raise ValueError("a path has two ends")
    values = np.asarray(losses, np.float64)
    return float((values - np.linspace(values[0], values[-1], len(values))).max())


def _logs(logits: Logits) -> NDArray[np.float64]:
    return np.asarray(log_softmax(np.asarray(logits, np.float64), axis=1))


def _check(parent: Logits, merged: Logits) -> None:
    if parent.ndim != 2 or parent.shape != merged.shape or not len(parent):
        raise ValueError(
            f"expected two [n, labels], got {list(parent.shape)} and {list(merged.shape)}"
        )
